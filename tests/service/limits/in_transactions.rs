//! Hints that are enqueued in a transaction.

use super::*;

/// A host with a tree of its own.
async fn host(config: Config) -> (Handoff, hinted_handoff::sled::Tree) {
    let db = open_database(&database_config(&config.dir)).unwrap();
    let rows = db.open_tree("rows").unwrap();
    let handoff = Handoff::open_in(&db, config, ScriptedWriter::down()).await;
    (handoff.unwrap(), rows)
}

#[tokio::test(start_paused = true)]
async fn a_transaction_gets_room_for_all_its_hints_or_leaves_nothing() {
    let _frozen = freeze();
    for durability in [Durability::Sync, Durability::Buffered] {
        let dir = tempfile::tempdir().unwrap();
        let limited = Config {
            max_hints_per_node: Some(3),
            durability,
            ..config(dir.path())
        };
        let (handoff, rows) = host(limited).await;
        let hinting = |to_manual: usize, to_other: usize| {
            handoff.transaction(&[&rows], move |rows, hints| {
                rows[0].insert("row", "there")?;
                for (node, count) in [(MANUAL, to_manual), (OTHER, to_other)] {
                    for number in 0..count {
                        hints.enqueue(node, SHARD, &text(number))?;
                    }
                }
                Ok(())
            })
        };
        let never = hinting(4, 0).await.unwrap_err();
        assert!(
            matches!(
                never,
                TransactionError::Enqueue(EnqueueError::OverLimit { wanted: 4, .. })
            ),
            "{never}"
        );
        hinting(2, 0).await.unwrap();
        rows.remove("row").unwrap();
        let full = hinting(2, 2).await.unwrap_err();
        let TransactionError::Enqueue(full) = full else {
            panic!("{full}");
        };
        assert_eq!(limit_of(&full), Limit::NodeHints);
        assert_eq!(rows.get("row").unwrap(), None);
        // Nothing of it is counted for the other node either.
        hinting(1, 3).await.unwrap();
        handoff.sync().await.unwrap();
        let stats = handoff.stats();
        assert_eq!(stats.store.pending.hints, 6);
        assert_eq!(stats.store.refused_when_full, 8);
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_lost_a_race_finds_its_room_again() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(2),
        ..config(dir.path())
    };
    let (handoff, rows) = host(limited).await;
    let mut runs = 0;
    let direct = rows.clone();
    let committed = handoff.transaction(&[&rows], |rows, hints| {
        runs += 1;
        let _ = rows[0].get("row")?;
        if runs <= 3 {
            direct.insert("row", format!("{runs}").as_bytes())?;
        }
        hints.enqueue(MANUAL, SHARD, &text(0))?;
        hints.enqueue(MANUAL, SHARD, &text(1))?;
        Ok(())
    });
    committed.await.unwrap();
    assert_eq!((runs, handoff.stats().store.pending.hints), (4, 2));
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_waits_for_room_holds_up_nobody_who_makes_it() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(1),
        when_full: WhenFull::Block,
        ..config(dir.path())
    };
    let (handoff, rows) = host(limited).await;
    fill(&handoff, MANUAL, 0..1).await;
    // More than there are turns.
    let blocked: Vec<_> = (0..1100)
        .map(|_| {
            let (handoff, rows) = (handoff.clone(), rows.clone());
            tokio::spawn(async move {
                let hinting = handoff.transaction(&[&rows], |_, hints| {
                    hints.enqueue(MANUAL, SHARD, &text(1))?;
                    Ok(())
                });
                hinting.await.map(drop)
            })
        })
        .collect();
    a_moment().await;
    // Taking a hint is a transaction, and needs a turn.
    let mut consumer = handoff.consumer(MANUAL).unwrap();
    for _ in 0..3 {
        until("there is one", || {
            handoff.stats().nodes[0].pending.hints == 1
        })
        .await;
        let hints = consumer.peek(1).await.unwrap();
        let acked = consumer.ack(&hints);
        tokio::pin!(acked);
        let mut done = false;
        for _ in 0..5000 {
            tokio::select! {
                biased;
                result = &mut acked => { result.unwrap(); done = true; break; }
                () = tokio::task::yield_now() => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        assert!(done, "the turns are taken by those who wait");
    }
    until("three came in", || {
        blocked.iter().filter(|it| it.is_finished()).count() == 3
    })
    .await;
    pass(Duration::from_secs(11)).await;
    let mut refused = 0;
    for transaction in blocked {
        until("it gave up", || transaction.is_finished()).await;
        refused += usize::from(transaction.await.unwrap().is_err());
    }
    assert_eq!(refused, 1097);
    handoff.shutdown().await.unwrap();
}
