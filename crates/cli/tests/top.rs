//! `hh top` in a terminal, at hosts that run, end, hang and refuse: what its user sees, what its
//! keys do, and what it leaves behind.

mod hosts;
mod stores;
mod terminal;

use std::{
    os::unix::net::UnixListener, path::Path, sync::atomic::Ordering::Relaxed, thread,
    time::Duration,
};

use hinted_handoff::{NodeState, Stats};
use hinted_handoff_admin::Settings;
use hosts::{AWAY, Between, Host, WELL};
use portable_pty::CommandBuilder;
use stores::{code, err, hh};
use terminal::{Terminal, has_colours};

/// The program, asking often.
fn top(socket: &Path, arguments: &[&str]) -> CommandBuilder {
    let mut command = terminal::program(env!("CARGO_BIN_EXE_hh"));
    command.args([&["top", "--every", "100ms"], arguments].concat());
    command.env("HH_SOCKET", socket);
    command
}

fn at(host: &Host) -> Terminal {
    Terminal::run(top(&host.socket(), &[]), 120, 24)
}

/// The program below a shell that tells how it ended, and ends after a line; and how the terminal
/// treated what is typed before.
fn below_shell(socket: &Path, arguments: &str) -> (Terminal, String) {
    let program = env!("CARGO_BIN_EXE_hh");
    let script = format!(
        "trap : HUP INT QUIT TERM; printf before; read line; {program} top --every 100ms \
         {arguments}; printf 'ended with %s.\\n' $?; read line"
    );
    let mut command = terminal::program("sh");
    command.args(["-c", &script]);
    command.env("HH_SOCKET", socket);
    let mut terminal = Terminal::run(command, 120, 24);
    terminal.until_shows("before");
    let modes = terminal.modes();
    terminal.keys("\n");
    (terminal, modes)
}

fn state_of(stats: &Stats, node: hinted_handoff::NodeId) -> Option<NodeState> {
    let node = stats.nodes.iter().find(|it| it.node == node);
    node.map(|it| it.state)
}

#[test]
fn it_shows_what_waits_for_a_node_and_why_as_that_changes() {
    let host = Host::start();
    host.hint(AWAY, &["one", "two"]);
    let mut terminal = at(&host);
    terminal.until_shows("2 replica-2");
    terminal.until_shows("scripted: down");
    terminal.until_shows("pending 2 (6 B)");
    host.hint(AWAY, &["three"]);
    terminal.until_shows("pending 3 (11 B)");
    terminal.keys("s");
    terminal.until_shows("s:order (oldest)");
    terminal.keys("?");
    terminal.until_shows("another order");
    terminal.keys("?");
    terminal.until_shows("2 replica-2");
    terminal.keys("q");
    assert_eq!(terminal.ended().exit_code(), 0);
}

#[test]
fn a_pause_by_key_holds_replay_in_the_host_and_a_resume_lets_it_go_on() {
    let host = Host::start();
    host.ok(&["direct", "hold", "3", "--unknown"]);
    host.hint(WELL, &["first"]);
    host.ok(&["drain", "3"]);
    host.hint(AWAY, &["deeper"]);
    let mut terminal = at(&host);
    terminal.until_shows("backlog of 2 replica-2");
    terminal.keys("j");
    terminal.until_shows("backlog of 3 replica-3");
    terminal.keys("p");
    terminal.until_shows("pause node 3 replica-3 until the host restarts? y/n");
    terminal.keys("n");
    terminal.until_shows("p:pause");
    assert_ne!(
        state_of(&host.handoff.stats(), WELL),
        Some(NodeState::Paused)
    );
    terminal.keys("py");
    terminal.until_shows("node 3 replica-3 is paused until the host restarts");
    let stats = host.handoff.stats();
    assert_eq!(state_of(&stats, WELL), Some(NodeState::Paused));
    assert_ne!(
        state_of(&stats, AWAY),
        Some(NodeState::Paused),
        "the other one is not"
    );
    host.hint(WELL, &["held"]);
    terminal.until(|it| {
        it.lines()
            .any(|row| row.contains("replica-3") && row.contains("paused"))
    });
    assert_eq!(host.pending(WELL), 1);
    terminal.keys("ry");
    terminal.until_shows("node 3 replica-3 is resumed");
    assert_eq!(host.ok(&["drain", "3"]), "delivered\n");
    terminal.keys("q");
    assert_eq!(terminal.ended().exit_code(), 0);
}

