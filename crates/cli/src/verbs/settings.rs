//! Settings, as people read them.

use std::collections::BTreeSet;

use hinted_handoff::Config;
use serde_json::Value;

use crate::{failure::Failure, output::Output};

/// On a terminal a table, elsewhere a document.
pub fn print(output: &mut Output, config: &Value) -> Result<(), Failure> {
    let Some(settings) = config
        .as_object()
        .filter(|_| output.is_terminal() && !output.is_json())
    else {
        return output.json(config);
    };
    // A limit that is not set has no name there.
    let names = settings.keys().map(String::as_str);
    let names: BTreeSet<&str> = names.chain(Config::CHANGEABLE.iter().copied()).collect();
    let rows = names.into_iter().map(|name| {
        let value = match settings.get(name) {
            None | Some(Value::Null) => "none".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        let can_change = match Config::CHANGEABLE.contains(&name) {
            true => "can change",
            false => "fixed until the next open",
        };
        vec![name.to_owned(), value, can_change.to_owned()]
    });
    let rows = rows.collect();
    output.table(&["setting", "value", "while it runs"], rows)
}
