use std::time::Duration;

use super::{sweep::LANES_MAX, *};
use crate::{config::Config, store::Hint};

const NODE: NodeId = NodeId(1);
const SHARD: ShardId = ShardId(7);

fn gate() -> (Arc<Admission>, Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        min_free_disk: 0,
        ..Config::new(dir.path())
    };
    let store = Store::open(&config, Box::new(|_| {})).unwrap();
    let admission = Admission::of(WriteOrdering::Strict).unwrap();
    admission.look(&store);
    (admission, store, dir)
}

fn lanes(admission: &Admission) -> usize {
    admission.state.lock().lanes.len()
}

/// Makes a hint durable, noted.
fn hint(admission: &Arc<Admission>, store: &Store, shard: u64) -> HintId {
    let on_its_way = admission.hint(store, NODE, ShardId(shard));
    let id = append(store, NODE, shard);
    on_its_way.durable(id);
    id
}

fn append(store: &Store, node: NodeId, shard: u64) -> HintId {
    let (tell, told) = std::sync::mpsc::channel();
    let hint = Hint {
        shard: ShardId(shard),
        format: 0,
        enqueued_unix_ms: 0,
        payload: "points".into(),
        origin: None,
        write: None,
        lifetime_ms: None,
    };
    store.append(node, hint, Box::new(move |id| tell.send(id).unwrap()));
    told.recv().unwrap().unwrap()
}

fn remove(store: &Store) {
    let (tell, told) = std::sync::mpsc::channel();
    store.remove_node(NODE, move |removed| tell.send(removed).unwrap());
    told.recv().unwrap().unwrap();
}

#[tokio::test]
async fn a_turn_goes_to_the_next_who_is_still_in_line() {
    let passing = tokio::time::timeout(Duration::from_secs(10), pass_a_turn());
    passing.await.expect("a turn was lost");
}

async fn pass_a_turn() {
    let (admission, _, _dir) = gate();
    let mut places: Vec<_> = (0..6).map(|_| admission.line_up(NODE, SHARD)).collect();
    let other = admission.line_up(NODE, ShardId(8)).turn().await;
    let last = places.pop().unwrap();
    let first = places.remove(0).turn().await;
    // One of them has its turn already when it is given up.
    let second = places.remove(0);
    drop(first);
    drop(second);
    let third = places.remove(0).turn().await;
    drop(places);
    drop(third);
    drop(last.turn().await);
    assert_eq!(lanes(&admission), 1);
    drop(other);
    assert_eq!(lanes(&admission), 0);
}

#[tokio::test]
async fn a_lane_is_clear_when_its_hints_are_gone_and_none_is_on_its_way_or_being_sent() {
    let (admission, store, _dir) = gate();
    let turn = admission.line_up(NODE, SHARD).turn().await;
    assert!(turn.is_clear(&store));
    let on_its_way = admission.hint(&store, NODE, SHARD);
    assert!(!turn.is_clear(&store));
    drop(on_its_way);
    assert!(turn.is_clear(&store), "it is known not to be stored");
    hint(&admission, &store, SHARD.0);
    assert!(!turn.is_clear(&store));
    let sending = admission.send(NODE, SHARD);
    remove(&store);
    assert!(!turn.is_clear(&store));
    drop(sending);
    assert!(turn.is_clear(&store));
    store.close().unwrap();
    assert!(!turn.is_clear(&store));
    drop(turn);
    assert_eq!(lanes(&admission), 0);
}

#[test]
fn lanes_whose_hints_are_gone_are_forgotten() {
    let (admission, store, _dir) = gate();
    let last = hint(&admission, &store, 0);
    let note = |shard| {
        let on_its_way = admission.hint(&store, NODE, ShardId(shard));
        on_its_way.durable(last);
    };
    (0..3 * SWEEP_AT_LEAST as u64).for_each(note);
    assert_eq!(lanes(&admission), 3 * SWEEP_AT_LEAST, "all have a backlog");
    remove(&store);
    (0..4 * SWEEP_AT_LEAST as u64).for_each(note);
    assert!(lanes(&admission) < SWEEP_AT_LEAST);
}

