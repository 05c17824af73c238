use std::sync::Arc;

use super::*;
use crate::{
    store::engine::generation::Engine,
    types::{NodeId, QueueId},
};

const QUEUE: QueueRef = QueueRef {
    node: NodeId(7),
    queue: QueueId(1),
};

#[test]
fn copies_that_differ_in_length_count_with_the_bytes_that_are_held() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), Arc::default()).unwrap();
    let write = |first: u64, bytes: usize| {
        let key = QUEUE.chunk_key(Sequence(first), 0);
        engine.hints.insert(key, vec![1; bytes]);
    };
    write(9, 1);
    write(9, COPIES_BYTES + 40_000);
    write(8, COPIES_BYTES);
    engine.close().unwrap();
    let wanted = (Sequence(1), Sequence(1), Sequence(100));
    let found = copies(&dir.path().join("db"), Keyspace::Queue, QUEUE, wanted).unwrap();
    assert_eq!(found.blocks.len(), 1, "both are more than is held at once");
    assert_eq!(found.blocks[&Sequence(8)].bytes(), COPIES_BYTES);
    assert_eq!(found.through, Sequence(8));
}
