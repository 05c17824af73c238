//! The wall clock is set while hints wait: what was stored in this life grows old by a clock that
//! nobody sets, and what an earlier life stored expires no sooner because of it.
//!
//! Both clocks are the test's: tokio's stands still until it is moved, the wall clock follows it
//! and jumps when it is told to.

use std::{path::Path, sync::Arc, time::Duration};

use crate::common::{
    self,
    copy::copy_of,
    frozen::{a_moment, freeze, pass, pass_in_steps, soon, until},
};
use bytes::Bytes;
use hinted_handoff::{Config, HintedHandoff, NodeId, ShardId, internals::WallClock};
use hinted_handoff_testkit::ScriptedWriter;

type Handoff = HintedHandoff<Bytes>;

const NODE: NodeId = NodeId(1);
/// What a board without a battery shows when it starts.
const NO_BATTERY: u64 = 10_000;
const START: u64 = 1_700_000_000_000;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// From what such a board shows to the present.
fn years() -> Duration {
    Duration::from_millis(START - NO_BATTERY)
}

async fn open(dir: &Path, clock: &WallClock) -> Handoff {
    open_with(dir, clock, HOUR).await
}

async fn open_with(dir: &Path, clock: &WallClock, max_age: Duration) -> Handoff {
    let config = Config {
        max_age,
        ..common::config(dir)
    };
    let writer = Arc::new(ScriptedWriter::down());
    let handoff = Handoff::open_by_clock(config, clock.clone(), writer).await;
    // The service's own task begins.
    a_moment().await;
    handoff.unwrap()
}

async fn write(handoff: &Handoff, text: &'static str) {
    let points = Bytes::from_static(text.as_bytes());
    let written = handoff.write_shard(NODE, ShardId(1), &points).await;
    written.unwrap();
}

fn pending(handoff: &Handoff) -> u64 {
    let nodes = handoff.stats().nodes.into_iter();
    let mut pending = nodes.map(|it| it.pending.hints);
    pending.next().unwrap_or_default()
}

fn oldest_age(handoff: &Handoff) -> Option<Duration> {
    handoff.stats().nodes.first()?.oldest_age
}

