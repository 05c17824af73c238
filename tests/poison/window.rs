//! A shard that stalls holds up others only as far as the window says, and no more than that comes again.

use super::*;

/// The first hint of a shard stalls; how far the other shard gets with a window of so many hints and bytes.
async fn stalled(config: Config) -> (Arc<ScriptedWriter>, HintedHandoff<Bytes>) {
    queue_up(&config, std::iter::once(1).chain([2; 300])).await;
    let writer = Arc::new(ScriptedWriter::new(|write| match write.shard {
        ShardId(1) => Reply::Retry,
        _ => Reply::Take,
    }));
    let handoff = open(&config, &writer).await;
    until(&handoff, |node| node.failures > 3).await;
    (writer, handoff)
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_stalls_holds_up_the_others_from_the_end_of_the_window_on() {
    for (window_hints, window_bytes, gets_to) in [
        (100, 1 << 20, 99),
        // "0" to "9", "10" to "99", "100" and so on: the bytes of the first 155.
        (1000, 10 + 180 + 3 * 55, 154),
        (1, 1 << 20, 0),
        (1000, 1 << 20, 300),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            window_hints,
            window_bytes,
            ..config(&dir)
        };
        let (writer, handoff) = stalled(config).await;
        let delivered: RangeInclusive<usize> = 1..=gets_to;
        let taken_so_far = taken(&writer).remove(&2).unwrap_or_default();
        assert_eq!(taken_so_far, delivered.collect::<Vec<_>>());
        let node = until(&handoff, |node| node.stalled_by.is_some()).await;
        assert_eq!(node.stalled_by, Some(ShardId(1)));

        writer.follow(|_| Reply::Take);
        let node = until_caught_up(&handoff).await;
        assert_eq!(node.stalled_by, None);
        assert_eq!(taken(&writer)[&1], [0]);
        assert_eq!(taken(&writer)[&2], (1..=300).collect::<Vec<_>>());
        handoff.shutdown().await.unwrap();
    }
}

/// What was acknowledged and never became durable comes again, and that is less than the window.
#[tokio::test(start_paused = true)]
async fn after_a_crash_at_most_the_window_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        window_hints: 100,
        commit_timeout: Duration::from_secs(1),
        ..config(&dir)
    };
    queue_up(&config, std::iter::once(1).chain([2; 300])).await;
    let writer = Arc::new(ScriptedWriter::down());
    let handoff = open(&config, &writer).await;
    until(&handoff, |node| node.failures > 0).await;
    // No acknowledgement becomes durable from here on.
    handoff.inject(CommitFault::Hang);
    writer.follow(|write| match write.shard {
        ShardId(1) => Reply::Retry,
        _ => Reply::Take,
    });
    writer.follow_pings(|_| Reply::Take);
    writer.until_taken(99).await;
    let crashed = tempfile::tempdir().unwrap();
    files_of(dir.path(), crashed.path());
    assert_eq!(taken(&writer)[&2], (1..=99).collect::<Vec<_>>());
    handoff.shutdown().await.unwrap_err();

    let config = Config {
        dir: crashed.path().to_owned(),
        ..config
    };
    let again = Arc::new(ScriptedWriter::taking());
    let handoff = open(&config, &again).await;
    until_caught_up(&handoff).await;
    let taken = taken(&again);
    assert_eq!(taken[&1], [0]);
    let came_again = taken[&2].len() - (300 - 99);
    assert!((1..=100).contains(&came_again), "{came_again} came again");
    let all: Vec<_> = (1..=300).collect();
    assert!(all.ends_with(&taken[&2]), "in order: {:?}", taken[&2]);
    println!("{came_again} of 99 came again after a crash, within a window of 100");
    handoff.shutdown().await.unwrap();
}

/// The same with acknowledgements that are durable: what left in front of a stalled shard does not come again.
#[tokio::test(start_paused = true)]
async fn what_left_beyond_a_stalled_hint_does_not_come_again_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        window_hints: 100,
        ..config(&dir)
    };
    let (writer, handoff) = stalled(config.clone()).await;
    handoff.shutdown().await.unwrap();
    assert_eq!(taken(&writer)[&2].len(), 99);

    let writer = Arc::new(ScriptedWriter::new(|write| match write.shard {
        ShardId(1) => Reply::Retry,
        _ => Reply::Take,
    }));
    let handoff = open(&config, &writer).await;
    until(&handoff, |node| node.failures > 3).await;
    assert_eq!(
        taken(&writer),
        BTreeMap::new(),
        "the window is full of what left"
    );
    writer.follow(|_| Reply::Take);
    until_caught_up(&handoff).await;
    assert_eq!(taken(&writer)[&2], (100..=300).collect::<Vec<_>>());
    handoff.shutdown().await.unwrap();
}
