//! What may wait: for the host, for keys, for signals. Each has a thread, and tells the loop.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ratatui::crossterm::{
    event::{self, Event},
    terminal::disable_raw_mode,
};
use serde_json::{Value, json};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
};

use super::{
    answer::Answer,
    state::{Act, Verb},
};
use crate::{
    client::{Client, Host},
    failure::Failure,
};

/// News that wait for the loop. Those who have more wait with it.
const NEWS_MAX: usize = 16;
/// How long the loop has to end after a signal. A terminal that takes no output keeps it.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// What a shell adds to the number of the signal that ended a program.
const SIGNALLED: i32 = 128;

/// What the loop hears of.
pub enum News {
    Answer(Box<Result<Answer, Failure>>, Instant),
    Done(Act, Result<(), Failure>),
    Keys(io::Result<Event>),
    /// What to exit with.
    Signal(u8),
}

/// Signals that end the program, kept from now on until the loop hears of them.
pub fn signals() -> Result<Signals, Failure> {
    let signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]);
    signals.map_err(|it| Failure::file("listen to", "signals", it))
}

/// The threads, as the loop has them. They end with the process: what they wait for cannot be told
/// to end.
pub struct Threads {
    pub news: Receiver<News>,
    refresh: SyncSender<()>,
    acts: SyncSender<Act>,
    all: Vec<JoinHandle<()>>,
}

impl Threads {
    pub fn start(host: &Host, every: Duration, mut signals: Signals) -> Result<Threads, Failure> {
        let (tell, news) = sync_channel(NEWS_MAX);
        let (refresh, refreshed) = sync_channel(1);
        let (acts, asked) = sync_channel(1);
        let mut all = Vec::new();
        let (client, to) = (Client::new(host)?, tell.clone());
        all.push(start("watch", move || {
            watch(&client, every, &refreshed, &to)
        })?);
        let (client, to) = (Client::new(host)?, tell.clone());
        all.push(start("act", move || act(&client, &asked, &to))?);
        let to = tell.clone();
        all.push(start("keys", move || keys(&to))?);
        all.push(start("signals", move || end_by(&mut signals, &tell))?);
        Ok(Threads {
            news,
            refresh,
            acts,
            all,
        })
    }

    /// Has the host do something. One thing at a time.
    pub fn act(&self, act: Act) {
        drop(self.acts.try_send(act));
    }

    /// Has the host asked at once, which it is already if that was said before.
    pub fn refresh(&self) {
        let _ = self.refresh.try_send(());
    }

    /// The one that ended, which none does by itself.
    pub fn ended(&self) -> Option<&str> {
        let ended = self.all.iter().find(|it| it.is_finished())?;
        Some(ended.thread().name().unwrap_or_default())
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|source| Failure::file("start", "a thread", source))
}

fn watch(client: &Client, every: Duration, refreshed: &Receiver<()>, to: &SyncSender<News>) {
    loop {
        let began = Instant::now();
        let answer = Box::new(Answer::ask(client));
        if to.send(News::Answer(answer, Instant::now())).is_err() {
            return;
        }
        let left = every.saturating_sub(began.elapsed());
        if refreshed.recv_timeout(left) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

fn act(client: &Client, asked: &Receiver<Act>, to: &SyncSender<News>) {
    for act in asked {
        let (verb, body) = match act.verb {
            Verb::Pause => ("pause", json!({ "pause": "until_restart" })),
            Verb::Resume => ("resume", json!({})),
        };
        let path = format!("/v1/nodes/{}/{verb}", act.node);
        let result = client.post::<Value>(&path, body).map(drop);
        if to.send(News::Done(act, result)).is_err() {
            return;
        }
    }
}

/// A key that is half there, and a terminal that is gone, keep a reader of keys for as long as they
/// like.
fn keys(to: &SyncSender<News>) {
    loop {
        let key = event::read();
        let is_over = key.is_err();
        if to.send(News::Keys(key)).is_err() || is_over {
            return;
        }
    }
}

fn end_by(signals: &mut Signals, to: &SyncSender<News>) {
    let Some(signal) = signals.forever().next() else {
        return;
    };
    let status = SIGNALLED + signal;
    drop(to.try_send(News::Signal(u8::try_from(status).unwrap_or(u8::MAX))));
    thread::sleep(ENDS_WITHIN);
    // The loop is kept by the terminal, so nothing can be written to it either.
    drop(disable_raw_mode());
    std::process::exit(status);
}
