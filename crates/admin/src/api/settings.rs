//! Settings that change while the host runs, and what is done to a node's writes and hints by hand.

use std::{collections::BTreeSet, time::Duration};

use axum::{Json, extract::State};
use hinted_handoff::{Config, HintsMeant, NodeId, Payload, ShardId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::nodes::{Discarded, Done, Nothing};
use crate::{
    costs::costs,
    extract::{Path, Said, not_too_many},
    problem::{Kind, Problem},
    state::{Admin, LONG},
};

/// Characters of a value that are told back.
const GIVEN_SHOWN: usize = 100;
/// Nodes that are not known and are named in an answer.
const UNKNOWN_SHOWN: usize = 10;

/// The settings in effect, as they are in a file.
pub async fn shown<P: Payload>(State(admin): State<Admin<P>>) -> Result<Json<Config>, Problem> {
    let config = admin.handoff()?.config();
    Ok(Json(Config::clone(&config)))
}

/// Settings by their names, in the form that a file has them in.
pub async fn change<P: Payload>(
    State(admin): State<Admin<P>>,
    Said(changes): Said<Map<String, Value>>,
) -> Result<Json<Config>, Problem> {
    reconfigure(&admin, changes).await?;
    shown(State(admin)).await
}

/// What a change would cost.
#[derive(Serialize)]
pub struct Costs {
    costs: Vec<String>,
}

/// The same settings as for a change, and none is changed.
pub async fn preview<P: Payload>(
    State(admin): State<Admin<P>>,
    Said(changes): Said<Map<String, Value>>,
) -> Result<Json<Costs>, Problem> {
    let costs = costs_of(&admin, changes)?;
    Ok(Json(Costs { costs }))
}

/// What these changes would cost, or which of them is wrong.
pub fn costs_of<P: Payload>(
    admin: &Admin<P>,
    changes: Map<String, Value>,
) -> Result<Vec<String>, Problem> {
    let handoff = admin.handoff()?;
    let before = handoff.config();
    let after = merged(&before, changes)?;
    Ok(costs(&handoff.stats(), &before, &after))
}

/// Changes these settings, or says which of them is wrong, and changes none.
pub async fn reconfigure<P: Payload>(
    admin: &Admin<P>,
    changes: Map<String, Value>,
) -> Result<(), Problem> {
    let handoff = admin.handoff()?;
    // Those that are not named stay, also if somebody else changes them meanwhile.
    let mut refused = None;
    let changed = handoff.reconfigure(|config| match merged(config, changes) {
        Ok(merged) => *config = merged,
        Err(problem) => refused = Some(problem),
    });
    admin.call(changed).await?;
    refused.map_or(Ok(()), Err)
}

fn merged(config: &Config, changes: Map<String, Value>) -> Result<Config, Problem> {
    let invalid = |error: serde_json::Error| Problem::invalid(error.to_string());
    let all = serde_json::to_value(config).map_err(invalid)?;
    let with = |changes: Map<String, Value>| {
        let mut all = all.clone();
        if let Some(all) = all.as_object_mut() {
            all.extend(changes);
        }
        serde_json::from_value::<Config>(all)
    };
    with(changes.clone()).map_err(|error| {
        // It does not always say which setting it is about.
        let wrong = changes.into_iter().find_map(|(name, value)| {
            let given: String = value.to_string().chars().take(GIVEN_SHOWN).collect();
            let is_taken_away = value.is_null();
            let error = with(Map::from_iter([(name.clone(), value)])).err()?;
            Some(match is_taken_away {
                true => format!(
                    "{name}: it needs a value; where a time or a rate may have no limit, that is \
                     0s or 0"
                ),
                false => format!("{name} = {given}: {error}"),
            })
        });
        Problem::invalid(wrong.unwrap_or_else(|| error.to_string()))
    })
}

/// What is done to a node by hand, and taken back.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ByHand {
    StopHinting,
    StartHinting,
    HoldDirect,
    ReleaseDirect,
}

pub async fn by_hand<P: Payload>(
    State(admin): State<Admin<P>>,
    Path((node, what)): Path<(NodeId, ByHand)>,
    Said(Nothing {}): Said<Nothing>,
) -> Result<Json<Done>, Problem> {
    let handoff = admin.handoff()?;
    match what {
        ByHand::StopHinting => handoff.stop_hinting(node),
        ByHand::StartHinting => handoff.start_hinting(node),
        ByHand::HoldDirect => handoff.hold_direct(node),
        ByHand::ReleaseDirect => handoff.release_direct(node),
    }
    Ok(Json(Done {}))
}

/// The same for all nodes.
pub async fn by_hand_of_all<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(what): Path<ByHand>,
    Said(Nothing {}): Said<Nothing>,
) -> Result<Json<Done>, Problem> {
    let handoff = admin.handoff()?;
    match what {
        ByHand::StopHinting => handoff.stop_hinting_all(),
        ByHand::StartHinting => handoff.start_hinting_all(),
        ByHand::HoldDirect | ByHand::ReleaseDirect => {
            let detail = "direct writes are held of one node at a time; name it";
            return Err(Problem::new(Kind::NoSuchPath, detail));
        }
    }
    Ok(Json(Done {}))
}

/// Whether hints are to be made for which nodes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HintingOf {
    nodes: Vec<NodeId>,
    hinting: bool,
}

/// For all of the nodes or for none. What the library does for each cannot fail, so it is enough to
/// look first whether all are known. A write that runs meanwhile may see only some of the nodes
/// changed.
pub async fn hinting<P: Payload>(
    State(admin): State<Admin<P>>,
    Said(asked): Said<HintingOf>,
) -> Result<Json<Done>, Problem> {
    not_too_many(&asked.nodes)?;
    if asked.nodes.is_empty() {
        return Err(Problem::invalid(
            "an empty list changes nothing; name nodes",
        ));
    }
    let handoff = admin.handoff()?;
    let known: BTreeSet<NodeId> = handoff.stats().nodes.iter().map(|it| it.node).collect();
    let unknown = asked.nodes.iter().filter(|node| !known.contains(*node));
    let unknown: Vec<String> = unknown.map(NodeId::to_string).collect();
    if !unknown.is_empty() {
        let shown = unknown.get(..UNKNOWN_SHOWN).unwrap_or(&unknown).join(", ");
        let detail = format!(
            "{} of the nodes are not known: {shown}; nothing was changed",
            unknown.len()
        );
        return Err(Problem::new(Kind::UnknownNode, detail));
    }
    for node in asked.nodes {
        match asked.hinting {
            true => handoff.start_hinting(node),
            false => handoff.stop_hinting(node),
        }
    }
    Ok(Json(Done {}))
}

/// Which pending hints are to be discarded.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhichHints {
    older_than_ms: Option<u64>,
    shard: Option<ShardId>,
}

pub async fn discard<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
    Said(which): Said<WhichHints>,
) -> Result<Json<Discarded>, Problem> {
    let handoff = admin.handoff()?;
    let mut meant = HintsMeant::default();
    meant.older_than = which.older_than_ms.map(Duration::from_millis);
    meant.shard = which.shard;
    if meant == HintsMeant::default() {
        return Err(Problem::invalid(
            "say which: older_than_ms, shard, or both; to discard all, remove the node",
        ));
    }
    let discarding = handoff.discard_hints(node, meant);
    let discarded = admin.wait(LONG, discarding).await?;
    Ok(Json(Discarded { discarded }))
}