#[test]
fn a_host_that_only_shows_refuses_and_says_why() {
    let host = Host::with(Settings::default());
    host.hint(AWAY, &["one"]);
    let mut terminal = at(&host);
    terminal.until_shows("read-only");
    terminal.until_shows("backlog of 2 replica-2");
    terminal.keys("py");
    terminal.until_shows("the host refuses (403)");
    terminal.until_shows("read_only = false");
    assert_ne!(
        state_of(&host.handoff.stats(), AWAY),
        Some(NodeState::Paused)
    );
    terminal.keys("q");
    assert_eq!(terminal.ended().exit_code(), 0);
}

#[test]
fn keys_that_end_it_leave_the_terminal_as_it_was() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    for key in ["q", "\u{1b}", "\u{3}"] {
        let (mut terminal, before) = below_shell(&host.socket(), "");
        terminal.until_shows("2 replica-2");
        assert_eq!(terminal.is_taken(), (true, true));
        assert_ne!(terminal.modes(), before, "keys come one by one");
        terminal.keys(key);
        terminal.until_shows("before\nended with 0.");
        assert_eq!(terminal.is_taken(), (false, false), "{key:?}");
        assert_eq!(terminal.modes(), before, "{key:?}");
        assert!(
            !terminal.text().contains("replica-2"),
            "{}",
            terminal.text()
        );
    }
}

#[test]
fn signals_end_it_and_leave_the_terminal_as_it_was() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    for (signal, status) in [("HUP", 129), ("INT", 130), ("QUIT", 131), ("TERM", 143)] {
        let (terminal, before) = below_shell(&host.socket(), "");
        terminal.until_shows("2 replica-2");
        terminal.signal(signal);
        terminal.until_shows(&format!("before\nended with {status}."));
        assert_eq!(terminal.is_taken(), (false, false), "{signal}");
        assert_eq!(terminal.modes(), before, "{signal}");
    }
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    let mut terminal = at(&host);
    terminal.until_shows("2 replica-2");
    terminal.hang_up();
    assert!(!terminal.ended().success());
}

#[test]
fn a_terminal_that_takes_no_output_does_not_keep_it_from_ending() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    let mut terminal = at(&host);
    terminal.until_shows("2 replica-2");
    terminal.stop_reading();
    // More than a terminal has room for.
    for at in 0..400 {
        terminal.resize(200, 50 + at % 2);
        thread::sleep(Duration::from_millis(2));
    }
    terminal.signal("TERM");
    assert_eq!(terminal.ended().exit_code(), 143);
}

#[test]
fn the_end_of_the_host_is_shown_and_its_return_too() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    let mut terminal = at(&host);
    terminal.until_shows("2 replica-2");
    let gone = host.socket().with_extension("gone");
    std::fs::rename(host.socket(), &gone).unwrap();
    terminal.until_shows("no answer for");
    terminal.until_shows("nobody answers at");
    terminal.until_shows("2 replica-2");
    std::fs::rename(&gone, host.socket()).unwrap();
    terminal.until(|it| !it.contains("no answer for"));
    let (runtime, handoff) = (&host.runtime, host.handoff.clone());
    runtime.block_on(handoff.shutdown()).unwrap();
    terminal.until_shows("shut down");
    terminal.keys("q");
    assert_eq!(terminal.ended().exit_code(), 0);
}

/// For how many seconds there was no answer, as it is told.
fn silence(screen: &str) -> Option<u64> {
    let (_, silence) = screen.split_once("no answer for ")?;
    silence.split_once('s')?.0.parse().ok()
}

#[test]
fn a_host_that_hangs_is_told_of_and_keys_are_answered_meanwhile() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    let between = Between::stand(&host);
    let patient = ["--answer-within", "1h"];
    let mut terminal = Terminal::run(top(&between.socket(), &patient), 120, 24);
    terminal.until_shows("2 replica-2");
    between.hangs.store(true, Relaxed);
    terminal.until(|it| silence(it).is_some());
    let first = silence(&terminal.text());
    terminal.until(|it| silence(it) > first);
    terminal.keys("?");
    terminal.until_shows("another order");
    terminal.keys("?py");
    terminal.until_shows("pausing node 2 replica-2");
    terminal.keys("p");
    terminal.until_shows("the host has not answered yet");
    terminal.keys("q");
    assert_eq!(terminal.ended().exit_code(), 0);
}

