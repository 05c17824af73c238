//! What is shown, made of answers, keys and the time that they came at. It waits for nothing.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use hinted_handoff::NodeId;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    answer::{Answer, Status},
    history::History,
    rates::{AllRates, Rates},
    text,
};
use crate::{failure::Failure, output::Tone, verbs::nodes::Named};

/// Nodes that a page key goes on by.
const PAGE: usize = 10;
/// An answer that is later than the next one was due by so much is missed.
const LATE: Duration = Duration::from_secs(1);

/// Which node comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The deepest.
    Pending,
    /// The one with the oldest hint.
    Age,
    /// The one that takes the most.
    RateOut,
    /// The lowest number.
    Node,
}

impl Order {
    pub fn name(self) -> &'static str {
        match self {
            Order::Pending => "pending",
            Order::Age => "oldest",
            Order::RateOut => "out/s",
            Order::Node => "node",
        }
    }

    fn next(self) -> Order {
        match self {
            Order::Pending => Order::Age,
            Order::Age => Order::RateOut,
            Order::RateOut => Order::Node,
            Order::Node => Order::Pending,
        }
    }
}

/// What the host is asked to do to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Pause,
    Resume,
}

/// Something that the host is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    pub verb: Verb,
    pub node: NodeId,
    /// The node as it is shown.
    pub called: String,
}

/// What the keys mean by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    Table,
    /// Whether it is meant.
    Ask(Act),
    Help,
}

/// What a key asks of the loop.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    Nothing,
    Act(Act),
    Quit,
}

/// All that is shown.
pub struct State {
    every: Duration,
    /// When the last answer came, or when it was begun to ask.
    since: Instant,
    /// The last answer, with its nodes in order.
    answer: Option<Answer>,
    /// Why there was none since.
    missed: Option<String>,
    rates: AllRates,
    history: History,
    order: Order,
    selected: Option<NodeId>,
    mode: Mode,
    message: Option<(Tone, String)>,
    /// What the host is doing.
    under_way: Option<Act>,
}

impl State {
    /// With the host asked so often, from now on.
    pub fn new(every: Duration, now: Instant) -> State {
        State {
            every,
            since: now,
            answer: None,
            missed: None,
            rates: AllRates::default(),
            history: History::default(),
            order: Order::Pending,
            selected: None,
            mode: Mode::Table,
            message: None,
            under_way: None,
        }
    }

    /// The host answered.
    pub fn answered(&mut self, answer: Answer, at: Instant) {
        let apart = at.saturating_duration_since(self.since);
        self.rates = match &self.answer {
            Some(before) => AllRates::between(before, &answer, apart),
            None => AllRates::default(),
        };
        self.history.push(&answer, at);
        let was_at = self.selected_at();
        (self.since, self.missed, self.answer) = (at, None, Some(answer));
        self.sort();
        // A node that is gone leaves the choice to the one that is there now.
        if self.selected_at().is_none() {
            let last = self.nodes().len().saturating_sub(1);
            self.select(was_at.unwrap_or(0).min(last));
        }
    }

    /// The host did not answer. An error if it never did.
    pub fn missed(&mut self, failure: Failure) -> Result<(), Failure> {
        match self.answer {
            None => Err(failure),
            Some(_) => {
                self.missed = Some(text::plain(&failure.text()));
                Ok(())
            }
        }
    }

    /// The host did what it was asked for, or did not.
    pub fn done(&mut self, act: &Act, result: Result<(), Failure>) {
        self.under_way = None;
        let is_all_paused = self.status().is_some_and(|it| it.paused_all.is_some());
        self.message = Some(match result {
            Ok(()) => {
                let (tone, is) = match (act.verb, is_all_paused) {
                    (Verb::Pause, _) => (Tone::Good, "paused until the host restarts"),
                    (Verb::Resume, false) => (Tone::Good, "resumed"),
                    (Verb::Resume, true) => (
                        Tone::Doubtful,
                        "resumed, and waits with all nodes; `hh resume --all` resumes these",
                    ),
                };
                (tone, format!("node {} is {is}", act.called))
            }
            Err(failure) => (Tone::Bad, text::plain(&failure.text())),
        });
    }

