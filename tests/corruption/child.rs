//! The child: opens a damaged store and tells what it finds. Whatever sled does to its process, the
//! parent lives.

use std::{
    error::Error,
    ops::ControlFlow,
    path::Path,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use hinted_handoff::{
    Config, NodeId, OnUnopenable, OpenError,
    internals::{Leave, Peek, PeekLimits, Reader, Store},
};

use crate::{
    common::hint,
    report::{Fact, Hint},
    template::NODES,
};

/// Longer than the store's own watchdog: an answer that does not come is a broken promise.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// What a child is to do with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Open, append a hint for every node, take about half of what is there, close.
    First,
    /// Open, take everything, close.
    Rest,
    /// Open with leave to start empty, append and take a hint, close.
    StartEmpty,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::First => "first",
            Role::Rest => "rest",
            Role::StartEmpty => "start-empty",
        }
    }
}

/// If this process is a child, does its work. Call it first.
pub fn as_child() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [word, role, dir] = arguments.as_slice() else {
        return None;
    };
    let roles = [Role::First, Role::Rest, Role::StartEmpty];
    let role = roles.into_iter().find(|it| it.name() == role)?;
    if word != "child" {
        return None;
    }
    work(role, Path::new(dir));
    Some(ExitCode::SUCCESS)
}

fn tell(fact: &Fact) {
    println!("{fact}");
}

fn work(role: Role, dir: &Path) {
    let config = Config {
        min_free_disk: 0,
        commit_timeout: Duration::from_secs(5),
        on_unopenable: match role {
            Role::StartEmpty => OnUnopenable::StartEmpty,
            Role::First | Role::Rest => OnUnopenable::Fail,
        },
        ..Config::new(dir)
    };
    let store = match Store::open(&config, Box::new(|_| {})) {
        Ok(store) => store,
        Err(error) => {
            return tell(&Fact::Refused {
                kind: kind(&error).to_owned(),
                text: chain(&error),
            });
        }
    };
    tell(&Fact::Opened {
        store: store.id().to_string(),
    });
    let stats = store.stats();
    if let Some(path) = stats.moved_aside {
        let path = path.display().to_string();
        tell(&Fact::MovedAside { path });
    }
    let flow = use_it(role, &store);
    if let ControlFlow::Break(text) = flow {
        tell(&Fact::Failed { text });
    }
    for damage in store.stats().damage {
        tell(&Fact::Damage {
            queue: damage.queue.0,
            lost: damage.lost.map(|(first, last)| (first.0, last.0)),
            what: damage.what,
        });
    }
    match store.close() {
        Ok(()) => tell(&Fact::Closed),
        Err(error) => tell(&Fact::Failed {
            text: format!("close: {}", chain(&error)),
        }),
    }
}

fn use_it(role: Role, store: &Store) -> ControlFlow<String> {
    if role != Role::Rest {
        for node in NODES {
            append(store, node)?;
        }
    }
    for node in NODES {
        // Half of each node is left for the next life, so that it is seen whether the cursor that
        // was moved over damage holds.
        let pending = store
            .nodes()
            .into_iter()
            .find(|(id, _)| id.0 == node)
            .map_or(0, |(_, queues)| queues.pending().hints);
        let take = match role {
            Role::First => pending / 2,
            Role::Rest | Role::StartEmpty => u64::MAX,
        };
        drain(store, node, take)?;
    }
    ControlFlow::Continue(())
}

fn append(store: &Store, node: u64) -> ControlFlow<String> {
    let (sender, told) = mpsc::channel();
    let done = Box::new(move |result| drop(sender.send(result)));
    let new = hint(1, format!("new for {node}"));
    store.append(NodeId(node), new.clone(), done);
    let id = answer("append", told.recv_timeout(ANSWER_WITHIN))?;
    let hint = Hint::of_new(id, &new);
    tell(&Fact::Appended { node, hint });
    ControlFlow::Continue(())
}

/// Takes up to `take` hints of the node, a few at a time, and skips what is damaged.
fn drain(store: &Store, node: u64, take: u64) -> ControlFlow<String> {
    let mut reader = Reader::default();
    let mut left = take;
    while left > 0 {
        let limits = PeekLimits {
            hints: left.min(7) as usize,
            payload_bytes: 1 << 20,
        };
        let Ok(peeked) = store.peek(&mut reader, NodeId(node), limits) else {
            reopened(store)?;
            continue;
        };
        match peeked {
            Peek::Empty => break,
            Peek::Damaged(place) => {
                let (sender, told) = mpsc::channel();
                store.scrub(NodeId(node), place.queue, move |result| {
                    drop(sender.send(result));
                });
                match told.recv_timeout(ANSWER_WITHIN) {
                    Ok(Err(_)) => reopened(store)?,
                    told => answer("scrub", told)?,
                }
            }
            Peek::Hints(hints) => {
                for hint in &hints {
                    let hint = Hint::of_peeked(hint);
                    tell(&Fact::Delivered { node, hint });
                }
                left = left.saturating_sub(hints.len() as u64);
                let Some(last) = hints.last() else {
                    return ControlFlow::Break("peek: no hints and not empty".to_owned());
                };
                if store
                    .ack(NodeId(node), last.mark, Leave::Delivered)
                    .is_err()
                {
                    reopened(store)?;
                }
            }
        }
    }
    ControlFlow::Continue(())
}

/// Waits until the store, which met damage in use, has reopened itself.
fn reopened(store: &Store) -> ControlFlow<String> {
    let started = Instant::now();
    while let Err(error) = store.check_serving() {
        if started.elapsed() > ANSWER_WITHIN {
            return ControlFlow::Break(format!("reopening: {}", chain(&error)));
        }
        thread::sleep(Duration::from_millis(5));
    }
    tell(&Fact::Reopened);
    ControlFlow::Continue(())
}

fn answer<T, E: Error>(
    action: &str,
    told: Result<Result<T, E>, mpsc::RecvTimeoutError>,
) -> ControlFlow<String, T> {
    match told {
        Ok(Ok(value)) => ControlFlow::Continue(value),
        Ok(Err(error)) => ControlFlow::Break(format!("{action}: {}", chain(&error))),
        // The verdict takes no answer for a hang.
        Err(error) => ControlFlow::Break(format!("{action}: no answer ({error})")),
    }
}

/// An error with all its causes.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn kind(error: &OpenError) -> &'static str {
    match error {
        OpenError::Config(_) => "Config",
        OpenError::Directory { .. } => "Directory",
        OpenError::Locked { .. } => "Locked",
        OpenError::NewerSchema { .. } => "NewerSchema",
        OpenError::Unopenable { .. } => "Unopenable",
        OpenError::Io { .. } => "Io",
        OpenError::Storage(_) => "Storage",
        _ => "Other",
    }
}
