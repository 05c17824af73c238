//! What cannot be done, by what limit, and what of it leaves nothing behind.

use super::*;

#[tokio::test]
async fn what_cannot_be_is_a_typed_error_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let elsewhere = open_db(&dir.path().join("elsewhere"));
    let foreign = elsewhere.open_tree("rows").unwrap();
    let ours = host.db.open_tree("hh/hints").unwrap();
    let rows = &host.rows;
    let problem = async |trees: &[&hinted_handoff::sled::Tree]| {
        let refused = host.handoff.transaction(trees, |rows, _| Ok(rows.len()));
        match refused.await {
            Err(TransactionError::Tree { tree, problem, .. }) => (tree, problem),
            other => panic!("{other:?}"),
        }
    };
    let named = |name: &str, problem| (name.to_owned(), problem);
    assert_eq!(
        problem(&[rows, &foreign]).await,
        named("rows", TreeProblem::OtherDatabase)
    );
    assert_eq!(
        problem(&[&ours]).await,
        named("hh/hints", TreeProblem::Ours)
    );
    assert_eq!(
        problem(&[rows, rows]).await,
        named("rows", TreeProblem::Twice)
    );
    let none = host.handoff.transaction(&[], |_, _| Ok(())).await;
    assert!(matches!(none, Err(TransactionError::NoTrees)), "{none:?}");
    let mut batch = RowBatch::new();
    batch.insert(&foreign, "key", "value").unwrap();
    let applied = host.handoff.apply(batch).await;
    assert!(
        matches!(applied, Err(TransactionError::Tree { .. })),
        "{applied:?}"
    );
    let nested = host.handoff.transaction(&[rows], |rows, _| {
        rows[0].insert("outer", "1")?;
        let inner = host
            .handoff
            .transaction_blocking(&[&host.rows], |_, _| Ok(()));
        assert!(matches!(inner, Err(TransactionError::Nested)), "{inner:?}");
        let mut consumer = host.handoff.consumer(MANUAL)?;
        Ok(consumer.ack_blocking(&[])?)
    });
    let nested = nested.await;
    assert!(
        matches!(nested, Err(TransactionError::Nested)),
        "{nested:?}"
    );
    for empty_or_large in [Bytes::new(), vec![0; 17 << 20].into()] {
        let refused = host.handoff.transaction(&[rows], |rows, hints| {
            rows[0].insert("with the hint", "1")?;
            hints.enqueue(MANUAL, SHARD, &empty_or_large)?;
            Ok(())
        });
        match refused.await {
            Err(TransactionError::Enqueue(
                EnqueueError::EmptyPoints | EnqueueError::EntryTooLarge { .. },
            )) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(rows.is_empty());
    assert_eq!(host.handoff.stats().nodes.len(), 0);
    host.close().await;
}

#[tokio::test]
async fn a_store_of_its_own_has_no_trees_of_the_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let db = open_db(&dir.path().join("db"));
    let handoff =
        HintedHandoff::<Bytes>::open(config(&dir.path().join("store")), ScriptedWriter::down());
    let handoff = handoff.await.unwrap();
    let refused = handoff.transaction(&[&db.open_tree("rows").unwrap()], |_, _| Ok(()));
    match refused.await {
        Err(TransactionError::Tree { problem, .. }) => {
            assert_eq!(problem, TreeProblem::OtherDatabase);
        }
        other => panic!("{other:?}"),
    }
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_limits_are_those_that_the_errors_name() {
    const MIB: usize = 1 << 20;
    const KIB64: usize = 64 << 10;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let host = Host::open(&path).await;
    /// A key, a value and a hint of so many bytes, so often.
    async fn tried(
        host: &Host,
        key: usize,
        value: usize,
        hint: usize,
        times: usize,
    ) -> Result<(), (&'static str, u64)> {
        let tried = host.handoff.transaction(&[&host.rows], |rows, hints| {
            for number in 0..times {
                let mut key = vec![0; key];
                key[..2].copy_from_slice(&(number as u16).to_be_bytes());
                rows[0].insert(key, vec![number as u8; value])?;
                if hint > 0 {
                    hints.enqueue(MANUAL, SHARD, &vec![1; hint].into())?;
                }
            }
            Ok(())
        });
        match tried.await {
            Ok(_) => Ok(()),
            Err(TransactionError::TransactionTooLarge { what, max, .. }) => Err((what, max)),
            Err(other) => panic!("{other}"),
        }
    }
    let all = ("rows and hints", MIB as u64);
    assert_eq!(tried(&host, 4096, 1, 0, 1).await, Ok(()));
    assert_eq!(tried(&host, 4097, 1, 0, 1).await, Err(("a key", 4096)));
    assert_eq!(
        tried(&host, 2, KIB64 + 1, 0, 1).await,
        Err(("a value", KIB64 as u64))
    );
    assert_eq!(
        tried(&host, 2, KIB64 - 2, 0, 16).await,
        Ok(()),
        "exactly 1 MiB"
    );
    assert_eq!(tried(&host, 2, KIB64 - 1, 0, 16).await, Err(all));
    assert_eq!(tried(&host, 2, 0, MIB, 1).await, Err(all));
    assert_eq!(tried(&host, 2, 0, MIB - 2200, 1).await, Ok(()));
    let mut batch = RowBatch::new();
    assert!(
        batch
            .insert(&host.rows, "large", vec![0; KIB64 + 1])
            .is_err()
    );
    assert!(batch.is_empty());
    let read = host.handoff.transaction(&[&host.rows], |rows, _| {
        for number in 0..10_001_u64 {
            rows[0].get(number.to_be_bytes())?;
        }
        Ok(())
    });
    let read = read.await.unwrap_err().to_string();
    assert!(
        read.contains("rows that were read: 10001 is over the limit of 10000"),
        "{read}"
    );
    // docs/sled.md rule 3: the largest values make no blobs, however they come to lie.
    for round in 0..12_u8 {
        let mut batch = RowBatch::new();
        for number in 0..15_u8 {
            let key = [vec![number, round], vec![7; 4000]].concat();
            batch.insert(&host.rows, key, vec![round; KIB64]).unwrap();
        }
        host.handoff.apply(batch).await.unwrap();
    }
    host.close().await;
    assert_eq!(std::fs::read_dir(path.join("blobs")).unwrap().count(), 0);
}

#[tokio::test]
async fn below_the_reserve_only_what_makes_room_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let host = Host::open(&path).await;
    for hint in ["one", "two", "three"] {
        host.hint(MANUAL, hint).await;
    }
    let mut batch = RowBatch::new();
    batch.insert(&host.rows, "old", "row").unwrap();
    host.handoff.apply(batch).await.unwrap();
    host.close().await;

    let with_reserve = |min_free_disk| Config {
        min_free_disk,
        ..config(&path)
    };
    let host = Host::open_as(with_reserve(u64::MAX)).await;
    let write = || {
        host.handoff
            .transaction(&[&host.rows], |rows, _| Ok(rows[0].insert("a", "b")?))
    };
    let available = match write().await {
        Err(TransactionError::Enqueue(EnqueueError::DiskReserve {
            available_bytes, ..
        })) => available_bytes,
        other => panic!("{other:?}"),
    };
    let mut consumer = host.handoff.consumer(MANUAL).unwrap();
    let hints = consumer.peek(2).await.unwrap();
    let consume = async |host: &Host, hints: &[hinted_handoff::PeekedPoints<Bytes>]| {
        let consumed = host.handoff.transaction(&[&host.rows], |rows, all| {
            rows[0].insert("consumed", &hints[0].points[..])?;
            Ok(all.ack(hints)?)
        });
        consumed.await.map(drop)
    };
    assert!(
        consume(&host, &hints[..1]).await.is_err(),
        "not even half of it is there"
    );
    consumer.ack(&hints[..1]).await.unwrap();
    let mut batch = RowBatch::new();
    batch.remove(&host.rows, "old").unwrap();
    host.handoff.apply(batch).await.unwrap();
    drop(consumer);
    host.close().await;

    // More than half of it is there, unless somebody fills the disk meanwhile.
    let host = Host::open_as(with_reserve(available + available / 4)).await;
    let hints = host
        .handoff
        .consumer(MANUAL)
        .unwrap()
        .peek(1)
        .await
        .unwrap();
    consume(&host, &hints).await.unwrap();
    assert_eq!(host.row("consumed").as_deref(), Some("two"));
    assert_eq!((host.row("old"), host.pending(MANUAL)), (None, 1));
    host.close().await;
}

