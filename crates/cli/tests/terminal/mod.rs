//! A pseudo terminal with a program on it, and the screen that its user would see.

#![allow(dead_code)]

use std::{
    io::{Read, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtySize, native_pty_system};

const WITHIN: Duration = Duration::from_secs(60);

pub struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    /// `None` once its user is gone.
    user: Option<User>,
    shown: Arc<Mutex<Shown>>,
    reader: Option<JoinHandle<()>>,
    is_hanging_up: Arc<AtomicBool>,
    is_unread: Arc<AtomicBool>,
}

struct User {
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
}

struct Shown {
    screen: vt100::Parser,
    bytes: Vec<u8>,
}

/// A program as its user has it on a terminal with colours, whatever these tests run on.
pub fn program(path: &str) -> CommandBuilder {
    let mut command = CommandBuilder::new(path);
    command.env("TERM", "xterm-256color");
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    command
}

impl Terminal {
    /// Runs it on a terminal of so many columns and rows.
    pub fn run(command: CommandBuilder, columns: u16, rows: u16) -> Terminal {
        let pair = native_pty_system().openpty(size(columns, rows)).unwrap();
        let child = pair.slave.spawn_command(command).unwrap();
        // The end that the program has is its own, so that its end is seen.
        drop(pair.slave);
        let mut from = pair.master.try_clone_reader().unwrap();
        let shown = Arc::new(Mutex::new(Shown {
            screen: vt100::Parser::new(rows, columns, 0),
            bytes: Vec::new(),
        }));
        let is_hanging_up = Arc::new(AtomicBool::new(false));
        let (to, is_over) = (shown.clone(), is_hanging_up.clone());
        let is_unread = Arc::new(AtomicBool::new(false));
        let waits = is_unread.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends with an error where nobody has the other end any more.
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                while waits.load(Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let mut to = to.lock().unwrap();
                to.screen.process(&buffer[..read]);
                to.bytes.extend_from_slice(&buffer[..read]);
                if is_over.load(Relaxed) {
                    return;
                }
            }
        });
        let keys = pair.master.take_writer().unwrap();
        Terminal {
            child,
            user: Some(User {
                master: pair.master,
                keys,
            }),
            shown,
            reader: Some(reader),
            is_hanging_up,
            is_unread,
        }
    }

    pub fn keys(&mut self, keys: &str) {
        let user = self.user.as_mut().unwrap();
        user.keys.write_all(keys.as_bytes()).unwrap();
        user.keys.flush().unwrap();
    }

    pub fn resize(&mut self, columns: u16, rows: u16) {
        let user = self.user.as_ref().unwrap();
        let mut shown = self.shown.lock().unwrap();
        shown.screen.screen_mut().set_size(rows, columns);
        user.master.resize(size(columns, rows)).unwrap();
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.shown.lock().unwrap().screen.screen().contents()
    }

    /// All that was ever written to it.
    pub fn bytes(&self) -> String {
        let shown = self.shown.lock().unwrap();
        String::from_utf8_lossy(&shown.bytes).into_owned()
    }

    /// Whether the program has the whole screen, and whether the cursor is hidden.
    pub fn is_taken(&self) -> (bool, bool) {
        let shown = self.shown.lock().unwrap();
        let screen = shown.screen.screen();
        (screen.alternate_screen(), screen.hide_cursor())
    }

    /// How the terminal treats what is typed.
    pub fn modes(&self) -> String {
        let user = self.user.as_ref().unwrap();
        format!("{:?}", user.master.get_termios().unwrap())
    }

    /// Waits until that is on the screen.
    #[track_caller]
    pub fn until(&self, wished: impl Fn(&str) -> bool) {
        let by = Instant::now() + WITHIN;
        while !wished(&self.text()) {
            assert!(Instant::now() < by, "{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    pub fn until_shows(&self, text: &str) {
        self.until(|it| it.contains(text));
    }

    /// Sends a signal to all that runs on it, as a terminal does.
    pub fn signal(&self, signal: &str) {
        let kill = format!("kill -s {signal} -- -{}", self.child.process_id().unwrap());
        let kill = std::process::Command::new("sh")
            .args(["-c", &kill])
            .status();
        assert!(kill.unwrap().success());
    }

    /// Nobody reads what the program writes, as on a connection that hangs, until it ended.
    pub fn stop_reading(&self) {
        self.is_unread.store(true, Relaxed);
    }

    /// Its user goes away, as a connection that breaks.
    pub fn hang_up(&mut self) {
        self.is_hanging_up.store(true, Relaxed);
        // The program draws, so that the reader hears of it, and lets go of its end.
        self.resize(33, 9);
        self.reader.take().unwrap().join().unwrap();
        self.user = None;
    }

    /// Waits for its end, and for all that it wrote.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let by = Instant::now() + WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.is_unread.store(false, Relaxed);
                if let Some(reader) = self.reader.take() {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(Instant::now() < by, "it goes on: {}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn size(columns: u16, rows: u16) -> PtySize {
    PtySize {
        rows,
        cols: columns,
        pixel_width: 0,
        pixel_height: 0,
    }
}

/// Whether there is a colour in it that is not the terminal's own.
pub fn has_colours(bytes: &str) -> bool {
    let sequences = bytes.split("\u{1b}[").skip(1);
    let modes = sequences.filter_map(|it| it.split_once('m').map(|(modes, _)| modes));
    let mut modes = modes.flat_map(|it| it.split(';'));
    modes.any(|it| matches!(it.parse::<u32>(), Ok(30..=38 | 40..=48 | 90..=107)))
}
