//! The screen, as a terminal of a size would have it.

use std::collections::BTreeSet;

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::KeyCode,
    style::{Color, Modifier},
};

use super::{
    keys::{letter, press},
    *,
};
use crate::{
    failure::Failure,
    verbs::top::{
        draw::{Theme, draw},
        state::Wish,
        text,
    },
};

const PLAIN: Theme = Theme { has_colours: false };
const COLOURED: Theme = Theme { has_colours: true };

fn buffer(state: &State, now: Instant, columns: u16, rows: u16, theme: Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal
        .draw(|frame| draw(frame, state, theme, now))
        .unwrap();
    terminal.backend().buffer().clone()
}

/// Its rows, without the space at their ends.
fn rows(state: &State, now: Instant, columns: u16, rows: u16) -> Vec<String> {
    let buffer = buffer(state, now, columns, rows, PLAIN);
    let row = |y| {
        let mut text = String::new();
        let mut x = 0;
        while x < columns {
            let symbol = buffer[(x, y)].symbol();
            text.push_str(symbol);
            // A wide letter has the cell behind it, too.
            x += text::width(symbol).max(1) as u16;
        }
        text.trim_end().to_owned()
    };
    (0..rows).map(row).collect()
}

#[track_caller]
fn assert_rows(found: Vec<String>, expected: &str) {
    let expected: Vec<&str> = expected.trim_matches('\n').lines().collect();
    assert_eq!(found, expected, "\n{}\n", found.join("\n"));
}

fn counted(mut node: Value, enqueued: u64, delivered: u64) -> Value {
    node["enqueued"]["hints"] = enqueued.into();
    node["delivered"]["hints"] = delivered.into();
    node
}

/// Three nodes in different states, with rates.
fn three() -> (State, Instant) {
    let nodes = |at: u64| {
        let mut down = waiting(2, 1_200 + at * 34);
        down["name"] = "replica-2".into();
        down["oldest_age_ms"] = 192_000.into();
        down["last_error"] = "the node may take it later: connection refused (os error 111)".into();
        let mut replaying = waiting(3, 900 - at * 300);
        replaying["name"] = "replica-3".into();
        replaying["state"] = "replaying".into();
        replaying["oldest_age_ms"] = 61_000.into();
        replaying["caught_up_in_ms"] = 4_000.into();
        vec![
            counted(down, at * 34, 0),
            counted(replaying, 0, at * 300),
            counted(node(11, json!({ "name": "replica-11" })), at, at),
        ]
    };
    let answers = (0..3).map(|at| answer(at, nodes(at)));
    after(answers.collect())
}

#[test]
fn a_wide_screen_has_all_columns_and_the_backlog_of_the_node_and_of_all() {
    let (state, now) = three();
    let expected = r#"
It serves, and replay runs.
pending 1,568 (1.53 KiB)  oldest 3m 12s  in 35.0/s  out 301/s  done in -  nodes: 1 caught up, 1 down, 1 replaying
disk: log 1.50 MiB, free 5.00 GiB (reserve 128.00 MiB)  dead letters 2  lost 3  in flight 7
node          state        pending      bytes   oldest    in/s   out/s  done in cause
2 replica-2   down           1,268  12.38 KiB   3m 12s    34.0       0        - connection refused (os error 111)
3 replica-3   replaying        300   2.93 KiB    1m 1s       0     300       4s
11 replica-11 caught up          0        0 B        -     1.0     1.0        -






2 replica-2: connection refused (os error 111)

at most 1,268 in 2s: backlog of 2 replica-2                       at most 2,100 in 2s: backlog of all nodes
                                                             ▇██                                                               █▅▂
                                                             ███                                                               ███
                                                             ███                                                               ███
?:help q:quit s:order (pending) p:pause r:resume j/k:select
"#;
    assert_rows(rows(&state, now, 130, 20), expected);
}

