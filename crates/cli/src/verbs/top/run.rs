//! The loop: what came is taken in, what follows is drawn.

use std::{
    io,
    process::ExitCode,
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use ratatui::crossterm::event::Event;

use super::{
    draw::{Theme, draw},
    screen::Screen,
    state::{State, Wish},
    threads::{News, Threads, signals},
};
use crate::{client::Host, failure::Failure};

/// It is drawn at least so often, since it tells how long there was no answer.
const DRAWN_EVERY: Duration = Duration::from_millis(250);
/// News that are taken in before it is drawn again.
const NEWS_AT_ONCE: usize = 64;

pub fn run(host: Host, every: Duration, has_colours: bool) -> Result<ExitCode, Failure> {
    let theme = Theme { has_colours };
    // Before the terminal is taken, so that none ends the program without giving it back.
    let signals = signals()?;
    let mut screen = Screen::take().map_err(Failure::output)?;
    let threads = Threads::start(&host, every, signals)?;
    let mut state = State::new(every, Instant::now());
    loop {
        let drawn = screen.draw(|frame| draw(frame, &state, theme, Instant::now()));
        drawn.map_err(Failure::output)?;
        let mut next = threads.news.recv_timeout(DRAWN_EVERY);
        for _ in 0..NEWS_AT_ONCE {
            let Ok(news) = next else { break };
            if let Some(code) = take(&mut state, &threads, news)? {
                return Ok(code);
            }
            next = threads
                .news
                .try_recv()
                .map_err(|_| RecvTimeoutError::Timeout);
        }
        if let Some(name) = threads.ended() {
            let ended = io::Error::other("it ended by itself");
            return Err(Failure::file("go on without the thread", name, ended));
        }
    }
}

/// What to exit with, if that is it.
fn take(state: &mut State, threads: &Threads, news: News) -> Result<Option<ExitCode>, Failure> {
    match news {
        News::Answer(answer, at) => match *answer {
            Ok(answer) => state.answered(answer, at),
            Err(failure) => state.missed(failure)?,
        },
        News::Done(act, result) => {
            state.done(&act, result);
            threads.refresh();
        }
        News::Keys(Ok(Event::Key(key))) => match state.key(key) {
            Wish::Nothing => {}
            Wish::Act(act) => threads.act(act),
            Wish::Quit => return Ok(Some(ExitCode::SUCCESS)),
        },
        // What else comes is a new size, which drawing looks at.
        News::Keys(Ok(_)) => {}
        News::Keys(Err(error)) => {
            return Err(Failure::file("read keys of", "the terminal", error));
        }
        News::Signal(status) => return Ok(Some(ExitCode::from(status))),
    }
    Ok(None)
}
