use crate::{
    store::{engine::table, format::wal_record::WalDraft, recover::memtable::*},
    types::{QueueId, ShardId},
};

fn queue(node: u64) -> QueueRef {
    QueueRef {
        node: NodeId(node),
        queue: QueueId(node),
    }
}

/// Hints of 100 bytes, by their sequences.
fn run(node: u64, sequences: RangeInclusive<u64>) -> Draft {
    let first = *sequences.start();
    let hint = |sequence: u64| Hint {
        shard: ShardId(1),
        format: 0,
        enqueued_unix_ms: 0,
        payload: vec![sequence as u8; 100].into(),
        origin: None,
        write: None,
        lifetime_ms: None,
    };
    Draft {
        node: NodeId(node),
        queue: queue(node),
        first: Sequence(first),
        bytes_before: (first - 1) * 100,
        hints: sequences.map(hint).collect(),
        with_body: false,
    }
}

fn put_wal_record(engine: &Engine, first: u64, runs: Vec<Draft>) {
    let draft = WalDraft {
        first: Sequence(first),
        runs,
    };
    for (key, value) in Encoder::new().encode_wal(&draft).into_writes() {
        engine.hints.insert(key, value);
    }
}

fn put_block(engine: &Engine, run: &Draft) {
    let mut encoder = Encoder::new();
    let block = encoder.encode(run.queue, run.first, run.bytes_before, &run.hints);
    for (key, value) in block.into_writes() {
        engine.hints.insert(key, value);
    }
}

/// First and last of every block of a queue, each of which reads and has what it should.
fn blocks_of(engine: &Engine, node: u64) -> Vec<(u64, u64)> {
    let starts = blocks::starts(&engine.hints, queue(node), Sequence(1));
    let block = |first: Result<Sequence, table::Error>| {
        let read = blocks::read(&engine.hints, queue(node), first.unwrap());
        let block = read.unwrap().unwrap();
        let (first, last) = (block.header.first.0, block.header.last().0);
        assert_eq!(block.header.bytes_before, (first - 1) * 100);
        for (sequence, hint) in (first..).zip(&block.hints) {
            assert_eq!(hint.payload, vec![sequence as u8; 100]);
        }
        (first, last)
    };
    starts.map(block).collect()
}

fn open() -> (tempfile::TempDir, Arc<Engine>) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(Engine::open(dir.path(), Default::default()).unwrap());
    (dir, engine)
}

#[test]
fn what_is_pending_is_flushed_and_nothing_else_however_often_it_dies() {
    let (dir, engine) = open();
    put_wal_record(
        &engine,
        1,
        vec![run(1, 1..=2), run(2, 1..=3), run(3, 4..=4)],
    );
    put_wal_record(
        &engine,
        7,
        vec![run(1, 3..=3), run(2, 4..=8), run(4, 1..=1)],
    );
    // Some left node 2; some of it is in a block already, which came between; node 4 is done with.
    let mut cursor = Cursor::rebuilt(Sequence(3), 200);
    cursor.leave(
        Sequence(5),
        100,
        crate::store::format::cursor::Leave::Delivered,
    );
    let value = cursor.encode(queue(2));
    engine.hints.insert(queue(2).cursor_key(), value);
    put_block(&engine, &run(2, 6..=7));
    let mut record = NodeRecord::default();
    record.retired.push(queue(4));
    let (key, value) = (NodeRecord::key(NodeId(4)), record.encode(NodeId(4)));
    engine.nodes.insert(key, value);
    engine.commit_now();

    let flushed = || {
        let found = flush_found(&engine, dir.path(), false).unwrap();
        assert!(found.damage.is_empty(), "{:?}", found.damage);
        assert_eq!(blocks_of(&engine, 1), [(1, 3)]);
        assert_eq!(blocks_of(&engine, 2), [(3, 4), (6, 7), (8, 8)]);
        assert_eq!(blocks_of(&engine, 3), [(4, 4)]);
        assert_eq!(blocks_of(&engine, 4), []);
        found.next.0
    };
    let next = flushed();
    assert_eq!(next, 14 + NUMBERS_SKIPPED);
    // Died before the cursor was written: once more, and nothing changes.
    engine.hints.remove(WAL.cursor_key());
    assert_eq!(flushed(), next);
    // Now all of it is done with.
    put_block(&engine, &run(5, 1..=1));
    engine.hints.remove(queue(1).chunk_key(Sequence(1), 0));
    let found = flush_found(&engine, dir.path(), true).unwrap();
    assert_eq!((found.next.0, blocks_of(&engine, 1)), (next, vec![]));
}

#[test]
fn a_wal_record_that_is_missing_or_damaged_is_looked_for_in_the_log() {
    for is_missing in [true, false] {
        let (dir, engine) = open();
        put_wal_record(&engine, 1, vec![run(1, 1..=2), run(2, 1..=1)]);
        put_wal_record(&engine, 4, vec![run(1, 3..=3)]);
        engine.commit_now();
        let key = WAL.chunk_key(Sequence(1), 0);
        match is_missing {
            true => drop(engine.hints.remove(key)),
            false => engine.hints.insert(key, vec![9; 50]),
        };
        engine.commit_now();
        let found = flush_found(&engine, dir.path(), false).unwrap();
        assert!(found.damage.is_empty(), "{:?}", found.damage);
        assert_eq!(blocks_of(&engine, 1), [(1, 3)]);
        assert_eq!(blocks_of(&engine, 2), [(1, 1)]);
    }
}

#[test]
fn what_does_not_read_is_told_and_the_rest_is_flushed() {
    let (dir, engine) = open();
    let garbage = |first| {
        let key = WAL.chunk_key(Sequence(first), 0);
        engine.hints.insert(key, vec![9; 50]);
    };
    garbage(1);
    put_wal_record(&engine, 4, vec![run(1, 3..=3)]);
    garbage(5);
    engine.commit_now();
    let found = flush_found(&engine, dir.path(), false).unwrap();
    let told: Vec<_> = found.damage.iter().map(|it| it.what.as_str()).collect();
    assert_eq!(
        told,
        [
            "WAL records with 3 hints do not read",
            "WAL records with 1 hints do not read"
        ]
    );
    assert_eq!(blocks_of(&engine, 1), [(3, 3)]);
}

#[test]
fn a_store_that_never_had_any_is_left_as_it_is() {
    let (dir, engine) = open();
    for is_clean in [true, false] {
        let found = flush_found(&engine, dir.path(), is_clean).unwrap();
        assert_eq!(found.next, Sequence(1));
        assert!(engine.hints.is_empty().unwrap());
    }
}
