//! What keys do, which node they mean, and what is told of a host that does not answer.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::*;
use crate::{
    failure::Failure,
    output::Tone,
    verbs::top::state::{Act, Mode, Order, Verb, Wish},
};

pub fn press(state: &mut State, code: KeyCode) -> Wish {
    state.key(KeyEvent::new(code, KeyModifiers::NONE))
}

pub fn letter(state: &mut State, letter: char) -> Wish {
    press(state, KeyCode::Char(letter))
}

fn three() -> Answer {
    answer(1, vec![waiting(2, 5), waiting(3, 9), waiting(4, 7)])
}

fn refused() -> Failure {
    Failure::Refused {
        status: 403,
        kind: "urn:hinted-handoff:read-only".to_owned(),
        detail: "this interface only shows".to_owned(),
    }
}

#[test]
fn the_deepest_comes_first_and_every_order_is_reached_by_its_key() {
    let aged = |number, hints, age_ms: u64, delivered: u64| {
        let changes = json!({
            "pending": { "hints": hints, "bytes": 0 },
            "oldest_age_ms": age_ms,
            "delivered": { "hints": delivered, "bytes": 0 },
        });
        node(number, changes)
    };
    let before = answer(
        1,
        vec![aged(2, 5, 10, 0), aged(3, 9, 10, 0), aged(4, 7, 10, 0)],
    );
    let now = answer(
        2,
        vec![aged(2, 5, 30, 8), aged(3, 9, 10, 1), aged(4, 7, 50, 2)],
    );
    let (mut state, _) = after(vec![before, now]);
    for (order, nodes) in [
        (Order::Pending, [3, 4, 2]),
        (Order::Age, [4, 2, 3]),
        (Order::RateOut, [2, 4, 3]),
        (Order::Node, [2, 3, 4]),
        (Order::Pending, [3, 4, 2]),
    ] {
        assert_eq!(state.order(), order);
        assert_eq!(order_of(&state), nodes, "{order:?}");
        letter(&mut state, 's');
    }
}

#[test]
fn the_keys_move_within_the_nodes() {
    let (mut state, _) = after(vec![three()]);
    assert_eq!(selected(&state), Some(NodeId(3)), "the first one");
    for (key, node) in [
        (KeyCode::Up, 3),
        (KeyCode::Down, 4),
        (KeyCode::Char('j'), 2),
        (KeyCode::Char('j'), 2),
        (KeyCode::Char('k'), 4),
        (KeyCode::End, 2),
        (KeyCode::Home, 3),
        (KeyCode::PageDown, 2),
        (KeyCode::PageUp, 3),
    ] {
        assert_eq!(press(&mut state, key), Wish::Nothing);
        assert_eq!(selected(&state), Some(NodeId(node)), "{key:?}");
    }
    let (mut none, _) = asked();
    for key in [
        KeyCode::Down,
        KeyCode::End,
        KeyCode::Char('p'),
        KeyCode::Char('s'),
    ] {
        assert_eq!(press(&mut none, key), Wish::Nothing);
        assert_eq!((selected(&none), none.mode()), (None, &Mode::Table));
    }
}

#[test]
fn the_choice_stays_with_its_node_and_goes_on_where_that_is_gone() {
    let (mut state, now) = after(vec![three()]);
    press(&mut state, KeyCode::Down);
    assert_eq!(selected(&state), Some(NodeId(4)));
    let deeper = answer(2, vec![waiting(2, 5), waiting(3, 9), waiting(4, 70)]);
    state.answered(deeper, now);
    assert_eq!(
        (selected(&state), state.selected_at()),
        (Some(NodeId(4)), Some(0))
    );
    let gone = answer(3, vec![waiting(2, 5), waiting(3, 9)]);
    state.answered(gone, now);
    assert_eq!(selected(&state), Some(NodeId(3)), "the one in its place");
    state.answered(answer(4, vec![]), now);
    assert_eq!(selected(&state), None);
    state.answered(three(), now);
    assert_eq!(selected(&state), Some(NodeId(3)));
}

