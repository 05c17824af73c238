//! The store against a model in memory.
//!
//! Goal: whatever is appended, peeked, acknowledged (anywhere, also in the middle of a block), dropped and reopened, in
//! any order, the store holds exactly what the model holds: the same hints in the same order, the same depth, and no id
//! ever given twice. Method: random operations; after each, every node's queue is read whole and compared.
//!
//! An unclean reopen is a clean close whose `CLEAN` summary is taken away: the store must then number anew, since it
//! cannot know what the disk lost.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    path::Path,
    sync::mpsc,
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    Amount, Config, HintId, NodeId, ShardId,
    testkit::{Leave, NewHint, Peek, PeekLimits, PeekedHint, Reader, Store},
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Operation {
    Append { node: u64, payloads: Vec<usize> },
    Peek { node: u64, hints: usize, bytes: u64 },
    Ack { node: u64, part: f64 },
    Drop { node: u64 },
    Reopen { clean: bool },
}

fn payload_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![
        20 => 1_usize..300,
        5 => 300_usize..9_000,
        2 => 60_000_usize..70_000,
        1 => 900_000_usize..1_300_000,
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let node = || 1_u64..4;
    prop_oneof![
        6 => (node(), prop::collection::vec(payload_bytes(), 1..30))
            .prop_map(|(node, payloads)| Operation::Append { node, payloads }),
        3 => (node(), 1_usize..50, 1_u64..100_000)
            .prop_map(|(node, hints, bytes)| Operation::Peek { node, hints, bytes }),
        6 => (node(), 0.0..1.1).prop_map(|(node, part)| Operation::Ack { node, part }),
        1 => node().prop_map(|node| Operation::Drop { node }),
        2 => any::<bool>().prop_map(|clean| Operation::Reopen { clean }),
    ]
}

#[derive(Default)]
struct Model {
    pending: BTreeMap<u64, VecDeque<(HintId, Bytes)>>,
    known: BTreeMap<u64, HintId>,
    ids: HashSet<HintId>,
    /// Nodes whose next hint must start a queue.
    fresh: HashSet<u64>,
    made: u64,
}

impl Model {
    /// Payloads are told apart by their content: half of it compresses, half does not.
    fn next_payload(&mut self, bytes: usize) -> Bytes {
        self.made += 1;
        let mut state = self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut payload = self.made.to_be_bytes().to_vec();
        payload.resize_with(bytes.max(8), || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state & 1 == 0 { 0 } else { state as u8 }
        });
        payload.truncate(bytes.max(1));
        payload.into()
    }

    fn accept(&mut self, node: u64, id: HintId, payload: Bytes) {
        assert!(self.ids.insert(id), "{id} was given out twice");
        let goes_on = self
            .known
            .insert(node, id)
            .is_some_and(|last| last.queue == id.queue && last.sequence.0 + 1 == id.sequence.0);
        match self.fresh.remove(&node) {
            true => assert_eq!(id.sequence.0, 1, "a new queue starts at 1"),
            false => assert!(goes_on || id.sequence.0 == 1 && !self.pending.contains_key(&node)),
        }
        self.pending
            .entry(node)
            .or_default()
            .push_back((id, payload));
    }
}

fn open(dir: &Path) -> Store {
    let config = Config {
        free_space_reserve_bytes: 0,
        ..Config::new(dir)
    };
    Store::open(&config, Box::new(|_| {})).unwrap()
}

fn peek(store: &Store, node: u64, limits: PeekLimits) -> Vec<PeekedHint> {
    match store
        .peek(&mut Reader::default(), NodeId(node), limits)
        .unwrap()
    {
        Peek::Empty => Vec::new(),
        Peek::Hints(hints) => hints,
        Peek::Damaged(queue) => panic!("node {node}: {queue:?} does not read"),
    }
}

