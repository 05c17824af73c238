//! Reading what a host answers. What is not there is shown as not known.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::output::Output;

/// A text; `-` if there is none.
pub fn text(value: &Value, name: &str) -> String {
    let text = value.get(name).and_then(Value::as_str);
    text.unwrap_or("-").to_owned()
}

/// A number; 0 if there is none.
pub fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// Hints and their bytes.
pub fn amount(output: &Output, value: &Value, name: &str) -> String {
    let amount = value.get(name).unwrap_or(&Value::Null);
    let (hints, bytes) = (number(amount, "hints"), number(amount, "bytes"));
    format!("{hints} ({})", output.bytes(bytes))
}

/// A time of so many milliseconds.
pub fn duration(output: &Output, value: &Value, name: &str) -> String {
    let ms = value.get(name).and_then(Value::as_u64);
    output.duration(ms.map(Duration::from_millis))
}

/// What serde calls a variant.
pub fn name_of(value: &impl Serialize) -> String {
    let name = serde_json::to_value(value).ok();
    let name = name.and_then(|it| it.as_str().map(str::to_owned));
    name.unwrap_or("-".to_owned())
}
