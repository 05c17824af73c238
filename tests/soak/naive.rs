//! The control: sled used naively, as docs/sled.md rule 4 describes it. Batches that nobody flushes
//! are appended and drained by turns, so that the file grows and is cut again and again, until
//! sled's pool waits for itself and nothing moves any more.
//!
//! Run by hand, as it takes minutes: `HH_CONTROL=naive`, with `HH_CYCLES` rounds at most. It hung
//! in rounds 5, 5 and 11, where a thread was found in `SegmentAccountant::next`.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use crate::crash;

/// A round that says nothing for so long hangs: others say something every few milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than a processor each, so that more buffers are under way than sled's pool has threads.
const WRITERS: u64 = 8;
const TURNS: u64 = 10;
/// Some 20 MB a turn: many of sled's segments of 512 KiB.
const BYTES_A_WRITER: usize = 2_500_000;
const BYTES_A_BATCH: usize = 60_000;

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
    for turn in 0..TURNS {
        thread::scope(|scope| {
            let work = |writer| match turn % 2 {
                0 => append(&db, writer, bytes),
                _ => drain(&db, writer),
            };
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| scope.spawn(move || work(writer)))
                .collect();
            writers
                .into_iter()
                .try_for_each(|writer| writer.join().unwrap())
        })?;
    }
    Ok(())
}

fn append(db: &sled::Db, writer: u64, bytes: usize) -> sled::Result<()> {
    let (values, a_batch) = (BYTES_A_WRITER / bytes, BYTES_A_BATCH.div_ceil(bytes));
    let keys: Vec<_> = (0..values as u64)
        .map(|value| [writer, value].map(u64::to_be_bytes).concat())
        .collect();
    keys.chunks(a_batch).try_for_each(|keys| {
        let mut batch = sled::Batch::default();
        for key in keys {
            batch.insert(key.as_slice(), vec![7; bytes]);
        }
        say();
        db.apply_batch(batch)
    })
}

fn drain(db: &sled::Db, writer: u64) -> sled::Result<()> {
    let keys = db.scan_prefix(writer.to_be_bytes()).keys();
    let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
    keys.chunks(60).try_for_each(|keys| {
        let mut batch = sled::Batch::default();
        keys.iter().for_each(|key| batch.remove(key));
        say();
        db.apply_batch(batch)
    })
}

/// Rounds until one hangs; passes if one does.
pub fn control(rounds: u64) -> ExitCode {
    for number in 1..=rounds {
        // Small values and large ones, which hang in rounds of their own.
        let bytes = [1024, 7 * 1024, 120_000][number as usize % 3];
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
            return crash::verdict(true);
        }
    }
    println!("FAILED: sled used naively did not stand still in {rounds} rounds");
    crash::verdict(false)
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
