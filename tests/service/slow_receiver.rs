//! A receiver that takes only so many bytes a second gets what it can take in time, not the same
//! again and again. On paused time.

use std::{path::Path, sync::Arc, time::Duration};

use crate::common;
use bytes::Bytes;
use hinted_handoff::{
    Config, Durability, HintedHandoff, NodeId, ShardId, ShardWrite, ShardWriter, WriteError,
};
use hinted_handoff_testkit::ScriptedWriter;
use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};

const NODE: NodeId = NodeId(1);
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes so many bytes a second in each send.
struct Receiver {
    bytes_per_second: u64,
    /// Gives up by itself after so long.
    gives_up: Duration,
    /// Numbers of all hints of all sends, and of those that were taken.
    sent: Mutex<Vec<u64>>,
    taken: watch::Sender<Vec<u64>>,
}

impl ShardWriter<Bytes> for Receiver {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        let number = |points: &Bytes| u64::from_be_bytes(*points.first_chunk().unwrap());
        let numbers: Vec<_> = write.batches.iter().map(|it| number(&it.points)).collect();
        let bytes: usize = write.batches.iter().map(|it| it.points.len()).sum();
        self.sent.lock().extend(&numbers);
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        sleep(takes.min(self.gives_up)).await;
        if takes > self.gives_up {
            return Err(WriteError::retry("the client gave up"));
        }
        self.taken.send_modify(|taken| taken.extend(numbers));
        Ok(())
    }
}

fn config(dir: &Path) -> Config {
    Config {
        durability: Durability::Buffered,
        send_timeout: SEND_TIMEOUT,
        ..common::config(dir)
    }
}

async fn fill(dir: &Path, hints: u64, bytes: usize) {
    let down = ScriptedWriter::down();
    let handoff = HintedHandoff::open(config(dir), down).await.unwrap();
    for number in 0..hints {
        let mut points = number.to_be_bytes().to_vec();
        points.resize(bytes, 0);
        let points = Bytes::from(points);
        let write = handoff.write_shard(NODE, ShardId(1), &points);
        write.await.unwrap();
    }
    handoff.sync().await.unwrap();
    handoff.shutdown().await.unwrap();
}

/// How many copies were sent in vain until all hints were taken, in order.
async fn wasted(hints: u64, bytes: usize, config: Config, receiver: Receiver) -> u64 {
    fill(&config.dir, hints, bytes).await;
    let receiver = Arc::new(receiver);
    let handoff = HintedHandoff::open(config, Arc::clone(&receiver))
        .await
        .unwrap();
    let mut taken = receiver.taken.subscribe();
    let all = taken.wait_for(|taken| taken.len() as u64 == hints);
    let all = tokio::time::timeout(Duration::from_secs(3600), all).await;
    let Ok(all) = all else {
        let sent = receiver.sent.lock().len();
        panic!("{} taken, {sent} sent", receiver.taken.borrow().len());
    };
    assert_eq!(*all.unwrap(), (0..hints).collect::<Vec<_>>());
    handoff.shutdown().await.unwrap();
    let wasted = receiver.sent.lock().len() as u64 - hints;
    println!("{wasted} copies in vain of {hints} hints");
    wasted
}

fn receiver(bytes_per_second: u64) -> Receiver {
    Receiver {
        bytes_per_second,
        gives_up: Duration::MAX,
        sent: Mutex::default(),
        taken: watch::Sender::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn sends_shrink_until_a_slow_receiver_answers_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let slow = receiver(200_000);
    assert!(wasted(500, 5000, config(dir.path()), slow).await < 2 * 500);
}

#[tokio::test(start_paused = true)]
async fn sends_shrink_for_a_writer_whose_own_limit_is_shorter_than_send_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Receiver {
        gives_up: Duration::from_millis(600),
        ..receiver(200_000)
    };
    assert!(wasted(500, 5000, config(dir.path()), slow).await < 2 * 500);
}

#[tokio::test(start_paused = true)]
async fn a_single_hint_that_takes_too_long_is_given_more_time() {
    let dir = tempfile::tempdir().unwrap();
    // Seven seconds each.
    let slow = receiver(10_000);
    assert!(wasted(20, 70_000, config(dir.path()), slow).await < 2 * 20);
}

/// Sends that are too large to be answered in time are no reason to give a hint up. Each takes 1.7
/// s by itself, so it is answered when it is sent alone for the second time.
#[tokio::test(start_paused = true)]
async fn only_a_hint_that_is_sent_alone_uses_up_its_attempts() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_attempts: 3,
        ..config(dir.path())
    };
    assert!(wasted(200, 5000, config, receiver(3000)).await < 2 * 200);
}