/// Everything of a node, without acknowledging anything: a peek covers one queue, so only the first can be seen.
fn check(store: &Store, model: &Model) {
    let nodes: BTreeMap<_, _> = store.nodes().into_iter().collect();
    for (node, pending) in &model.pending {
        let hints = pending.len() as u64;
        let bytes = pending
            .iter()
            .map(|(_, payload)| payload.len() as u64)
            .sum();
        let depth = nodes.get(&NodeId(*node)).map(|queues| queues.pending());
        assert_eq!(
            depth.unwrap_or_default(),
            Amount { hints, bytes },
            "depth of node {node}"
        );
        let everything = PeekLimits {
            hints: usize::MAX,
            payload_bytes: u64::MAX,
        };
        let peeked = peek(store, *node, everything);
        let first_queue = pending.front().map(|(id, _)| id.queue);
        let expected = pending
            .iter()
            .take_while(|(id, _)| Some(id.queue) == first_queue);
        let expected: Vec<_> = expected
            .map(|(id, payload)| (id.sequence, payload.clone()))
            .collect();
        let found: Vec<_> = peeked
            .iter()
            .map(|it| (it.mark.sequence, it.hint.payload.clone()))
            .collect();
        assert_eq!(found, expected, "content of node {node}");
        assert!(
            peeked
                .iter()
                .all(|it| Some(it.mark.queue.queue) == first_queue)
        );
        assert!(peeked.iter().all(|it| it.hint.shard == ShardId(*node * 10)));
    }
}

fn apply(store: &mut Option<Store>, dir: &Path, model: &mut Model, operation: &Operation) {
    let open_store = store.as_ref().unwrap();
    match operation {
        Operation::Append { node, payloads } => {
            let (tell, told) = mpsc::channel();
            let payloads: Vec<_> = payloads
                .iter()
                .map(|bytes| model.next_payload(*bytes))
                .collect();
            for payload in &payloads {
                let hint = NewHint {
                    shard: ShardId(*node * 10),
                    format: 0,
                    enqueued_unix_ms: 1,
                    payload: payload.clone(),
                };
                let tell = tell.clone();
                open_store.append(
                    NodeId(*node),
                    hint,
                    Box::new(move |result| tell.send(result).unwrap()),
                );
            }
            for payload in payloads {
                let id = told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
                model.accept(*node, id, payload);
            }
        }
        Operation::Peek { node, hints, bytes } => {
            let limits = PeekLimits {
                hints: *hints,
                payload_bytes: *bytes,
            };
            let peeked = peek(open_store, *node, limits);
            let total: u64 = peeked.iter().map(|it| it.hint.payload.len() as u64).sum();
            assert!(peeked.len() <= *hints);
            assert!(total <= *bytes || peeked.len() == 1);
            let pending = model
                .pending
                .get(node)
                .is_some_and(|pending| !pending.is_empty());
            assert_eq!(peeked.is_empty(), !pending);
        }
        Operation::Ack { node, part } => {
            let peeked = peek(
                open_store,
                *node,
                PeekLimits {
                    hints: 64,
                    payload_bytes: 1 << 20,
                },
            );
            let count = ((peeked.len() as f64 * part) as usize).min(peeked.len());
            let Some(last) = count.checked_sub(1).map(|index| &peeked[index]) else {
                return;
            };
            let left = open_store
                .ack(NodeId(*node), last.mark, Leave::Delivered)
                .unwrap();
            let pending = model.pending.get_mut(node).unwrap();
            let gone = pending
                .drain(..count)
                .map(|(_, payload)| payload.len() as u64)
                .sum();
            assert_eq!(
                left,
                Amount {
                    hints: count as u64,
                    bytes: gone
                }
            );
            let again = open_store
                .ack(NodeId(*node), last.mark, Leave::Delivered)
                .unwrap();
            assert_eq!(
                again,
                Amount::default(),
                "the same ack again changes nothing"
            );
        }
        Operation::Drop { node } => {
            let (tell, told) = mpsc::channel();
            open_store.remove_node(NodeId(*node), move |result| tell.send(result).unwrap());
            let result = told.recv_timeout(Duration::from_secs(20)).unwrap();
            match model.pending.remove(node) {
                Some(pending) => assert_eq!(result.unwrap().hints, pending.len() as u64),
                None => assert!(result.is_err() || result.unwrap().hints == 0),
            }
            model.fresh.insert(*node);
        }
        Operation::Reopen { clean } => {
            open_store.close().unwrap();
            drop(store.take());
            if !clean {
                std::fs::remove_file(dir.join("gen-000001/CLEAN")).unwrap();
                model.fresh.extend(1..4);
            }
            *store = Some(open(dir));
            assert_eq!(store.as_ref().unwrap().stats().damage, []);
        }
    }
}

fn cases() -> u32 {
    std::env::var("HH_CYCLES").map_or(48, |text| text.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_holds_what_the_model_holds(operations in prop::collection::vec(operation(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        let mut store = Some(open(dir.path()));
        for operation in &operations {
            apply(&mut store, dir.path(), &mut model, operation);
            check(store.as_ref().unwrap(), &model);
        }
    }
}