#[test]
fn a_host_that_hangs_from_the_beginning_is_told_of_and_is_an_error_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("hh.sock");
    let _hanging = UnixListener::bind(&socket).unwrap();
    let patient = ["--answer-within", "1h"];
    let mut terminal = Terminal::run(top(&socket, &patient), 120, 24);
    terminal.until_shows("no answer for");
    terminal.keys("q");
    assert_eq!(terminal.ended().exit_code(), 0);

    let (terminal, _) = below_shell(&socket, "--answer-within 200ms");
    terminal.until_shows("within 200ms");
    terminal.until_shows("ended with 3.");
    assert_eq!(terminal.is_taken(), (false, false));
}

#[test]
fn a_socket_that_nobody_serves_is_an_error_in_the_terminal_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut terminal, before) = below_shell(&dir.path().join("none"), "");
    terminal.until_shows("hh: nobody answers at");
    terminal.until_shows("ended with 3.");
    assert_eq!(terminal.is_taken(), (false, false));
    assert_eq!(terminal.modes(), before);
    terminal.keys("\n");
    terminal.ended();
}

#[test]
fn half_a_key_keeps_neither_the_figures_nor_the_end() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    let mut terminal = at(&host);
    terminal.until_shows("pending 1 (3 B)");
    terminal.keys("\u{1b}[");
    host.hint(AWAY, &["two"]);
    terminal.until_shows("pending 2 (6 B)");
    terminal.signal("TERM");
    assert_eq!(terminal.ended().exit_code(), 143);
}

#[test]
fn the_terminal_may_become_any_size_and_back() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    let mut terminal = at(&host);
    terminal.until_shows("2 replica-2");
    for (columns, rows, shown) in [
        (19, 4, "too small"),
        (1, 1, "t"),
        (20, 5, "2 replica…"),
        (200, 60, "scripted: down"),
        (40, 12, "2 replica"),
        (120, 24, "backlog of 2 replica-2"),
    ] {
        terminal.resize(columns, rows);
        terminal.until_shows(shown);
    }
    terminal.keys("q");
    assert_eq!(terminal.ended().exit_code(), 0);
}

#[test]
fn colours_are_shown_unless_no_color_says_otherwise() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    for (no_color, is_coloured) in [(None, true), (Some("1"), false)] {
        let mut command = top(&host.socket(), &[]);
        if let Some(it) = no_color {
            command.env("NO_COLOR", it);
        }
        let mut terminal = Terminal::run(command, 120, 24);
        terminal.until_shows("backlog of 2 replica-2");
        terminal.keys("q");
        assert_eq!(terminal.ended().exit_code(), 0);
        assert_eq!(has_colours(&terminal.bytes()), is_coloured, "{no_color:?}");
    }
}

#[test]
fn where_it_cannot_draw_it_says_what_else_there_is() {
    let host = Host::start();
    let piped = host.run(&["top"]);
    assert_eq!(code(&piped), 2);
    for other in ["hh nodes", "hh status"] {
        assert!(err(&piped).contains(other), "{}", err(&piped));
    }
    for (arguments, term) in [("--json", "xterm"), ("</dev/null", "xterm"), ("", "dumb")] {
        let script = format!(
            "TERM={term} {} top {arguments}; printf 'ended with %s.\\n' $?; read line",
            env!("CARGO_BIN_EXE_hh")
        );
        let mut command = terminal::program("sh");
        command.args(["-c", &script]);
        command.env("HH_SOCKET", host.socket());
        let terminal = Terminal::run(command, 120, 24);
        terminal.until_shows("ended with 2.");
        terminal.until_shows("hh nodes");
    }
}

#[test]
fn what_cannot_be_meant_by_its_arguments_is_refused() {
    for (arguments, said) in [
        (&["--every", "99ms"][..], "at least 100ms"),
        (&["--every", "often"], "often"),
        (&[], "--socket"),
    ] {
        let mut command = hh(&[&["top"], arguments].concat());
        let output = command.env_remove("HH_SOCKET").output().unwrap();
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(err(&output).contains(said), "{}", err(&output));
    }
}