    pub fn key(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if with_control && key.code == KeyCode::Char('c') {
            return Wish::Quit;
        }
        match std::mem::replace(&mut self.mode, Mode::Table) {
            // Whatever it is, it closes the help.
            Mode::Help => Wish::Nothing,
            Mode::Ask(act) => self.answer_to(act, key.code),
            Mode::Table => self.command(key.code),
        }
    }

    fn answer_to(&mut self, act: Act, key: KeyCode) -> Wish {
        match key {
            KeyCode::Char('y' | 'Y') => {
                self.under_way = Some(act.clone());
                Wish::Act(act)
            }
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => Wish::Nothing,
            _ => {
                self.mode = Mode::Ask(act);
                Wish::Nothing
            }
        }
    }

    fn command(&mut self, key: KeyCode) -> Wish {
        self.message = None;
        let at = self.selected_at().unwrap_or(0);
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.select(at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(at.saturating_add(1)),
            KeyCode::PageUp => self.select(at.saturating_sub(PAGE)),
            KeyCode::PageDown => self.select(at.saturating_add(PAGE)),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            KeyCode::Char('s') => {
                self.order = self.order.next();
                self.sort();
            }
            KeyCode::Char('p') => self.ask(Verb::Pause),
            KeyCode::Char('r') => self.ask(Verb::Resume),
            KeyCode::Char('?') => self.mode = Mode::Help,
            _ => {}
        }
        Wish::Nothing
    }

    /// Asks whether it is meant, of the node that is selected.
    fn ask(&mut self, verb: Verb) {
        if let Some(act) = &self.under_way {
            let waits = format!("node {}: the host has not answered yet", act.called);
            self.message = Some((Tone::Doubtful, waits));
            return;
        }
        let Some(node) = self.selected() else { return };
        let (called, node) = (text::node(node), node.stats.node);
        self.mode = Mode::Ask(Act { verb, node, called });
    }

    fn select(&mut self, at: usize) {
        let last = self.nodes().len().saturating_sub(1);
        self.selected = self.nodes().get(at.min(last)).map(|it| it.stats.node);
    }

    fn sort(&mut self) {
        let (order, rates) = (self.order, &self.rates);
        let Some(answer) = &mut self.answer else {
            return;
        };
        let rank = |it: &Named| match order {
            Order::Pending => it.stats.pending.hints,
            Order::Age => it.stats.oldest_age.map_or(0, |age| age.as_millis() as u64),
            // To a thousandth; one that is not known comes last.
            Order::RateOut => {
                let out = rates.of(it.stats.node).out;
                out.map_or(0, |it| (it * 1000.0) as u64 + 1)
            }
            Order::Node => 0,
        };
        let by = |it: &Named| (Reverse(rank(it)), it.stats.node);
        answer.nodes.sort_by_cached_key(by);
    }

    /// In order.
    pub fn nodes(&self) -> &[Named] {
        self.answer.as_ref().map_or(&[], |it| &it.nodes)
    }

    pub fn selected_at(&self) -> Option<usize> {
        let selected = self.selected?;
        self.nodes().iter().position(|it| it.stats.node == selected)
    }

    pub fn selected(&self) -> Option<&Named> {
        self.nodes().get(self.selected_at()?)
    }

    /// As of the last answer.
    pub fn status(&self) -> Option<&Status> {
        self.answer.as_ref().map(|it| &it.status)
    }

    pub fn rates_of(&self, node: NodeId) -> Rates {
        self.rates.of(node)
    }

    pub fn total_rates(&self) -> Rates {
        self.rates.total
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// How long there has been no answer, where one is overdue, and why, if that is known.
    pub fn silence(&self, now: Instant) -> Option<(Duration, Option<&str>)> {
        let silent = now.saturating_duration_since(self.since);
        let is_late = silent > self.every.saturating_add(LATE);
        (is_late || self.missed.is_some()).then_some((silent, self.missed.as_deref()))
    }

    pub fn order(&self) -> Order {
        self.order
    }

    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    pub fn message(&self) -> Option<(Tone, &str)> {
        self.message.as_ref().map(|(tone, it)| (*tone, it.as_str()))
    }

    pub fn under_way(&self) -> Option<&Act> {
        self.under_way.as_ref()
    }
}
