//! What a change of settings costs: hints that leave for it, and hints that find no room.

use hinted_handoff::{Amount, Config, Stats};
use serde_json::Value;

/// Nodes that are told of by themselves, for each setting.
const NODES_SHOWN: usize = 10;

/// A sentence for each lowered limit that what waits has reached, of the store or of a node, and
/// for each node with hints older than a lowered `max_age`, or whose oldest is not read yet. Of
/// more than [`NODES_SHOWN`] nodes for a setting, how many more there are. Nothing, if no hint
/// leaves or is refused for the change that would not be otherwise.
pub fn costs(stats: &Stats, before: &Config, after: &Config) -> Vec<String> {
    let mut costs = Vec::new();
    let is_lower = before.max_age.is_zero() || after.max_age < before.max_age;
    if is_lower && !after.max_age.is_zero() {
        let age = humantime::format_duration(after.max_age);
        let old = stats.nodes.iter().filter_map(|it| {
            let is_old = it.oldest_age.is_none_or(|oldest| oldest > after.max_age);
            (it.pending.hints > 0 && is_old).then(|| {
                let oldest = it.oldest_age.map_or("not read yet".to_owned(), |oldest| {
                    humantime::format_duration(std::time::Duration::from_secs(oldest.as_secs()))
                        .to_string()
                });
                format!(
                    "node {}: {} hints wait, the oldest for {oldest}; those older than {age} leave \
                     undelivered",
                    it.node, it.pending.hints
                )
            })
        });
        push(&mut costs, old.collect());
    }
    let Amount { hints, bytes } = stats.store.pending;
    let full = when_full(after);
    let over = |name: &str, of: &str, wait: u64, what: &str, limit: Option<u64>| {
        let limit = limit.filter(|limit| wait >= *limit)?;
        let over = match wait - limit {
            0 => "as many as".to_owned(),
            over => format!("{over} over"),
        };
        Some(format!(
            "{of}{wait} {what} wait, {over} {name} = {limit}; the next finds no room, and \
             when_full is {full}"
        ))
    };
    let lower = |before: Option<u64>, after: Option<u64>| {
        after.filter(|after| before.is_none_or(|before| *after < before))
    };
    let limit = lower(before.max_hints, after.max_hints);
    costs.extend(over("max_hints", "", hints, "hints", limit));
    let limit = lower(before.max_bytes, after.max_bytes);
    costs.extend(over("max_bytes", "", bytes, "bytes", limit));
    let limit = lower(before.max_hints_per_node, after.max_hints_per_node);
    let each = stats.nodes.iter().filter_map(|it| {
        let of = format!("node {}: ", it.node);
        over("max_hints_per_node", &of, it.pending.hints, "hints", limit)
    });
    push(&mut costs, each.collect());
    let limit = lower(before.max_bytes_per_node, after.max_bytes_per_node);
    let each = stats.nodes.iter().filter_map(|it| {
        let of = format!("node {}: ", it.node);
        over("max_bytes_per_node", &of, it.pending.bytes, "bytes", limit)
    });
    push(&mut costs, each.collect());
    costs
}

/// As many as are shown, and how many more there are.
fn push(costs: &mut Vec<String>, mut of_nodes: Vec<String>) {
    let more = of_nodes.len().saturating_sub(NODES_SHOWN);
    of_nodes.truncate(NODES_SHOWN);
    costs.append(&mut of_nodes);
    if more > 0 {
        costs.push(format!("{more} more nodes in the same way"));
    }
}

/// By the name that a file has for it.
fn when_full(config: &Config) -> String {
    let name = serde_json::to_value(config.when_full).ok();
    let name = name.as_ref().and_then(Value::as_str).map(str::to_owned);
    name.unwrap_or_default()
}
