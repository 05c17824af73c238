//! A host that learns a format while it runs.

use std::sync::atomic::AtomicU16;

use tokio::time::Instant;

use super::*;

/// Formats up to this are read.
static KNOWN: AtomicU16 = AtomicU16::new(1);
/// When a hint of format 2 was looked at in vain.
static LOOKS: Mutex<Vec<Instant>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Learnt;

impl Payload for Learnt {
    const FORMAT: u16 = 1;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(0);
        Ok(())
    }

    fn decode(format: u16, _: Bytes) -> Result<Self, PayloadError> {
        if format <= KNOWN.load(Relaxed) {
            return Ok(Learnt);
        }
        if format == 2 {
            LOOKS.lock().push(Instant::now());
        }
        Err(PayloadError::UnknownFormat {
            found: format,
            written: 1,
        })
    }
}

impl ShardWriter<Learnt> for To {
    async fn write_shard(&self, write: ShardWrite<Learnt>) -> Result<(), WriteError> {
        let numbers = write.batches.iter().map(|_| 0);
        let mut taken = self.0.taken.lock();
        taken.entry(write.shard.0).or_default().extend(numbers);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_looked_at_at_growing_intervals_until_its_format_is_learnt_and_told_of_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        retry_interval: Duration::from_secs(1),
        retry_max_interval: Duration::from_secs(60),
        ..config(dir.path())
    };
    queue_up::<2>(&config, (0..100).map(|number| (1, number))).await;
    let node = Arc::new(Node::default());
    let (handoff, mut events) = open_heard::<Learnt>(&config, &node).await;
    until_waiting(&handoff, 100).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    nothing_is_held_against(&until_waiting(&handoff, 100).await);
    assert_eq!(told(&mut events), (vec![1], false));
    handoff.pause_all(Pause::Lasting).await.unwrap();
    handoff.shutdown().await.unwrap();
    drop(handoff);
    let looks = LOOKS.lock().clone();
    let waits: Vec<_> = looks.windows(2).map(|it| it[1] - it[0]).collect();
    assert!((60..140).contains(&waits.len()), "{waits:?}");
    // Each is the longer of two waits between half and the whole of its length: the shard's and the
    // node's.
    for (wait, nominal) in waits.iter().zip([1, 2, 4, 8, 16, 32, 60, 60]) {
        let nominal = Duration::from_secs(nominal);
        let slack = Duration::from_millis(500);
        assert!(
            *wait >= nominal / 2 && *wait <= nominal + slack,
            "{wait:?} of {nominal:?}"
        );
    }

    // Each shard by itself.
    queue_up::<3>(&config, [(2, 100)]).await;
    let (handoff, mut events) = open_heard::<Learnt>(&config, &node).await;
    until_waiting(&handoff, 101).await;
    KNOWN.store(2, Relaxed);
    let waits = until_waiting(&handoff, 1).await;
    assert_eq!(shown(&waits), Some((1, 2, 3, 1)));
    assert_eq!(node.taken()[&1].len(), 100);
    KNOWN.store(3, Relaxed);
    let node_stats = until_node(&handoff, NODE, |node| node.pending.hints == 0).await;
    nothing_is_held_against(&node_stats);
    let caught_up = until_node(&handoff, NODE, |node| node.state == NodeState::CaughtUp).await;
    assert_eq!(shown(&caught_up), None);
    assert_eq!(node.taken()[&2].len(), 1);
    assert_eq!(told(&mut events), (vec![1, 2], false));

    // And when it is forgotten again, that is news.
    KNOWN.store(0, Relaxed);
    put(&handoff, 1, Learnt).await;
    until_waiting(&handoff, 1).await;
    let mut news = 0;
    while let Ok(event) = events.try_recv() {
        news += u32::from(matches!(event, Event::UnknownFormat { found: 1, .. }));
    }
    assert_eq!(news, 1);
    KNOWN.store(2, Relaxed);
    until_node(&handoff, NODE, |node| node.pending.hints == 0).await;
    handoff.shutdown().await.unwrap();
}