#[test]
fn a_pause_is_asked_for_and_done_to_the_node_that_was_named() {
    for (key, verb) in [('p', Verb::Pause), ('r', Verb::Resume)] {
        let (mut state, now) = after(vec![three()]);
        let act = Act {
            verb,
            node: NodeId(3),
            called: "3".to_owned(),
        };
        assert_eq!(letter(&mut state, key), Wish::Nothing);
        assert_eq!(state.mode(), &Mode::Ask(act.clone()));
        // Another one becomes the first meanwhile, and other keys are no answer.
        let other = answer(2, vec![waiting(2, 50), waiting(3, 9)]);
        state.answered(other, now);
        for none in [KeyCode::Char('j'), KeyCode::Enter, KeyCode::Char('p')] {
            assert_eq!(press(&mut state, none), Wish::Nothing);
        }
        assert_eq!(letter(&mut state, 'y'), Wish::Act(act.clone()));
        assert_eq!(state.under_way(), Some(&act));
        letter(&mut state, key);
        assert_eq!(state.mode(), &Mode::Table, "one thing at a time");
        assert!(state.message().unwrap().1.contains("not answered yet"));
        state.done(&act, Ok(()));
        assert_eq!(
            (state.message().unwrap().0, state.under_way()),
            (Tone::Good, None)
        );
    }
}

#[test]
fn a_no_is_no_and_does_not_end_the_program() {
    for no in [KeyCode::Char('n'), KeyCode::Char('q'), KeyCode::Esc] {
        let (mut state, _) = after(vec![three()]);
        letter(&mut state, 'p');
        assert_eq!(press(&mut state, no), Wish::Nothing);
        assert_eq!((state.mode(), state.under_way()), (&Mode::Table, None));
    }
}

#[test]
fn what_the_host_refuses_is_told_with_its_reason() {
    let (mut state, _) = after(vec![three()]);
    letter(&mut state, 'p');
    let Wish::Act(act) = letter(&mut state, 'y') else {
        panic!("nothing asked for");
    };
    state.done(&act, Err(refused()));
    let (tone, told) = state.message().unwrap();
    assert_eq!(tone, Tone::Bad);
    assert_eq!(told, "the host refuses (403): this interface only shows");
    press(&mut state, KeyCode::Down);
    assert_eq!(state.message(), None, "the next key takes it away");
}

#[test]
fn a_node_that_is_resumed_while_all_are_paused_waits_with_them() {
    let mut paused = three();
    paused.status.paused_all = Some(hinted_handoff::Pause::UntilRestart);
    let (mut state, _) = after(vec![paused]);
    letter(&mut state, 'r');
    let Wish::Act(act) = letter(&mut state, 'y') else {
        panic!("nothing asked for");
    };
    state.done(&act, Ok(()));
    let (tone, told) = state.message().unwrap();
    assert_eq!(tone, Tone::Doubtful);
    assert!(told.contains("hh resume --all"), "{told}");
}

#[test]
fn the_program_ends_by_its_keys_and_by_no_other() {
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for before in [None, Some('?'), Some('p')] {
        let (mut state, _) = after(vec![three()]);
        before.map(|it| letter(&mut state, it));
        assert_eq!(state.key(control_c), Wish::Quit, "{before:?}");
    }
    let (mut state, _) = after(vec![three()]);
    for key in [
        KeyCode::Char('c'),
        KeyCode::Char('x'),
        KeyCode::Enter,
        KeyCode::F(1),
    ] {
        assert_eq!(press(&mut state, key), Wish::Nothing);
    }
    let mut released = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
    released.kind = KeyEventKind::Release;
    assert_eq!(state.key(released), Wish::Nothing);
    letter(&mut state, '?');
    assert_eq!(state.mode(), &Mode::Help);
    assert_eq!(letter(&mut state, 'q'), Wish::Nothing, "it closes the help");
    assert_eq!(letter(&mut state, 'q'), Wish::Quit);
    assert_eq!(press(&mut state, KeyCode::Esc), Wish::Quit);
}

#[test]
fn a_host_that_hangs_is_told_of_once_its_answer_is_late() {
    let (mut state, now) = after(vec![three()]);
    let later = |seconds| now + Duration::from_secs(seconds);
    assert_eq!(state.silence(later(2)), None, "it may still come");
    assert_eq!(
        state.silence(later(5)),
        Some((Duration::from_secs(5), None))
    );
    state.missed(refused()).unwrap();
    let (silent, why) = state.silence(later(6)).unwrap();
    assert_eq!(silent, Duration::from_secs(6));
    assert!(why.unwrap().contains("only shows"));
    assert_eq!(order_of(&state), [3, 4, 2], "the last that is known stays");
    state.answered(three(), later(7));
    assert_eq!(state.silence(later(8)), None);
}

#[test]
fn a_host_that_never_answered_is_an_error_and_one_that_did_is_waited_for() {
    let (mut state, now) = asked();
    let hangs = state.silence(now + Duration::from_secs(3));
    assert_eq!(hangs, Some((Duration::from_secs(3), None)));
    assert!(matches!(
        state.missed(refused()),
        Err(Failure::Refused { .. })
    ));
}