async fn gone_soon(handoff: &Handoff) {
    soon("it is gone", || pending(handoff) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_right_by_years_makes_no_hint_older_than_it_is() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(NO_BATTERY);
    let handoff = open(dir.path(), &clock).await;
    write(&handoff, "before").await;
    pass(3 * SECOND).await;
    clock.jump_forward(years());
    write(&handoff, "after").await;
    assert_eq!(oldest_age(&handoff), Some(3 * SECOND));
    pass_in_steps(59 * MINUTE).await;
    assert_eq!(pending(&handoff), 2, "hints of an hour at most expired");
    pass_in_steps(2 * MINUTE).await;
    gone_soon(&handoff).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_either_way_and_stays_so_neither_ages_nor_rejuvenates_a_hint() {
    let _frozen = freeze();
    for forward in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let clock = WallClock::new(START);
        let handoff = open(dir.path(), &clock).await;
        write(&handoff, "young").await;
        pass_in_steps(30 * MINUTE).await;
        match forward {
            true => clock.jump_forward(24 * HOUR),
            false => clock.jump_back(24 * HOUR),
        }
        pass_in_steps(29 * MINUTE).await;
        assert_eq!(pending(&handoff), 1, "forward: {forward}");
        assert_eq!(oldest_age(&handoff), Some(59 * MINUTE));
        pass_in_steps(61 * SECOND).await;
        gone_soon(&handoff).await;
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn hints_that_were_stamped_by_a_wrong_clock_keep_their_age_over_a_restart() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(NO_BATTERY);
    let handoff = open(dir.path(), &clock).await;
    write(&handoff, "stamped decades ago").await;
    pass(3 * SECOND).await;
    clock.jump_forward(years());
    // It looks at the clock.
    pass(MINUTE).await;
    write(&handoff, "of the same life").await;
    handoff.shutdown().await.unwrap();
    for _ in 0..2 {
        pass(10 * MINUTE).await;
        let handoff = open(dir.path(), &clock).await;
        pass_in_steps(10 * MINUTE).await;
        assert_eq!(pending(&handoff), 2, "they are an hour old at most");
        handoff.shutdown().await.unwrap();
    }
    let handoff = open(dir.path(), &clock).await;
    pass_in_steps(21 * MINUTE).await;
    gone_soon(&handoff).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_life_that_died_before_the_clock_was_set_right_is_judged_by_the_next() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(NO_BATTERY);
    let handoff = open(dir.path(), &clock).await;
    write(&handoff, "of a short life").await;
    handoff.shutdown().await.unwrap();
    // It starts again from where it was, and is set right.
    let clock = WallClock::new(NO_BATTERY);
    for _ in 0..2 {
        let handoff = open(dir.path(), &clock).await;
        if clock.unix_ms() < START {
            pass(3 * SECOND).await;
            clock.jump_forward(years());
        }
        pass_in_steps(20 * MINUTE).await;
        assert_eq!(pending(&handoff), 1);
        handoff.shutdown().await.unwrap();
    }
    let handoff = open(dir.path(), &clock).await;
    pass_in_steps(22 * MINUTE).await;
    gone_soon(&handoff).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn hints_of_an_earlier_life_grow_old_by_the_wall_clock_once_it_is_set_right() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(START);
    let handoff = open(dir.path(), &clock).await;
    write(&handoff, "stamped right").await;
    handoff.shutdown().await.unwrap();
    pass(30 * MINUTE).await;
    // The board starts without a battery: to this life the hint is of the future.
    let now = clock.unix_ms();
    clock.jump_back(Duration::from_millis(now - NO_BATTERY));
    let handoff = open(dir.path(), &clock).await;
    pass(5 * SECOND).await;
    clock.jump_forward(Duration::from_millis(now - NO_BATTERY));
    pass_in_steps(29 * MINUTE).await;
    assert_eq!(oldest_age(&handoff), Some(59 * MINUTE + 5 * SECOND));
    assert_eq!(pending(&handoff), 1);
    pass_in_steps(MINUTE).await;
    gone_soon(&handoff).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_opened_by_a_clock_that_is_ahead_loses_nothing_when_it_is_set_right() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(START);
    let handoff = open(dir.path(), &clock).await;
    write(&handoff, "stamped right").await;
    handoff.shutdown().await.unwrap();
    clock.jump_forward(1000 * HOUR);
    let handoff = open(dir.path(), &clock).await;
    write(&handoff, "stamped ahead").await;
    pass(30 * SECOND).await;
    clock.jump_back(1000 * HOUR);
    pass_in_steps(30 * MINUTE).await;
    assert_eq!(pending(&handoff), 2);
    handoff.shutdown().await.unwrap();
    let handoff = open(dir.path(), &clock).await;
    pass_in_steps(29 * MINUTE).await;
    assert_eq!(pending(&handoff), 2);
    pass_in_steps(3 * MINUTE).await;
    gone_soon(&handoff).await;
    handoff.shutdown().await.unwrap();
}

/// What was stored before the clock was set is not to look years old, if this life ends soon after.
#[tokio::test(start_paused = true)]
async fn that_the_clock_was_set_is_recorded_within_two_seconds() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(NO_BATTERY);
    let handoff = open(dir.path(), &clock).await;
    write(&handoff, "before").await;
    pass(3 * SECOND).await;
    clock.jump_forward(years());
    for _ in 0..20 {
        pass(SECOND / 10).await;
    }
    write(&handoff, "after").await;
    // What a killed process leaves.
    let killed = copy_of(dir.path());
    handoff.shutdown().await.unwrap();
    let handoff = open(killed.path(), &clock).await;
    pass_in_steps(10 * MINUTE).await;
    assert_eq!(pending(&handoff), 2, "they are ten minutes old");
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_parked_by_a_wrong_clock_is_purged_when_its_time_has_come() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(NO_BATTERY);
    let handoff = open_with(dir.path(), &clock, Duration::ZERO).await;
    write(&handoff, "of a node that joins later").await;
    handoff.retain_nodes(&[NodeId(99)]).await.unwrap();
    pass(3 * SECOND).await;
    clock.jump_forward(years());
    pass(MINUTE).await;
    handoff.shutdown().await.unwrap();
    let handoff = open_with(dir.path(), &clock, Duration::ZERO).await;
    for _ in 0..6 {
        pass(24 * HOUR).await;
    }
    assert_eq!(
        pending(&handoff),
        1,
        "it is parked for six days, not for years"
    );
    pass(25 * HOUR).await;
    pass(2 * MINUTE).await;
    until("it is purged", || handoff.stats().nodes.is_empty()).await;
    handoff.shutdown().await.unwrap();
}
