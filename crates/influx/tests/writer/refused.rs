//! Goal: a dead letter says which of its points a server refused, and the server has the others.
//! Method: a server that takes part of a body, as influxd does, and says how many it dropped.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::{
    direct,
    fake::{Fake, Reply, Seen},
    hints, plain, points, sent, writer_to,
};

/// Refuses lines with a text, as influxd does.
fn refuses_texts(taken: Arc<Mutex<BTreeSet<String>>>) -> impl Fn(&Seen) -> Reply {
    move |seen| {
        let body = seen.body();
        let (bad, good): (Vec<&str>, Vec<&str>) = body.lines().partition(|line| line.contains('"'));
        taken
            .lock()
            .unwrap()
            .extend(good.iter().map(|&it| it.to_owned()));
        match bad.len() {
            0 => Reply::taken(),
            dropped => Reply::error(
                400,
                &format!("partial write: field type conflict dropped={dropped}"),
            ),
        }
    }
}

fn lines(count: u32, is_bad: impl Fn(u32) -> bool) -> String {
    let line = |time| match is_bad(time) {
        true => format!("cpu v=\"x\" {time}\n"),
        false => format!("cpu v=1 {time}\n"),
    };
    (1..=count).map(line).collect()
}

#[tokio::test]
async fn halves_find_the_points_that_are_refused() {
    for count in [1_u32, 2, 3, 8, 61, 1000] {
        for bad in [1, count.div_ceil(2), count] {
            let taken = Arc::default();
            let fake = Fake::start(refuses_texts(Arc::clone(&taken))).await;
            let writer = writer_to(fake.url(), plain());
            let text = lines(count, |time| time == bad);
            assert_eq!(
                sent(&writer, hints([points(&text)])).await,
                format!(
                    "reject 400: partial write: field type conflict dropped=1; refused: 1 of {count} points: cpu v=\"x\" {bad}"
                )
            );
            assert_eq!(taken.lock().unwrap().len() as u32, count - 1);
        }
    }
}

#[tokio::test]
async fn a_hint_of_which_all_is_refused_is_sent_once() {
    let fake = Fake::start(refuses_texts(Arc::default())).await;
    let writer = writer_to(fake.url(), plain());
    let outcome = sent(&writer, direct(points(&lines(500, |_| true)))).await;
    let shown = "cpu v=\"x\" 1 | cpu v=\"x\" 2 | cpu v=\"x\" 3";
    assert_eq!(
        outcome,
        format!(
            "reject 400: partial write: field type conflict dropped=500; refused: 500 of 500 points: {shown}"
        )
    );
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn the_search_has_an_end() {
    let fake = Fake::start(refuses_texts(Arc::default())).await;
    let writer = writer_to(fake.url(), plain());
    let outcome = sent(&writer, hints([points(&lines(2000, |time| time % 2 == 0))])).await;
    let (_, refused) = outcome.split_once("; refused: ").unwrap();
    // No count is more than what was dropped.
    assert_eq!(
        refused,
        "at least 1000 of 2000 points: cpu v=\"x\" 2 | cpu v=\"x\" 4 | cpu v=\"x\" 6"
    );
    assert!(fake.seen().len() < 80, "{}", fake.seen().len());
}

#[tokio::test]
async fn of_several_hints_replay_finds_the_one() {
    let fake = Fake::start(refuses_texts(Arc::default())).await;
    let writer = writer_to(fake.url(), plain());
    let write = hints([
        points("cpu v=1 1\n"),
        points("cpu v=\"x\" 2\n"),
        points("cpu v=1 3\n"),
    ]);
    assert_eq!(
        sent(&writer, write).await,
        "reject 400: partial write: field type conflict dropped=1"
    );
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_server_that_fails_during_the_search_is_asked_again_later() {
    let partial = || Reply::error(400, "partial write: it dropped=1");
    let fake = Fake::in_turn([partial(), Reply::taken(), Reply::error(503, "busy")]).await;
    let writer = writer_to(fake.url(), plain());
    assert_eq!(
        sent(&writer, hints([points(&lines(8, |_| false))])).await,
        "retry 503: busy"
    );
    // Nothing of it is refused by itself.
    let fake = Fake::in_turn([partial()]).await;
    let writer = writer_to(fake.url(), plain());
    assert_eq!(
        sent(&writer, hints([points(&lines(8, |_| false))])).await,
        "taken"
    );
}
