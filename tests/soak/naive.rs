//! The control: sled used naively, as SLED.md rule 4 describes it. Batches that nobody flushes are appended and drained at once, in a
//! store that is new each round, until sled's pool waits for itself and nothing moves any more.
//!
//! It hangs in about one round of a hundred, so it is run by hand: `HH_CONTROL=naive`, with `HH_CYCLES` rounds.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// A round that says nothing for so long hangs: others say something every few milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
const WRITERS: u64 = 4;
const BATCHES: u64 = 160;
const VALUES_A_BATCH: u64 = 16;

/// If this process is a round, does its work. Call it first.
pub fn as_child() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [word, dir, bytes] = arguments.as_slice() else {
        return None;
    };
    if word != "naive" {
        return None;
    }
    let done = round(Path::new(dir), bytes.parse().unwrap());
    done.map_or_else(|error| panic!("{error}"), |()| Some(ExitCode::SUCCESS))
}

fn say() {
    let mut out = io::stdout().lock();
    let _ = out.write_all(b".\n").and_then(|()| out.flush());
}

fn round(dir: &Path, bytes: usize) -> sled::Result<()> {
    let db = sled::Config::new().path(dir).open()?;
    let appending = AtomicU64::new(WRITERS);
    thread::scope(|scope| {
        let writers = (0..WRITERS).map(|writer| {
            let (db, appending) = (&db, &appending);
            scope.spawn(move || {
                let appended = append(db, writer, bytes);
                appending.fetch_sub(1, Relaxed);
                appended
            })
        });
        let writers: Vec<_> = writers.collect();
        let drained = drain(&db, &appending);
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().unwrap())
            .and(drained)
    })
}

/// Takes away what is there until nothing more comes.
fn drain(db: &sled::Db, appending: &AtomicU64) -> sled::Result<()> {
    loop {
        let last_look = appending.load(Relaxed) == 0;
        let keys = db.iter().keys().take(VALUES_A_BATCH as usize);
        let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() && last_look {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        keys.iter().for_each(|key| batch.remove(key));
        db.apply_batch(batch)?;
        say();
    }
}

fn append(db: &sled::Db, writer: u64, bytes: usize) -> sled::Result<()> {
    for number in 0..BATCHES / WRITERS {
        let mut batch = sled::Batch::default();
        for value in 0..VALUES_A_BATCH {
            let key = [writer, number, value].map(u64::to_be_bytes).concat();
            batch.insert(key, vec![value as u8; bytes]);
        }
        db.apply_batch(batch)?;
        say();
    }
    Ok(())
}

/// Rounds until one hangs; passes if one does.
pub fn control(rounds: u64) -> ExitCode {
    for number in 1..=rounds {
        // Small values and large ones, which hang in rounds of their own.
        let bytes = [1024, 20_000][number as usize % 2];
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("naive")
            .arg(dir.path())
            .arg(bytes.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let hung = hangs(&mut child);
        let _ = child.kill();
        let _ = child.wait();
        if hung {
            println!(
                "control: sled used naively stood still in round {number}, values of {bytes} B"
            );
            println!("1 passed, 0 failed");
            return ExitCode::SUCCESS;
        }
    }
    println!("FAILED: sled used naively did not stand still in {rounds} rounds");
    println!("0 passed, 1 failed");
    ExitCode::FAILURE
}

fn hangs(child: &mut Child) -> bool {
    let (tell, told) = mpsc::channel();
    let stdout = child.stdout.take().unwrap();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        while lines.next().is_some_and(|line| line.is_ok()) && tell.send(()).is_ok() {}
    });
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}
