//! A panic gives the terminal back and is told there, whichever thread it is of. The program has
//! none that could be asked for, so this test program takes a terminal itself, as its own child.

use std::thread;

use crate::verbs::top::screen::Screen;

#[path = "../../../../tests/terminal/mod.rs"]
mod terminal;

const WHERE: &str = "HH_TOP_PANIC";

/// Does nothing unless it is the child.
#[test]
fn on_a_terminal() {
    let Ok(whose) = std::env::var(WHERE) else {
        return;
    };
    let mut screen = Screen::take().unwrap();
    screen
        .draw(|frame| frame.render_widget("drawn-before", frame.area()))
        .unwrap();
    match whose.as_str() {
        "the loop" => panic!("broken in the loop"),
        _ => drop(thread::spawn(|| panic!("broken in a thread")).join()),
    }
}

#[test]
fn a_panic_gives_the_terminal_back_and_is_told_there() {
    let test = std::env::current_exe().unwrap();
    for (whose, told) in [("the loop", "in the loop"), ("a thread", "in a thread")] {
        let script = "printf 'before\\n'; read line; \
                      \"$0\" --exact verbs::top::tests::panics::on_a_terminal --nocapture; \
                      printf 'ended.\\n'; read line";
        let mut command = terminal::program("sh");
        command.args(["-c", script]);
        command.arg(&test);
        command.env(WHERE, whose);
        command.env("RUST_BACKTRACE", "0");
        let mut terminal = terminal::Terminal::run(command, 120, 24);
        terminal.until_shows("before");
        let before = terminal.modes();
        terminal.keys("\n");
        terminal.until_shows("ended.");
        assert!(terminal.text().contains(told), "{}", terminal.text());
        assert!(
            !terminal.text().contains("drawn-before"),
            "{}",
            terminal.text()
        );
        assert!(
            terminal.bytes().contains("drawn-before"),
            "{}",
            terminal.text()
        );
        assert_eq!(terminal.is_taken(), (false, false), "{whose}");
        assert_eq!(terminal.modes(), before, "{whose}");
    }
}
