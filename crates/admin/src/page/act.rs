//! What can be done on the page, in words.

use hinted_handoff::{HintId, NodeId, NodeStats, Stats};
use serde::{Deserialize, Serialize};

use super::words;
use crate::settings::Settings;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Pause,
    Resume,
    StopHinting,
    StartHinting,
    HoldDirect,
    ReleaseDirect,
    Redrive,
    Discard,
}

impl Act {
    pub fn name(self) -> &'static str {
        match self {
            Act::Pause => "pause",
            Act::Resume => "resume",
            Act::StopHinting => "stop-hinting",
            Act::StartHinting => "start-hinting",
            Act::HoldDirect => "hold-direct",
            Act::ReleaseDirect => "release-direct",
            Act::Redrive => "redrive",
            Act::Discard => "discard",
        }
    }

    pub fn verb(self) -> &'static str {
        match self {
            Act::Pause => "Pause",
            Act::Resume => "Resume",
            Act::StopHinting => "Stop hinting",
            Act::StartHinting => "Start hinting",
            Act::HoldDirect => "Hold direct writes",
            Act::ReleaseDirect => "Release direct writes",
            Act::Redrive => "Send on",
            Act::Discard => "Discard",
        }
    }

    /// What its button says.
    pub fn label(self, is_all: bool) -> String {
        match (self, is_all) {
            (Act::StopHinting, true) => "Stop all hinting".to_owned(),
            (Act::StartHinting, true) => "Start all hinting".to_owned(),
            (_, true) => format!("{} all", self.verb()),
            (_, false) => self.verb().to_owned(),
        }
    }

    /// Whether something is lost by it.
    pub fn is_grave(self) -> bool {
        matches!(self, Act::Discard | Act::StopHinting)
    }

    /// The page that shows what it did.
    pub fn page(self, node: Option<NodeId>) -> String {
        match (self, node) {
            (Act::Pause | Act::Resume, _) | (_, None) => "/".to_owned(),
            (_, Some(node)) => format!("/nodes/{node}"),
        }
    }

    /// What it is done to.
    pub fn object(self, settings: &Settings, node: Option<NodeId>, hint: Option<HintId>) -> String {
        let node = node.map(|node| words::node(settings, node));
        match (self, node, hint) {
            (Act::Pause | Act::Resume, Some(node), _) => format!("node {node}"),
            (Act::Pause | Act::Resume, None, _) => "all nodes".to_owned(),
            (Act::StopHinting | Act::StartHinting, Some(node), _) => format!("for node {node}"),
            (Act::StopHinting | Act::StartHinting, None, _) => "for all nodes".to_owned(),
            (Act::HoldDirect | Act::ReleaseDirect, Some(node), _) => format!("to node {node}"),
            (_, Some(node), None) => format!("all dead letters of node {node}"),
            (_, Some(node), Some(hint)) => format!("dead letter {hint} of node {node}"),
            (_, None, _) => "nothing".to_owned(),
        }
    }

    /// What it would do to a node, or to all.
    pub fn effect(self, node: Option<&NodeStats>, is_one: bool) -> String {
        let letters = || match (node, is_one) {
            (_, true) => "It".to_owned(),
            (Some(node), false) => {
                let letters =
                    words::counted(node.dead_letters.hints, "dead letter", "dead letters");
                format!("{letters} ({})", words::bytes(node.dead_letters.bytes))
            }
            (None, false) => "What there is".to_owned(),
        };
        match self {
            Act::Pause => {
                "Hints are accepted and wait. A send that is under way may still finish.".into()
            }
            Act::Resume => "Hints that wait are sent again.".into(),
            Act::StopHinting => {
                "What is not sent directly is missed: it is refused, or recorded as not stored. \
                 What waits already stays, and is sent. In effect until hinting is started again, \
                 or until the store is opened again."
                    .into()
            }
            Act::StartHinting if node.is_none() => {
                "Hints are made again, but for nodes that were stopped by themselves.".into()
            }
            Act::StartHinting => {
                "Hints are made for it again. What it missed it has missed.".into()
            }
            Act::HoldDirect => {
                "Writes to it become hints at once, and replay delivers them. In effect until \
                 they are released, or until the store is opened again."
                    .into()
            }
            Act::ReleaseDirect => "Writes are sent to it directly again, if it answers.".into(),
            Act::Redrive => {
                format!(
                    "{}: sent again, behind all that waits for the node now.",
                    letters()
                )
            }
            Act::Discard => format!(
                "{}: gone for good, with an entry in the loss journal. This cannot be undone.",
                letters()
            ),
        }
    }

    /// The notice after an action; `None` unless the statistics bear it out, since anybody can make
    /// the link.
    pub fn done(self, of: &str, stats: &Stats, node: Option<NodeId>) -> Option<String> {
        let found = node.map(|node| stats.nodes.iter().find(|it| it.node == node));
        let (paused, hinting, held, letters) = match found {
            Some(None) => return None,
            Some(Some(it)) => (
                it.paused.is_some(),
                it.hinting,
                it.direct.held_since_unix_ms.is_some(),
                it.dead_letters.hints,
            ),
            None => match self {
                Act::Pause | Act::Resume | Act::StopHinting | Act::StartHinting => {
                    (stats.paused_all.is_some(), stats.hinting, false, 0)
                }
                // Nothing of it is done to all nodes.
                _ => return None,
            },
        };
        let (is_so, text) = match self {
            Act::Pause => (paused, format!("Replay of {of} is paused.")),
            Act::Resume => (!paused, format!("The pause of {of} has ended.")),
            Act::StopHinting => (!hinting, format!("Hinting for {of} is stopped.")),
            Act::StartHinting => (hinting, format!("Hinting for {of} is started.")),
            Act::HoldDirect => (held, format!("Direct writes to {of} are held.")),
            Act::ReleaseDirect => (!held, format!("Direct writes to {of} are released.")),
            Act::Redrive | Act::Discard => {
                let left = words::counted(letters, "dead letter", "dead letters");
                let name = of.strip_prefix("node ").unwrap_or(of);
                (true, format!("Node {name} has {left} now."))
            }
        };
        is_so.then_some(text)
    }
}
