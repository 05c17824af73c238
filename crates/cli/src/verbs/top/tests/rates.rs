//! Rates are what counters differ by; what says nothing of a rate is not known.

use super::*;
use crate::verbs::top::rates::Rates;

fn counting(number: u64, enqueued: u64, delivered: u64) -> Value {
    let changes = json!({
        "enqueued": { "hints": enqueued, "bytes": 0 },
        "delivered": { "hints": delivered, "bytes": 0 },
    });
    node(number, changes)
}

const UNKNOWN: Rates = Rates {
    into: None,
    out: None,
};

fn known(into: f64, out: f64) -> Rates {
    Rates {
        into: Some(into),
        out: Some(out),
    }
}

#[test]
fn a_rate_is_the_difference_of_two_answers_by_the_time_between_them() {
    let (mut state, now) = after(vec![answer(
        1,
        vec![counting(2, 100, 50), counting(3, 0, 0)],
    )]);
    assert_eq!(
        state.rates_of(NodeId(2)),
        UNKNOWN,
        "there is no answer before"
    );
    let next = answer(
        2,
        vec![counting(2, 120, 51), counting(3, 4, 0), counting(4, 9, 9)],
    );
    state.answered(next, now + Duration::from_millis(500));
    assert_eq!(state.rates_of(NodeId(2)), known(40.0, 2.0));
    assert_eq!(state.rates_of(NodeId(3)), known(8.0, 0.0));
    assert_eq!(state.rates_of(NodeId(4)), UNKNOWN, "it is new");
    assert_eq!(state.total_rates(), known(48.0, 2.0));
}

#[test]
fn an_answer_that_was_missed_makes_the_time_longer() {
    let (mut state, now) = after(vec![answer(1, vec![counting(2, 0, 0)])]);
    let lost = crate::failure::Failure::Usage("none".to_owned());
    state.missed(lost).unwrap();
    state.answered(
        answer(1, vec![counting(2, 30, 0)]),
        now + Duration::from_secs(3),
    );
    assert_eq!(state.rates_of(NodeId(2)), known(10.0, 0.0));
}

#[test]
fn a_counter_that_goes_back_has_no_rate() {
    for (enqueued, delivered) in [(99, 60), (110, 49)] {
        let before = answer(1, vec![counting(2, 100, 50), counting(3, 1, 1)]);
        let forgotten = answer(2, vec![counting(2, enqueued, delivered), counting(3, 2, 1)]);
        let (state, _) = after(vec![before, forgotten]);
        assert_eq!(state.rates_of(NodeId(2)), UNKNOWN);
        assert_eq!(state.rates_of(NodeId(3)), known(1.0, 0.0), "it goes on");
    }
}

#[test]
fn a_host_that_restarted_has_no_rates_though_a_node_is_further_than_before() {
    let before = answer(9, vec![counting(2, 100, 50)]);
    let (mut state, now) = after(vec![before, answer(3, vec![counting(2, 1_000_000, 60)])]);
    assert_eq!(state.rates_of(NodeId(2)), UNKNOWN);
    assert_eq!(state.total_rates(), UNKNOWN);
    let next = answer(4, vec![counting(2, 1_000_001, 60)]);
    state.answered(next, now + Duration::from_secs(1));
    assert_eq!(state.rates_of(NodeId(2)), known(1.0, 0.0));
}

#[test]
fn two_answers_of_one_moment_have_no_rates() {
    let (mut state, now) = after(vec![answer(1, vec![counting(2, 0, 0)])]);
    state.answered(answer(1, vec![counting(2, 30, 0)]), now);
    assert_eq!(state.rates_of(NodeId(2)), UNKNOWN);
}

#[test]
fn what_waited_is_remembered_of_nodes_that_are_there_and_for_so_many_answers() {
    let max = crate::verbs::top::history::ANSWERS_MAX;
    let answers = (0..max as u64 + 10).map(|at| answer(at, vec![waiting(2, at), waiting(3, 1)]));
    let (mut state, now) = after(answers.collect());
    let backlog =
        |state: &State, node| -> Vec<u64> { state.history().newest_first(node).collect() };
    assert_eq!(backlog(&state, Some(NodeId(2))).len(), max);
    assert_eq!(
        backlog(&state, Some(NodeId(2))).first(),
        Some(&(max as u64 + 9))
    );
    assert_eq!(backlog(&state, None).first(), Some(&(max as u64 + 10)));
    assert_eq!(
        state.history().time_of(2),
        Some(now - Duration::from_secs(2))
    );
    state.answered(answer(1, vec![waiting(3, 1)]), now);
    assert_eq!(backlog(&state, Some(NodeId(2))), Vec::<u64>::new());
    assert_eq!(backlog(&state, None).len(), max);
}
