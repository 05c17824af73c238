//! A hint that its node will not take holds up nobody: it becomes a dead letter, its shard goes on
//! behind it, and the other shards never noticed. And a shard that stalls holds up others only as
//! far as the window says.
//!
//! On paused time, as in `replay.rs`.

mod tries;
mod window;

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::common::{
    self,
    service::{queue_up, start, until_caught_up, until_node},
};
use bytes::Bytes;
use hinted_handoff::{
    Amount, Config, DeadReason, Durability, EncodeError, HintedHandoff, NodeId, Payload,
    PayloadError, ShardId, ShardWrite, ShardWriter, WriteError, internals::CommitFault,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter, Seen};
use parking_lot::Mutex;
use tracing::{Subscriber, field::Visit};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
};

const NODE: NodeId = NodeId(3);
const SHARDS: u64 = 4;

fn config(dir: &tempfile::TempDir) -> Config {
    Config {
        durability: Durability::Buffered,
        ..common::config(dir.path())
    }
}

fn number(points: &Bytes) -> usize {
    std::str::from_utf8(points).unwrap().parse().unwrap()
}

fn numbers(seen: &Seen) -> Vec<usize> {
    seen.points.iter().map(number).collect()
}

/// What was taken, by shard.
fn taken(writer: &ScriptedWriter) -> BTreeMap<u64, Vec<usize>> {
    let mut taken = BTreeMap::<_, Vec<usize>>::new();
    for seen in writer.seen() {
        let numbers = seen.taken().iter().map(number);
        taken.entry(seen.shard.0).or_default().extend(numbers);
    }
    taken.retain(|_, taken| !taken.is_empty());
    taken
}

/// All of them in their order, but for those.
fn all_but(hints: usize, shards: u64, but: &[usize]) -> BTreeMap<u64, Vec<usize>> {
    let of_shard = |shard| {
        let all = (0..hints).filter(move |number| *number as u64 % shards == shard);
        all.filter(|number| !but.contains(number)).collect()
    };
    (0..shards).map(|shard| (shard, of_shard(shard))).collect()
}

/// What is said of hints that become dead letters, on this thread: `sequence=7 reason=Rejected
/// ...`.
#[derive(Clone, Default)]
struct DeadLettered(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl<S: Subscriber> Layer<S> for DeadLettered {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        if line.0.contains("becomes a dead letter") {
            self.0.lock().push(line.0);
        }
    }
}

impl DeadLettered {
    fn watched() -> (DeadLettered, tracing::subscriber::DefaultGuard) {
        let dead_lettered = DeadLettered::default();
        let subscriber = tracing_subscriber::registry().with(dead_lettered.clone());
        (dead_lettered, tracing::subscriber::set_default(subscriber))
    }

    /// Those hints were dead-lettered, in whatever order and for that reason, and no other; the
    /// first one is 0.
    fn are(&self, hints: &[usize], parts: &[&str]) {
        let lines = self.0.lock();
        assert_eq!(lines.len(), hints.len(), "{lines:#?}");
        for hint in hints {
            let sequence = format!(" sequence={} ", hint + 1);
            let line = lines.iter().find(|line| line.contains(&sequence)).unwrap();
            assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        }
    }
}

/// Rejects every send with one of those in it.
fn rejects(poison: &[usize]) -> impl FnMut(&ShardWrite<Bytes>) -> Reply + Send + 'static {
    let poison: Vec<usize> = poison.to_vec();
    move |write| {
        let mut numbers = write.batches.iter().map(|batch| number(&batch.points));
        match numbers.any(|number| poison.contains(&number)) {
            true => Reply::Reject,
            false => Reply::Take,
        }
    }
}