#[test]
fn a_screen_of_80_columns_leaves_out_what_is_worth_least() {
    let (state, now) = three();
    let expected = "
It serves, and replay runs.
pending 1,568 (1.53 KiB)  oldest 3m 12s  in 35.0/s  out 301/s  done in -  nodes…
disk: log 1.50 MiB, free 5.00 GiB (reserve 128.00 MiB)  dead letters 2  lost 3 …
node          state        pending      bytes   oldest    in/s   out/s  done in
2 replica-2   down           1,268  12.38 KiB   3m 12s    34.0       0        -
3 replica-3   replaying        300   2.93 KiB    1m 1s       0     300       4s
11 replica-11 caught up          0        0 B        -     1.0     1.0        -


2 replica-2: connection refused (os error 111)

?:help q:quit s:order (pending) p:pause r:resume j/k:select
";
    assert_rows(rows(&state, now, 80, 12), expected);
}

#[test]
fn a_narrow_and_low_screen_has_the_nodes_with_what_waits() {
    let (state, now) = three();
    let expected = "
It serves, and replay runs.
pending 1,568 (1.53 KiB)  oldest 3m 12s…
node       state        pending   oldest
2 replica… down           1,268   3m 12s
3 replica… replaying        300    1m 1s
11 replic… caught up          0        -


?:help q:quit s:order (pending) p:pause…
";
    assert_rows(rows(&state, now, 40, 9), expected);
    let expected = "
It serves, and repl…
node       state
2 replica… down
3 replica… replaying
?:help q:quit s:ord…
";
    assert_rows(rows(&state, now, 20, 5), expected);
}

#[test]
fn a_screen_that_is_too_small_says_so() {
    let (state, now) = three();
    let expected = ["too small: 20x5 at", "least; q quits", "", ""];
    assert_eq!(rows(&state, now, 19, 4), expected);
    assert_eq!(rows(&state, now, 1, 1), ["t"]);
}

#[test]
fn what_is_asked_and_what_was_refused_is_shown_whole() {
    let (mut state, now) = three();
    letter(&mut state, 'p');
    let asked = rows(&state, now, 40, 12);
    let asked = asked[9..].join(" ");
    assert!(
        asked.contains("pause node 2 replica-2 until the host restarts? y/n"),
        "{asked}"
    );
    let Wish::Act(act) = letter(&mut state, 'y') else {
        panic!("nothing asked for");
    };
    assert_eq!(rows(&state, now, 40, 12)[11], "pausing node 2 replica-2");
    let refused = Failure::Refused {
        status: 403,
        kind: "urn:hinted-handoff:read-only".to_owned(),
        stored: Vec::new(),
        detail: "this interface only shows; the host opens it with Settings::read_only = false"
            .to_owned(),
    };
    state.done(&act, Err(refused));
    for (columns, height) in [(40, 12), (30, 24), (100, 24)] {
        let all = rows(&state, now, columns, height).join(" ");
        assert!(all.contains("the host refuses (403): this"), "{all}");
        assert!(all.contains("read_only = false"), "{all}");
    }
}

#[test]
fn the_help_names_every_key() {
    let (mut state, now) = three();
    letter(&mut state, '?');
    let all = rows(&state, now, 60, 14).join("\n");
    for key in ["q Esc ^C", "j Down", "k Up", "\ns ", "\np ", "\nr ", "?"] {
        assert!(all.contains(key), "{key}: {all}");
    }
    assert!(
        !all.contains("replica-2"),
        "it is in the place of the table"
    );
}

