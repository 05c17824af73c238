//! A shard that stalls holds up no other, however little the window has room for, and what went
//! past it comes again only if that had not become durable.

use super::*;

/// The first hint of a shard stalls, while the other shard is taken.
async fn stalled(config: Config) -> (Arc<ScriptedWriter>, HintedHandoff<Bytes>) {
    queue_up(&config, NODE, std::iter::once(1).chain([2; 300])).await;
    let writer = Arc::new(ScriptedWriter::new(|write| match write.shard {
        ShardId(1) => Reply::Retry,
        _ => Reply::Take,
    }));
    let handoff = start(&config, &writer).await;
    until_node(&handoff, NODE, |node| node.failures > 3).await;
    (writer, handoff)
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_stalls_holds_up_no_other_however_small_the_window() {
    for (window_hints, window_bytes) in [(100, 1 << 20), (1000, 100), (1, 1 << 20)] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            window_hints,
            window_bytes,
            ..config(&dir)
        };
        let (writer, handoff) = stalled(config).await;
        let node = until_node(&handoff, NODE, |node| node.pending.hints == 1).await;
        assert_eq!(node.stalled_by, Some(ShardId(1)));
        assert_eq!(taken(&writer)[&2], (1..=300).collect::<Vec<_>>());
        assert!(!taken(&writer).contains_key(&1));

        writer.follow(|_| Reply::Take);
        let node = until_caught_up(&handoff, NODE).await;
        assert_eq!(node.stalled_by, None);
        assert_eq!(taken(&writer)[&1], [0]);
        assert_eq!(taken(&writer)[&2], (1..=300).collect::<Vec<_>>());
        handoff.shutdown().await.unwrap();
    }
}

/// What was acknowledged and never became durable comes again, and nothing else.
#[tokio::test(start_paused = true)]
async fn after_a_crash_what_had_not_become_durable_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        window_hints: 100,
        commit_timeout: Duration::from_secs(1),
        ..config(&dir)
    };
    queue_up(&config, NODE, std::iter::once(1).chain([2; 300])).await;
    let writer = Arc::new(ScriptedWriter::down());
    let handoff = start(&config, &writer).await;
    until_node(&handoff, NODE, |node| node.failures > 0).await;
    writer.follow(
        |write| match (write.shard, number(&write.batches[0].points)) {
            (ShardId(2), ..=99) => Reply::Take,
            _ => Reply::Retry,
        },
    );
    writer.follow_pings(|_| Reply::Take);
    until_node(&handoff, NODE, |node| node.delivered.hints >= 99).await;
    handoff.sync().await.unwrap();
    let durable = taken(&writer)[&2].len();
    // No acknowledgement becomes durable from here on.
    handoff.inject(CommitFault::Hang);
    writer.follow(|write| match write.shard {
        ShardId(1) => Reply::Retry,
        _ => Reply::Take,
    });
    writer.until_taken(150).await;
    let crashed = tempfile::tempdir().unwrap();
    files_of(dir.path(), crashed.path());
    handoff.shutdown().await.unwrap_err();

    let config = Config {
        dir: crashed.path().to_owned(),
        ..config
    };
    let again = Arc::new(ScriptedWriter::taking());
    let handoff = start(&config, &again).await;
    until_caught_up(&handoff, NODE).await;
    let taken = taken(&again);
    assert_eq!(taken[&1], [0]);
    let rest: Vec<_> = (durable + 1..=300).collect();
    assert_eq!(taken[&2], rest);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_went_past_a_stalled_hint_does_not_come_again_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        window_hints: 100,
        ..config(&dir)
    };
    let (writer, handoff) = stalled(config.clone()).await;
    until_node(&handoff, NODE, |node| node.pending.hints == 1).await;
    handoff.shutdown().await.unwrap();
    assert_eq!(taken(&writer)[&2].len(), 300);

    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(&config, &writer).await;
    until_caught_up(&handoff, NODE).await;
    assert_eq!(taken(&writer), BTreeMap::from([(1, vec![0])]));
    handoff.shutdown().await.unwrap();
}
