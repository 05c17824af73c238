use super::*;
use crate::clock::WallClock;

const HOUR: u64 = 3_600_000;
const NOW: u64 = 500_000 * HOUR;

fn ageing(clock: &WallClock, recorded: Vec<Correction>) -> Ageing {
    let config = Config {
        max_age: Duration::from_millis(HOUR),
        ..Config::new("unused")
    };
    Ageing::new(&config, Clock::Scripted(clock.clone()), recorded)
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_is_not_believed_after_open_and_after_it_was_set() {
    let clock = WallClock::new(NOW);
    let ageing = ageing(&clock, Vec::new());
    assert_eq!(ageing.quiet_for(), Some(Duration::from_secs(60)));
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!((ageing.look(), ageing.quiet_for()), (None, None));
    // As for a leap second.
    clock.jump_back(Duration::from_secs(1));
    assert_eq!(ageing.look(), None);
    clock.jump_forward(Duration::from_secs(3));
    assert_eq!(ageing.look(), Some(2000));
    assert_eq!(ageing.quiet_for(), Some(Duration::from_secs(60)));
    assert_eq!(ageing.corrections(), [Correction::of_life(NOW, 2000)]);
    clock.jump_back(Duration::from_secs(2));
    assert_eq!(ageing.look(), Some(0));
    assert_eq!(ageing.corrections(), []);
}

#[tokio::test(start_paused = true)]
async fn of_the_readings_of_a_stamp_the_latest_that_has_been_is_believed() {
    let clock = WallClock::new(NOW);
    let recorded = vec![Correction::of_life(NOW - 5 * HOUR, 2 * HOUR as i64)];
    let ageing = ageing(&clock, recorded);
    tokio::time::advance(Duration::from_millis(HOUR)).await;
    // Its own, and those of a life whose clock was behind.
    assert_eq!(ageing.enqueued(NOW, None), NOW);
    assert_eq!(ageing.enqueued(NOW - 8 * HOUR, None), NOW - 8 * HOUR);
    assert_eq!(ageing.enqueued(NOW - 4 * HOUR, None), NOW - 2 * HOUR);
    // Of the future, until the clock is set right.
    assert_eq!(ageing.enqueued(2 * NOW, None), NOW + HOUR);
    assert_eq!(ageing.enqueued(2 * NOW, Some(NOW)), NOW);
    clock.jump_forward(Duration::from_millis(NOW));
    assert_eq!(ageing.look(), Some(NOW as i64));
    assert_eq!(ageing.enqueued(2 * NOW, None), NOW);
    assert_eq!(ageing.enqueued(2 * NOW - 9 * HOUR, None), NOW - 9 * HOUR);
    assert_eq!(ageing.enqueued(NOW, None), NOW);
    let shown = UNIX_EPOCH + Duration::from_millis(2 * NOW);
    assert_eq!(ageing.shown(NOW), shown);
}

#[tokio::test(start_paused = true)]
async fn a_clock_without_a_battery_leaves_room_for_what_was_before() {
    let clock = WallClock::new(0);
    let ageing = ageing(&clock, Vec::new());
    assert_eq!((ageing.look(), ageing.now()), (None, FLOOR_UNIX_MS));
    assert_eq!(ageing.shown(FLOOR_UNIX_MS), UNIX_EPOCH);
    clock.jump_forward(Duration::from_millis(NOW));
    assert!(ageing.look().is_some());
    let hour_ago = ageing.enqueued(NOW - HOUR, None);
    assert_eq!(ageing.since(hour_ago), Duration::from_millis(HOUR));
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_over_with_its_own_lifetime_or_the_general_one_whichever_ends_first() {
    let clock = WallClock::new(NOW);
    let ageing = ageing(&clock, Vec::new());
    let (minute, ten) = (Some(60_000), Some(10 * HOUR));
    let before = NOW - HOUR;
    assert_eq!(
        [None, minute, ten].map(|it| ageing.is_over(NOW, it)),
        [false; 3]
    );
    // Those of earlier lives are over once the clock is believed.
    assert_eq!(
        [None, minute, ten].map(|it| ageing.is_over(before, it)),
        [false; 3]
    );
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(
        [None, minute, ten].map(|it| ageing.is_over(before, it)),
        [true; 3]
    );
    assert_eq!(
        [None, minute, ten].map(|it| ageing.is_over(NOW, it)),
        [false, true, false]
    );
    assert_eq!(ageing.shortest(), Some(Duration::from_millis(HOUR)));
    ageing.note_lifetime(5000);
    ageing.note_lifetime(9000);
    assert_eq!(ageing.shortest(), Some(Duration::from_secs(5)));
}
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_makes_nothing_past_before_its_time() {
    let day = 24 * HOUR;
    let week = Duration::from_millis(7 * day);
    // Stamped in this life: the wall clock may show what it will.
    let clock = WallClock::new(NOW);
    let ageing = ageing(&clock, Vec::new());
    clock.jump_forward(week * 50);
    ageing.look();
    assert!(!ageing.is_past(NOW, week));
    // Stamped before: by the wall clock, once it is believed.
    assert!(!ageing.is_past(NOW - 8 * day, week));
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(ageing.is_past(NOW - 8 * day, week));
    assert!(!ageing.is_past(NOW - 6 * day, week));
    // It is yet to come: then this whole life has to do instead.
    let to_come = NOW + 7000 * day;
    assert!(!ageing.is_past(to_come, week));
    tokio::time::advance(week).await;
    assert!(ageing.is_past(NOW, week) && ageing.is_past(to_come, week));
}
