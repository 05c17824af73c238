//! Figures in words.

use std::time::{Duration, UNIX_EPOCH};

use hinted_handoff::{Amount, NodeId};

use crate::settings::Settings;

/// `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 hint`, `2 hints`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut name = "B";
    for unit in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        name = unit;
    }
    match value < 10.0 {
        true => format!("{value:.1} {name}"),
        false => format!("{value:.0} {name}"),
    }
}

/// `12 hints (3 KiB)`.
pub fn amount(amount: Amount) -> String {
    let hints = counted(amount.hints, "hint", "hints");
    format!("{hints} ({})", bytes(amount.bytes))
}

/// The two largest units of it: `3 h 12 min`.
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds == 0 {
        return format!("{} ms", time.as_millis());
    }
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut parts: Vec<String> = Vec::new();
    for (length, name) in units {
        let whole = left / length;
        left %= length;
        if whole > 0 {
            parts.push(format!("{whole} {name}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    parts.join(" ")
}

/// A rate: `12.3/s`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 100.0 => format!("{}/s", count(rate as u64)),
        rate if rate > 0.0 => format!("{rate:.1}/s"),
        _ => "0/s".to_owned(),
    }
}

/// A moment of the wall clock: `2026-11-30 16:04:05`, in UTC.
pub fn moment(unix_ms: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(unix_ms / 1000));
    // Years of more than four digits have no such text.
    let at = at.filter(|_| unix_ms < 253_402_300_800_000);
    let text = at.map(|at| humantime::format_rfc3339_seconds(at).to_string());
    text.map_or_else(
        || format!("{unix_ms} ms"),
        |text| text.replace('T', " ").trim_end_matches('Z').to_owned(),
    )
}

/// What a node said, without what the library says before it, which the state says, too.
pub fn cause(error: &str) -> &str {
    const BEFORE: [&str; 2] = [
        "the node may take it later: ",
        "the node will never accept it: ",
    ];
    let stripped = BEFORE.iter().find_map(|before| error.strip_prefix(before));
    stripped.filter(|it| !it.is_empty()).unwrap_or(error)
}

/// `2`, or `2 (name)`.
pub fn node(settings: &Settings, node: NodeId) -> String {
    match settings.name(node) {
        Some(name) => format!("{node} ({name})"),
        None => node.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use hinted_handoff::WriteError;

    use super::*;
    use crate::problem::with_causes;

    #[test]
    fn figures_are_short_and_keep_their_unit() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16 EiB");
        assert_eq!(time(Duration::from_millis(5)), "5 ms");
        assert_eq!(time(Duration::from_secs(11_520)), "3 h 12 min");
        assert_eq!(time(Duration::from_secs(86_401)), "1 d");
        assert_eq!(time(Duration::from_secs(61)), "1 min 1 s");
        assert_eq!(moment(0), "1970-01-01 00:00:00");
        assert_eq!(moment(u64::MAX), "18446744073709551615 ms");
        assert_eq!(rate(0.25), "0.2/s");
        for said in [WriteError::retry("refused"), WriteError::reject("refused")] {
            assert_eq!(cause(&with_causes(&said)), "refused");
        }
        assert_eq!(cause("refused"), "refused");
    }
}
