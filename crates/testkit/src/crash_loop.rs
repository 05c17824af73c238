//! The crash loop: runs the host in a child process, stops it at a random moment, starts it again,
//! asks the oracle.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::{event::Event, oracle::Oracle};

/// How a life is ended.
pub trait Stop {
    /// Ends the life of `child`, so that what it did not make durable may be gone.
    ///
    /// # Errors
    /// What the operating system says.
    fn stop(&mut self, child: &mut Child) -> io::Result<()>;

    /// Whether what the child tells while it is being stopped is true. Not so when the power is
    /// cut: in earnest nobody would be there to hear it, and here a sync that is under way may
    /// return success for what the file system then drops. (Measured on a plain file: the last
    /// write that `fdatasync` called done was missing after 11 of 100 cuts of an ext4.)
    fn last_words_count(&self) -> bool {
        true
    }

    /// Makes the storage usable again for the next life.
    ///
    /// # Errors
    /// What the operating system says.
    fn recover(&mut self) -> io::Result<()>;
}

/// SIGKILL: what was written to the page cache stays.
#[derive(Debug, Default)]
pub struct Kill;

impl Stop for Kill {
    fn stop(&mut self, child: &mut Child) -> io::Result<()> {
        child.kill()
    }

    fn recover(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was stopped.
    Stopped,
    /// It came to its own end, well.
    Finished,
    /// It came to its own end, badly: an error, a panic, an abort. Its log says which.
    Failed,
}

/// Runs lives of a host and keeps the oracle.
#[derive(Debug)]
pub struct CrashLoop<S> {
    stop: S,
    /// What was seen.
    pub oracle: Oracle,
    /// Where children say what went wrong.
    pub log: PathBuf,
    /// Whether the time until a stop begins when the store is open, however long that takes, rather
    /// than at the start.
    pub once_open: bool,
    /// How long it took until the store was open, counted from the start of the last life in which
    /// it came to that.
    pub opened_after: Option<Duration>,
}

impl<S: Stop> CrashLoop<S> {
    /// A loop whose lives end by `stop`; what children print to stderr goes to the file `log`.
    pub fn new(stop: S, log: PathBuf) -> Self {
        CrashLoop {
            stop,
            oracle: Oracle::default(),
            log,
            once_open: false,
            opened_after: None,
        }
    }

    /// One life: starts `command`, and stops it `after` so long unless it ends before.
    ///
    /// # Errors
    /// A child that could not be started or stopped, or that neither told anything nor ended within
    /// `patience` (a hang).
    pub fn live(
        &mut self,
        command: &mut Command,
        after: Option<Duration>,
        patience: Duration,
    ) -> io::Result<Ended> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let events = match child.stdout.take() {
            Some(stdout) => read_events(stdout),
            None => return Err(io::Error::other("the child has no stdout")),
        };
        let ended = self.watch(&mut child, &events, after, patience);
        if ended.is_err() {
            // Never leave a child behind; the error is the one to tell.
            let _ = child.kill();
        }
        let status = child.wait()?;
        // What it told before it died is true and counts, unless it was told too late.
        let too_late = matches!(ended, Ok(Ended::Stopped)) && !self.stop.last_words_count();
        if too_late {
            self.oracle.power_fails();
        }
        let counts = |event: &Event| !too_late || !event.is_promise();
        events
            .iter()
            .filter(counts)
            .for_each(|event| self.oracle.see(event));
        let ended = ended?;
        self.stop.recover()?;
        self.oracle.life_ended();
        match ended {
            Ended::Finished if !status.success() => Ok(Ended::Failed),
            ended => Ok(ended),
        }
    }

    fn watch(
        &mut self,
        child: &mut Child,
        events: &Receiver<Event>,
        after: Option<Duration>,
        patience: Duration,
    ) -> io::Result<Ended> {
        let in_time = || after.map(|after| Instant::now() + after);
        let mut stop_at = if self.once_open { None } else { in_time() };
        let started = Instant::now();
        let mut last_word = started;
        loop {
            let now = Instant::now();
            if stop_at.is_some_and(|at| now >= at) {
                events.try_iter().for_each(|event| self.oracle.see(event));
                self.stop.stop(child)?;
                return Ok(Ended::Stopped);
            }
            if now.duration_since(last_word) > patience {
                let text = format!("a life hangs: nothing told for {patience:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            let wait = stop_at.map_or(Duration::from_millis(100), |at| at - now);
            match events.recv_timeout(wait.min(Duration::from_millis(100))) {
                Ok(event) => {
                    last_word = Instant::now();
                    if matches!(event, Event::Opened { .. }) {
                        self.opened_after = Some(started.elapsed());
                        stop_at = stop_at.or_else(in_time);
                    }
                    self.oracle.see(event);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Ended::Finished),
            }
        }
    }
}

/// Events as they come, from a thread that ends with the child's output.
fn read_events(stdout: impl io::Read + Send + 'static) -> Receiver<Event> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines();
        for event in lines
            .map_while(Result::ok)
            .filter_map(|line| line.parse().ok())
        {
            if tell.send(event).is_err() {
                return;
            }
        }
    });
    told
}