#[test]
fn a_host_that_hangs_goes_away_or_does_not_serve_is_told_of_first() {
    let (mut state, now) = three();
    let later = now + Duration::from_secs(5);
    assert_eq!(rows(&state, later, 80, 20)[0], "no answer for 5s");
    let gone = Failure::Unreachable {
        socket: "/run/mydb/hints.sock".into(),
        source: std::io::ErrorKind::ConnectionRefused.into(),
    };
    state.missed(gone).unwrap();
    let told = rows(&state, later, 120, 20);
    assert!(
        told[0].starts_with("no answer for 5s: nobody answers at /run/mydb"),
        "{}",
        told[0]
    );
    assert!(
        told.iter().any(|it| it.contains("1,268")),
        "what was known stays"
    );
    let mut failed = answer(5, vec![waiting(2, 1)]);
    failed.status.health = "failed".to_owned();
    failed.status.text = format!(
        "could not fsync the log: {}. Nothing is accepted.",
        "x".repeat(60)
    );
    state.answered(failed, later);
    let told = rows(&state, later, 80, 20);
    let told = told[..3].join(" ");
    assert!(told.starts_with("could not fsync"), "{told}");
    assert!(told.contains("Nothing is accepted."), "{told}");
}

#[test]
fn a_pause_of_all_and_a_host_that_only_shows_are_told_of() {
    let mut paused = answer(5, vec![waiting(2, 1)]);
    paused.status.paused_all = Some(hinted_handoff::Pause::Lasting);
    paused.status.read_only = true;
    let (state, now) = after(vec![paused]);
    let told = rows(&state, now, 80, 20);
    let serves = "It serves, and replay is paused for all nodes.";
    assert_eq!(told[0], serves);
    let coloured = buffer(&state, now, 80, 20, COLOURED);
    assert_eq!(coloured[(0, 0)].fg, Color::Yellow);
    assert!(
        told[2].starts_with("ALL PAUSED, over restarts too  read-only  disk"),
        "{}",
        told[2]
    );
    // Each by itself.
    let paused = |of: u64| node(of, json!({ "state": "paused", "paused": "lasting" }));
    let (state, now) = after(vec![answer(5, vec![paused(2), paused(3)])]);
    assert_eq!(rows(&state, now, 80, 20)[0], serves);
    let (state, now) = after(vec![answer(5, vec![paused(2), waiting(3, 1)])]);
    assert_eq!(rows(&state, now, 80, 20)[0], "It serves, and replay runs.");
}

#[test]
fn the_table_goes_with_the_choice_through_nodes_that_do_not_fit() {
    let nodes = (0..1_000).map(|at| waiting(at, 5_000 - at)).collect();
    let (mut state, now) = after(vec![answer(1, nodes)]);
    for (key, shown) in [(KeyCode::Home, 0), (KeyCode::End, 999), (KeyCode::Up, 998)] {
        press(&mut state, key);
        let all = rows(&state, now, 80, 24);
        let first = format!("{shown} ");
        assert!(all.iter().any(|it| it.starts_with(&first)), "{all:?}");
        let reversed = buffer(&state, now, 80, 24, PLAIN);
        let is_chosen = |y: u16| reversed[(0, y)].modifier.contains(Modifier::REVERSED);
        let chosen: Vec<_> = (0..24).filter(|y| is_chosen(*y)).collect();
        assert_eq!(chosen.len(), 1, "{chosen:?}");
        assert!(all[usize::from(chosen[0])].starts_with(&first), "{all:?}");
    }
}

/// Names that terminals draw in their own ways, or obey.
const NAMES: [&str; 8] = [
    "\u{1b}[2J\u{1b}[31mred\u{7}",
    "line\r\nline\ttab\u{9b}2J",
    "数据库副本",
    "e\u{301}e\u{301}",
    "a\u{202e}b\u{2066}c\u{200f}",
    "👨\u{200d}👩\u{200d}👧 ☁\u{fe0f}",
    "x\u{0}\u{7f}\u{85}y",
    "数据库副本数据库副本数据库副本数据库副本数据库副本数据库副本数据库副本",
];

fn with_names() -> (State, Instant) {
    let nodes = NAMES.iter().zip(1..).map(|(name, at)| {
        let mut it = waiting(at, 4_242);
        it["name"] = (*name).into();
        it["last_error"] = (*name).into();
        it
    });
    let mut answer = answer(1, nodes.collect());
    answer.status.text = NAMES.concat();
    after(vec![answer])
}