fn files_of(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => files_of(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// The numbers of the hints among the dead letters, each of which says why.
async fn dead(handoff: &HintedHandoff<Bytes>) -> Vec<usize> {
    let mut numbers = Vec::new();
    for letter in handoff.dead_letters(NODE, None, 100).await.unwrap() {
        assert_eq!((letter.reason, letter.attempts), (DeadReason::Rejected, 1));
        assert!(letter.error.contains("field type conflict"), "{letter:?}");
        let content = handoff.dead_letter(NODE, letter.id).await.unwrap();
        numbers.push(number(&content.raw));
    }
    numbers.sort_unstable();
    numbers
}

#[tokio::test(start_paused = true)]
async fn of_ten_thousand_hints_the_poisoned_become_dead_letters_and_all_others_come_in_order() {
    const HINTS: usize = 10_000;
    let backlog = tempfile::tempdir().unwrap();
    queue_up(
        &config(&backlog),
        NODE,
        (0..HINTS as u64).map(|it| it % SHARDS),
    )
    .await;
    let (mut sends_most, mut took_most) = (0, Duration::ZERO);
    for poison in [
        &[0][..],
        &[5_000],
        &[9_999],
        // Several in a batch, side by side in it, and in several shards.
        &[0, 4, 8, 12, 400, 401, 402, 403, 2_000, 2_008, 9_996, 9_999],
    ] {
        let dir = tempfile::tempdir().unwrap();
        files_of(backlog.path(), dir.path());
        let (dead_lettered, _watch) = DeadLettered::watched();
        let writer = Arc::new(ScriptedWriter::new(rejects(poison)));
        let began = tokio::time::Instant::now();
        let handoff = start(&config(&dir), &writer).await;
        let node = until_caught_up(&handoff, NODE).await;
        assert_eq!(taken(&writer), all_but(HINTS, SHARDS, poison), "{poison:?}");
        assert_eq!(node.dead_lettered.hints, poison.len() as u64);
        assert_eq!(node.delivered.hints, (HINTS - poison.len()) as u64);
        dead_lettered.are(
            poison,
            &["reason=Rejected", "field type conflict", " attempts=1 "],
        );
        let rejected = writer
            .seen()
            .iter()
            .filter(|it| it.reply == Reply::Reject)
            .count();
        // By halves: 8,192 at once take thirteen, if they come to that.
        assert!(rejected <= poison.len() * 14, "{rejected} rejected sends");
        sends_most = sends_most.max(rejected);
        took_most = took_most.max(began.elapsed());
        handoff.sync().await.unwrap();
        // What an unclean stop would leave now.
        let copy = tempfile::tempdir().unwrap();
        files_of(dir.path(), copy.path());
        handoff.shutdown().await.unwrap();
        for dir in [dir, copy] {
            let again = Arc::new(ScriptedWriter::taking());
            let handoff = start(&config(&dir), &again).await;
            let node = until_caught_up(&handoff, NODE).await;
            assert_eq!(node.pending, Amount::default());
            assert!(again.seen().is_empty(), "nothing of it comes back");
            assert_eq!(dead(&handoff).await, poison);
            // Its cause is fixed, so they are sent on.
            let sent_on = handoff.redrive_all(NODE).await.unwrap();
            assert_eq!(sent_on.hints.len(), poison.len());
            until_caught_up(&handoff, NODE).await;
            assert_eq!(taken(&again).into_values().flatten().count(), poison.len());
            assert_eq!(dead(&handoff).await, [0; 0]);
            handoff.shutdown().await.unwrap();
        }
    }
    println!(
        "{HINTS} hints of {SHARDS} shards with up to 12 poisoned: {sends_most} rejected sends at most, {took_most:?} at most, none waited"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_node_took_in_part_goes_on_behind_that_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    queue_up(&config, NODE, (0..100).map(|it| it % SHARDS)).await;
    let writer = Arc::new(ScriptedWriter::new(|write| match write.batches.len() {
        // More than it was given is all of it.
        1 => Reply::Partial(7),
        _ => Reply::Partial(3),
    }));
    let began = tokio::time::Instant::now();
    let handoff = start(&config, &writer).await;
    let node = until_caught_up(&handoff, NODE).await;
    assert_eq!(taken(&writer), all_but(100, SHARDS, &[]));
    assert_eq!((node.delivered.hints, node.failures), (100, 0));
    assert!(began.elapsed() < Duration::from_millis(500), "nobody waits");

    // Nothing taken is a failure like any other.
    let calls = AtomicUsize::new(0);
    writer.follow(move |_| match calls.fetch_add(1, Relaxed) {
        0 => Reply::Partial(0),
        _ => Reply::Take,
    });
    let points = Bytes::from_static(b"100");
    handoff
        .write_shard(NODE, ShardId(0), &points)
        .await
        .unwrap();
    let node = until_node(&handoff, NODE, |node| node.delivered.hints == 101).await;
    assert_eq!(node.failures, 1);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn hints_of_a_shard_that_is_gone_are_lost_and_the_others_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    queue_up(&config, NODE, (0..1000).map(|it| it % SHARDS)).await;
    let writer = Arc::new(ScriptedWriter::new(|write| match write.shard {
        ShardId(2) => Reply::Obsolete,
        _ => Reply::Take,
    }));
    let handoff = start(&config, &writer).await;
    let node = until_caught_up(&handoff, NODE).await;
    let mut expected = all_but(1000, SHARDS, &[]);
    expected.remove(&2);
    assert_eq!(taken(&writer), expected);
    assert_eq!(
        (
            node.delivered.hints,
            node.lost.hints,
            node.dead_lettered.hints
        ),
        (750, 250, 0)
    );
    handoff.shutdown().await.unwrap();
}

/// The node takes it for a failure of its own, again and again: only who counts finds out. Failures
/// of every kind count.
#[tokio::test(start_paused = true)]
async fn a_hint_becomes_a_dead_letter_after_max_attempts_and_the_last_try_is_for_it_alone() {
    for (reply, says) in [
        (Reply::Retry, "scripted: down"),
        (Reply::Panic, "scripted: panic"),
        (Reply::Hang, "send_timeout = 2s"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            max_attempts: 3,
            send_timeout: Duration::from_secs(2),
            ..config(&dir)
        };
        queue_up(&config, NODE, (0..40).map(|it| it % SHARDS)).await;
        let (dead_lettered, _watch) = DeadLettered::watched();
        let poison = 6;
        let pings = AtomicUsize::new(0);
        let writer = ScriptedWriter::new(move |write| {
            let mut numbers = write.batches.iter().map(|batch| number(&batch.points));
            match numbers.any(|number| number == poison) {
                true => reply,
                false => Reply::Take,
            }
        });
        // Pings that fail are no attempt.
        let writer = Arc::new(
            writer.with_pings(move |_| match pings.fetch_add(1, Relaxed) {
                0..5 => Reply::Retry,
                _ => Reply::Take,
            }),
        );
        let handoff = start(&config, &writer).await;
        let node = until_caught_up(&handoff, NODE).await;
        assert_eq!(taken(&writer), all_but(40, SHARDS, &[poison]));
        assert_eq!(node.dead_lettered.hints, 1);
        dead_lettered.are(&[poison], &["reason=Attempts", " attempts=3 ", says]);
        let seen = writer.seen();
        // Those in front of it share its fate until their own last try, which is for them alone.
        let last = seen
            .iter()
            .rfind(|it| numbers(it).contains(&poison))
            .unwrap();
        assert_eq!(numbers(last), [poison]);
        let in_front = seen
            .iter()
            .filter(|it| numbers(it).first() == Some(&poison));
        assert_eq!(in_front.count(), 3);
        handoff.shutdown().await.unwrap();
    }
}

/// Reads only what is UTF-8.
#[derive(Debug)]
struct Text;

impl Payload for Text {
    const FORMAT: u16 = <Bytes as Payload>::FORMAT;

    fn encode(&self, _: &mut Vec<u8>) -> Result<(), EncodeError> {
        Ok(())
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        let text = std::str::from_utf8(&bytes).map(|_| Text);
        text.map_err(|error| PayloadError::Malformed {
            format,
            source: error.into(),
        })
    }
}

struct Counting(Arc<AtomicUsize>);

impl ShardWriter<Text> for Counting {
    async fn write_shard(&self, write: ShardWrite<Text>) -> Result<(), WriteError> {
        self.0.fetch_add(write.batches.len(), Relaxed);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_whose_bytes_do_not_decode_is_dead_lettered_and_those_around_it_are_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    queue_up(&config, NODE, [1, 1, 1]).await;
    let handoff = start(&config, &Arc::new(ScriptedWriter::down())).await;
    let points = Bytes::from_static(b"\xff");
    handoff
        .write_shard(NODE, ShardId(1), &points)
        .await
        .unwrap();
    handoff.shutdown().await.unwrap();
    queue_up(&config, NODE, [1]).await;

    let (dead_lettered, _watch) = DeadLettered::watched();
    let delivered = Arc::new(AtomicUsize::new(0));
    let handoff = HintedHandoff::<Text>::open(config, Counting(Arc::clone(&delivered)))
        .await
        .unwrap();
    for _ in 0..100_000 {
        if handoff.stats().nodes[0].pending.hints == 0 {
            break;
        }
        std::thread::sleep(Duration::from_micros(50));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(delivered.load(Relaxed), 4);
    assert_eq!(handoff.stats().nodes[0].dead_lettered.hints, 1);
    dead_lettered.are(
        &[3],
        &["reason=Undecodable", "payload of format 0", " attempts=0 "],
    );
    handoff.shutdown().await.unwrap();
}
