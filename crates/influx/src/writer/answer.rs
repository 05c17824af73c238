//! What a server answered, and what that means.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;

use super::settings::{AnswerRule, Then};

/// So much of an error is kept, in letters.
const TEXT_LETTERS: usize = 2_000;

/// What a server answered that did not take points, or did not take all of them. It is the source
/// of the [`WriteError`](hinted_handoff::WriteError) then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("answered {status}: {text}")]
pub struct NodeAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The error that influxd told, 2,000 letters at most. Where points were refused it ends with
    /// how many, and the first of their lines.
    pub text: String,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// What influxd told, or the text as it is.
    pub text: String,
    /// When the server wants to be asked again.
    pub retry_after: Option<Duration>,
    /// Whether an InfluxDB said it, and no proxy before it.
    is_of_influxdb: bool,
}

/// What an answer means for the points that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    Taken,
    Retry,
    Reject,
    Obsolete,
    /// The database, or its retention policy, is not there.
    Missing,
    /// The body is too large for the server.
    TooLarge,
}

#[derive(Deserialize)]
struct Told {
    error: String,
}

impl Answer {
    /// `body` may have been cut.
    pub fn new(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
        let told = serde_json::from_slice::<Told>(body).map(|told| told.error);
        let is_of_influxdb = told.is_ok() || body.starts_with(b"{\"error\"");
        let text = told.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
        let text = match text.trim() {
            "" => status.canonical_reason().unwrap_or_default(),
            text => text,
        };
        let retry_after = headers.get(RETRY_AFTER).and_then(|it| it.to_str().ok());
        Answer {
            status,
            text: text.chars().take(TEXT_LETTERS).collect(),
            retry_after: retry_after.and_then(|it| until(it, SystemTime::now())),
            is_of_influxdb,
        }
    }

    /// What it means, by the rules or by itself.
    pub fn meaning(&self, rules: &[AnswerRule]) -> Meaning {
        // InfluxDB says nothing else of points that it took; a proxy before it says 200 to anybody.
        if self.status == StatusCode::NO_CONTENT {
            return Meaning::Taken;
        }
        let rule = rules.iter().find(|rule| self.matches(rule));
        match (rule.map(|rule| rule.then), self.status) {
            (Some(Then::Retry), _) => Meaning::Retry,
            (Some(Then::Reject), _) => Meaning::Reject,
            (Some(Then::Obsolete), _) => Meaning::Obsolete,
            (None, _) if self.is_no_database() || self.is_no_retention_policy() => Meaning::Missing,
            (None, StatusCode::PAYLOAD_TOO_LARGE) => Meaning::TooLarge,
            (None, StatusCode::BAD_REQUEST) if self.is_of_influxdb => Meaning::Reject,
            (None, _) => Meaning::Retry,
        }
    }

    fn matches(&self, rule: &AnswerRule) -> bool {
        let has_status = rule.status.is_none_or(|it| it == self.status.as_u16());
        let has_text = rule
            .contains
            .as_ref()
            .is_none_or(|it| self.text.contains(it));
        has_status && has_text
    }

    /// Whether the server does not have the database.
    pub fn is_no_database(&self) -> bool {
        self.is_of_influxdb && self.text.starts_with("database not found")
    }

    /// It has status 500 in influxd 1.6.
    fn is_no_retention_policy(&self) -> bool {
        self.is_of_influxdb && self.text.starts_with("retention policy not found")
    }

    /// Whether the server took some of the points, or may have.
    pub fn is_partial(&self) -> bool {
        self.text.starts_with("partial write")
    }

    /// How many points the server says that it dropped: at least so many are not there.
    pub fn dropped(&self) -> u32 {
        let number = self.text.rsplit_once("dropped=").map(|(_, number)| number);
        number.and_then(|it| it.parse().ok()).unwrap_or(0)
    }

    pub fn into_error(self) -> NodeAnswer {
        NodeAnswer {
            status: self.status.as_u16(),
            text: self.text,
        }
    }
}

/// How long it is until a `Retry-After`: seconds, or a date.
fn until(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = httpdate::parse_http_date(text).ok()?;
    Some(moment.duration_since(now).unwrap_or_default())
}