#[tokio::test]
async fn lanes_beyond_the_limit_are_one_with_their_node_until_what_waited_is_gone() {
    const OTHER: NodeId = NodeId(2);
    let (admission, store, _dir) = gate();
    let last = hint(&admission, &store, 0);
    // A few of another node, which stay apart.
    let other = append(&store, OTHER, 1);
    for shard in 0..10 {
        let on_its_way = admission.hint(&store, OTHER, ShardId(shard));
        on_its_way.durable(other);
    }
    let mut most = 0;
    for shard in 0..5 * LANES_MAX as u64 {
        let on_its_way = admission.hint(&store, NODE, ShardId(shard));
        on_its_way.durable(last);
        most = most.max(lanes(&admission));
    }
    assert!(most <= LANES_MAX * 5 / 4 + 1, "{most} lanes");
    let clear = async |node, shard| {
        let turn = admission.line_up(node, ShardId(shard)).turn().await;
        turn.is_clear(&store)
    };
    assert!(!clear(NODE, 3).await, "its hint waits");
    assert!(
        !clear(NODE, u64::MAX).await,
        "as after an open: nobody has read for whom the hints are"
    );
    assert!(!clear(OTHER, 3).await);
    assert!(
        clear(OTHER, 11).await,
        "another node has nothing to do with it"
    );
    // What comes after that is told apart.
    hint(&admission, &store, 7);
    remove(&store);
    for shard in [0, 3, 7, u64::MAX] {
        assert!(clear(NODE, shard).await, "{shard}");
    }
    assert!(admission.state.lock().found.is_empty());
    hint(&admission, &store, 3);
    assert!(!clear(NODE, 3).await);
    assert!(clear(NODE, 4).await);
}

#[tokio::test]
async fn a_lane_is_not_clear_behind_a_held_hint_until_that_has_left() {
    let (admission, store, _dir) = gate();
    let hold = || {
        let on_its_way = admission.hint(&store, NODE, SHARD);
        let (tell, told) = std::sync::mpsc::channel();
        let points = Hint {
            shard: SHARD,
            format: 0,
            enqueued_unix_ms: 0,
            payload: "points".into(),
            origin: None,
            write: None,
            lifetime_ms: None,
        };
        let done = Box::new(move |id| tell.send(id).unwrap());
        let held = store.append_held(Default::default(), NODE, points, false, done);
        let held = HeldInLane::new(held, Some(on_its_way));
        held.durable(told.recv().unwrap().unwrap())
    };
    let is_clear = async |shard| {
        let turn = admission.line_up(NODE, shard).turn().await;
        turn.is_clear(&store)
    };
    for delivered in [true, false] {
        let held = hold();
        assert!(!is_clear(SHARD).await);
        assert!(is_clear(ShardId(8)).await);
        match delivered {
            true => held.deliver().unwrap(),
            false => held.withdraw().unwrap(),
        };
        assert!(is_clear(SHARD).await);
    }
    // As any other hint then.
    drop(hold());
    assert!(!is_clear(SHARD).await);
    // It leaves past that one, which waits as before.
    hold().withdraw().unwrap();
    assert!(!is_clear(SHARD).await);
}

#[tokio::test]
async fn a_hint_that_is_held_no_longer_does_not_hide_a_later_one() {
    let (admission, store, _dir) = gate();
    let at = |sequence| HintId {
        store: store.id(),
        queue: QueueId(1),
        sequence: Sequence(sequence),
    };
    let held = admission.hint(&store, NODE, SHARD);
    admission.hint(&store, NODE, SHARD).durable(at(2));
    held.durable(at(1));
    let last = admission.state.lock().lanes[&(NODE, SHARD)].last;
    assert_eq!(last, Some((QueueId(1), Sequence(2))));
}