#[test]
fn no_name_breaks_the_screen() {
    let (mut state, now) = with_names();
    for (columns, height) in [(130, 30), (80, 24), (53, 24), (28, 12)] {
        letter(&mut state, 'j');
        let all = rows(&state, now, columns, height);
        for row in &all {
            assert!(text::width(row) <= usize::from(columns), "{row:?}");
            let obeyed = row.chars().find(|it| {
                it.is_control()
                    || ('\u{200b}'..='\u{206f}').contains(it) && *it != '…'
                    || *it == '\u{fe0f}'
            });
            assert_eq!(obeyed, None, "{row:?}");
        }
        // All numbers end in one column.
        let ends: Vec<usize> = all
            .iter()
            .filter_map(|row| Some(text::width(row.split_once("4,242")?.0)))
            .collect();
        let most = ends.iter().filter(|it| *it == &ends[0]).count();
        if columns >= 53 {
            assert!(most >= NAMES.len(), "{ends:?} in {all:?}");
        }
    }
}

#[test]
fn no_size_of_a_terminal_is_an_error() {
    let most = waiting(5, u64::MAX);
    let mut huge = most.clone();
    huge["pending"]["bytes"] = u64::MAX.into();
    huge["oldest_age_ms"] = u64::MAX.into();
    huge["caught_up_in_ms"] = u64::MAX.into();
    let (many, now) = with_names();
    let mut asking = three().0;
    letter(&mut asking, 'p');
    let mut help = three().0;
    letter(&mut help, '?');
    let late = now + Duration::from_secs(1_000_000_000);
    let states = [
        (asked().0, now),
        (after(vec![answer(1, vec![])]).0, now),
        (
            after(vec![answer(1, vec![huge.clone()]), answer(2, vec![huge])]).0,
            now,
        ),
        (many, now),
        (asking, now),
        (help, now),
        (three().0, late),
    ];
    // All that parts and columns come and go at, and a few beyond.
    let columns = (0..=130).chain([131, 159, 199, 200, 400]);
    for columns in columns {
        for rows in (0..=26).chain([40, 60]) {
            let (state, now) = &states[usize::from(columns + rows) % states.len()];
            buffer(state, *now, columns, rows, COLOURED);
        }
    }
    for (state, now) in &states {
        for (columns, rows) in [(0, 0), (0, 9), (9, 0), (1, 1), (20, 5), (21, 6), (200, 60)] {
            buffer(state, *now, columns, rows, COLOURED);
        }
    }
}

#[test]
fn a_figure_that_is_too_large_is_cut_where_one_sees_it() {
    let mut huge = waiting(5, 123_456_789_012);
    huge["pending"]["bytes"] = u64::MAX.into();
    let (state, now) = after(vec![answer(1, vec![huge])]);
    let all = rows(&state, now, 80, 12).join("\n");
    assert!(all.contains("123,456,7…"), "{all}");
}

fn colours(buffer: &Buffer) -> BTreeSet<String> {
    let cells = buffer.content().iter();
    let colours = cells
        .flat_map(|it| [it.fg, it.bg])
        .filter(|it| *it != Color::Reset);
    colours.map(|it| it.to_string()).collect()
}

#[test]
fn states_have_colours_unless_there_are_to_be_none() {
    let (mut state, now) = three();
    assert_eq!(
        colours(&buffer(&state, now, 80, 24, PLAIN)),
        BTreeSet::new()
    );
    let found = colours(&buffer(&state, now, 80, 24, COLOURED));
    assert_eq!(found, ["Green", "Red"].map(str::to_owned).into());
    letter(&mut state, 'p');
    assert_eq!(
        colours(&buffer(&state, now, 80, 24, PLAIN)),
        BTreeSet::new()
    );
    let found = colours(&buffer(&state, now, 80, 24, COLOURED));
    assert_eq!(found, ["Green", "Red", "Yellow"].map(str::to_owned).into());
}
