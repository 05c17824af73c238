//! `WhenFull::Block`: who waits for room, and how that ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_blocked_write_waits_before_the_pipeline_and_is_woken_when_hints_leave() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(2),
        when_full: WhenFull::Block,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    fill(&handoff, MANUAL, 0..2).await;
    let blocked: Vec<_> = (2..6)
        .map(|number| {
            let handoff = handoff.clone();
            tokio::spawn(async move { write(&handoff, MANUAL, number).await })
        })
        .collect();
    a_moment().await;
    // Others pass, so does a sync: it would wait for whatever is in the pipeline.
    fill(&handoff, OTHER, 0..2).await;
    handoff.sync().await.unwrap();
    assert_eq!(waiting(&handoff, MANUAL).await, texts(0..2));
    for left in (0..4).rev() {
        take(&handoff, MANUAL, 1).await;
        until("one came in", || {
            blocked.iter().filter(|it| !it.is_finished()).count() == left
        })
        .await;
        assert_eq!(handoff.stats().nodes[0].pending.hints, 2);
    }
    for write in blocked {
        write.await.unwrap().unwrap();
    }
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_blocked_write_gives_up_after_its_timeout() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints: Some(1),
        when_full: WhenFull::Block,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    fill(&handoff, MANUAL, 0..1).await;
    let blocked = tokio::spawn({
        let handoff = handoff.clone();
        async move { write(&handoff, MANUAL, 1).await }
    });
    a_moment().await;
    pass(Duration::from_millis(9_990)).await;
    assert!(!blocked.is_finished());
    pass(Duration::from_millis(20)).await;
    let error = blocked.await.unwrap().unwrap_err();
    let EnqueueError::QueueFull { waited, limit, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(limit, Limit::StoreHints);
    assert!(waited.is_some_and(|waited| waited >= Duration::from_secs(10)));
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_blocked_write_ends_with_a_shutdown_and_with_the_store() {
    let _frozen = freeze();
    for fails in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let limited = Config {
            max_hints_per_node: Some(1),
            when_full: WhenFull::Block,
            ..config(dir.path())
        };
        let handoff = open(limited).await;
        fill(&handoff, MANUAL, 0..1).await;
        let blocked = tokio::spawn({
            let handoff = handoff.clone();
            async move { write(&handoff, MANUAL, 1).await }
        });
        a_moment().await;
        if fails {
            handoff.inject(CommitFault::Fail);
            assert!(write(&handoff, OTHER, 1).await.is_err());
        } else {
            handoff.shutdown().await.unwrap();
        }
        until("it gave up", || blocked.is_finished()).await;
        let error = blocked.await.unwrap().unwrap_err();
        match fails {
            true => assert!(matches!(error, EnqueueError::StoreFailed(_)), "{error}"),
            false => assert!(matches!(error, EnqueueError::ShutDown), "{error}"),
        }
        handoff.disk_works_again();
        let _ = handoff.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_without_a_runtime_blocks_its_thread() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    for when_full in [WhenFull::Block, WhenFull::DropOldest] {
        let limited = Config {
            max_hints_per_node: Some(1),
            when_full,
            ..config(&dir.path().join(format!("{when_full:?}")))
        };
        let handoff = open(limited).await;
        fill(&handoff, MANUAL, 0..1).await;
        let thread = std::thread::spawn({
            let handoff = handoff.clone();
            move || handoff.write_shard_blocking(MANUAL, SHARD, &text(1))
        });
        if when_full == WhenFull::Block {
            a_moment().await;
            assert!(!thread.is_finished());
            take(&handoff, MANUAL, 1).await;
        }
        until("it came in", || thread.is_finished()).await;
        thread.join().unwrap().unwrap();
        assert_eq!(waiting(&handoff, MANUAL).await, texts([1]));
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_writers_all_come_in_when_somebody_takes_hints() {
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints: Some(3),
        when_full: WhenFull::Block,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    let writers: Vec<_> = (0..16)
        .map(|_| {
            let handoff = handoff.clone();
            tokio::spawn(async move { fill(&handoff, MANUAL, 0..20).await })
        })
        .collect();
    let mut consumer = handoff.consumer(MANUAL).unwrap();
    let mut taken = 0;
    let taking = async {
        while taken < 320 {
            consumer.ready().await.unwrap();
            let hints = consumer.peek(10).await.unwrap();
            assert!(hints.len() <= 3);
            consumer.ack(&hints).await.unwrap();
            taken += hints.len();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), taking)
        .await
        .expect("a writer was not woken");
    for writer in writers {
        writer.await.unwrap();
    }
    handoff.shutdown().await.unwrap();
}
