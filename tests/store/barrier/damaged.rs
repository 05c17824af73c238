//! A barrier of which anything was changed is refused, whichever byte of its form it was and
//! whatever became of it.

use hinted_handoff::{Barrier, BarrierState, HandoffError, Sequence, internals::Store};

use super::fill;
use crate::common::{
    hints,
    letters::{barrier, deliver},
    open,
};

/// Of a barrier that is delivered: whoever takes a changed one for it is told a wrong answer, and
/// not that something waits.
fn delivered(store: &Store) -> Barrier {
    fill(store, 7, 3);
    fill(store, 300, 2);
    let made = barrier(store, &[7, 8, 300]).unwrap();
    for node in [7, 300] {
        while let Some(hint) = hints(store, node).first() {
            deliver(store, node, hint);
        }
    }
    assert_eq!(store.look_at(&made).unwrap(), BarrierState::Delivered);
    made
}

/// Each byte of a form changed to each other byte. Says how many of these still read.
fn refused<E: std::fmt::Debug>(
    store: &Store,
    form: &[u8],
    read: impl Fn(&[u8]) -> Result<Barrier, E>,
) -> (usize, usize) {
    assert_eq!(
        store.look_at(&read(form).unwrap()).unwrap(),
        BarrierState::Delivered
    );
    let (mut tried, mut has_read) = (0, 0);
    for at in 0..form.len() {
        for change in 1..=u8::MAX {
            let mut changed = form.to_vec();
            changed[at] ^= change;
            tried += 1;
            let Ok(barrier) = read(&changed) else {
                continue;
            };
            has_read += 1;
            let looked = store.look_at(&barrier);
            assert!(
                matches!(
                    looked,
                    Err(HandoffError::BarrierDamaged { .. } | HandoffError::BarrierVersion { .. })
                ),
                "byte {at} ^ {change:#04x}: {barrier:?}: {looked:?}"
            );
        }
    }
    (tried, has_read)
}

#[test]
fn every_changed_byte_of_its_bytes_and_of_its_json_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let made = delivered(&store);
    let bytes = postcard::to_stdvec(&made).unwrap();
    let (tried, has_read) = refused(&store, &bytes, |bytes| postcard::from_bytes(bytes));
    assert!(has_read > 1000, "{has_read}");
    println!("barrier: {tried} changes of its bytes, {has_read} of which read, all refused");
    let json = serde_json::to_vec(&made).unwrap();
    let (tried, has_read) = refused(&store, &json, |json| serde_json::from_slice(json));
    assert!(has_read > 100, "{has_read}");
    println!("barrier: {tried} changes of its JSON, {has_read} of which read, all refused");
    store.close().unwrap();
}

#[test]
fn a_field_that_was_set_by_hand_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let made = delivered(&store);
    let changes: [fn(&mut Barrier); 7] = [
        |it| it.losses_from += 1,
        |it| it.nodes.push(it.nodes[0]),
        |it| it.nodes.swap(0, 1),
        |it| it.queues.truncate(1),
        |it| it.queues.swap(0, 1),
        |it| it.queues[0].through = Sequence(2),
        |it| it.checksum ^= 1,
    ];
    for change in changes {
        let mut changed = made.clone();
        change(&mut changed);
        let refused = store.look_at(&changed);
        assert!(
            matches!(refused, Err(HandoffError::BarrierDamaged { .. })),
            "{changed:?}: {refused:?}"
        );
    }
    store.close().unwrap();
}