/// docs/sled.md rule 2: what goes costs the log as much as what comes.
#[tokio::test]
async fn a_removed_row_counts_with_its_value() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    for number in 0..40_u8 {
        let mut batch = RowBatch::new();
        batch.insert(&host.rows, [number], vec![7; 30_000]).unwrap();
        host.handoff.apply(batch).await.unwrap();
    }
    let mut batch = RowBatch::new();
    let removed = (0..40_u8).take_while(|number| batch.remove(&host.rows, [*number]).is_ok());
    assert_eq!(removed.count(), 34, "1 MiB of 30,001 bytes each");
    host.handoff.apply(batch).await.unwrap();
    assert_eq!(host.rows.len(), 6);
    let all = host.handoff.transaction(&[&host.rows], |rows, _| {
        for number in 0..40_u8 {
            rows[0].insert([number], "small")?;
            rows[0].remove([number])?;
        }
        Ok(())
    });
    all.await.unwrap();
    assert!(host.rows.is_empty());
    host.close().await;
}

#[tokio::test]
async fn a_tree_that_was_dropped_fails_its_transaction_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let gone = host.db.open_tree("gone").unwrap();
    host.db.drop_tree("gone").unwrap();
    let mut batch = RowBatch::new();
    batch.insert(&gone, "key", "value").unwrap();
    let applied = host.handoff.apply(batch).await;
    assert!(
        matches!(applied, Err(TransactionError::Read(_))),
        "{applied:?}"
    );
    assert!(matches!(host.handoff.health(), Health::Serving));
    assert_eq!(host.count("counted").await, 0);
    host.close().await;
}
