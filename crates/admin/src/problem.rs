//! Errors as problem JSON (RFC 9457).

use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
};

use axum::{
    body::Body,
    extract::rejection::{PathRejection, QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use hinted_handoff::{HandoffError, HintId};
use serde::Serialize;

/// What kinds of problems there are: the last part of the `type`, the title, and the status.
macro_rules! kinds {
    ($($kind:ident: $name:literal, $status:ident, $title:literal;)*) => {
        /// A kind of problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = $title] $kind,)*
        }

        impl Kind {
            /// The type, the status and the title.
            fn parts(self) -> (&'static str, StatusCode, &'static str) {
                match self {
                    $(Kind::$kind => (
                        concat!("urn:hinted-handoff:", $name),
                        StatusCode::$status,
                        $title,
                    ),)*
                }
            }
        }
    };
}

kinds! {
    InvalidRequest: "invalid-request", BAD_REQUEST, "The request does not say what is needed";
    ReadOnly: "read-only", FORBIDDEN, "This interface is read-only";
    Forgeable: "forgeable", FORBIDDEN, "A foreign page could have sent this request";
    ForeignHost: "foreign-host", FORBIDDEN, "This host has another name";
    NoSuchPath: "no-such-path", NOT_FOUND, "There is nothing here";
    UnknownNode: "unknown-node", NOT_FOUND, "The node has no queue";
    UnknownHint: "unknown-hint", NOT_FOUND, "There is no such hint";
    NoSuchMethod: "no-such-method", METHOD_NOT_ALLOWED, "This cannot be done here";
    TooSlow: "too-slow", REQUEST_TIMEOUT, "The request took too long to arrive";
    TakenByHand: "taken-by-hand", CONFLICT, "The hints of the node are taken by hand";
    NotDrained: "not-drained", CONFLICT, "Hints are pending still";
    RemovalCancelled: "removal-cancelled", CONFLICT, "The removal was called off";
    Damaged: "damaged", CONFLICT, "The disk damaged it";
    BarrierRefused: "barrier-refused", CONFLICT, "The barrier is none of this store";
    Refused: "refused", CONFLICT, "There is no room for it";
    TooManyQueues: "too-many-queues", CONFLICT, "The node would have too many queues";
    TooLarge: "too-large", PAYLOAD_TOO_LARGE, "The request is too large";
    Internal: "internal", INTERNAL_SERVER_ERROR, "It failed";
    StoreFailed: "store-failed", SERVICE_UNAVAILABLE, "The store has failed";
    FailedMeanwhile: "failed-meanwhile", SERVICE_UNAVAILABLE, "The store failed meanwhile";
    ReplayStopped: "replay-stopped", SERVICE_UNAVAILABLE, "Replay does not run";
    ShutDown: "shut-down", SERVICE_UNAVAILABLE, "It is shut down";
    Busy: "busy", SERVICE_UNAVAILABLE, "Too many at a time";
    TimedOut: "timed-out", GATEWAY_TIMEOUT, "It took too long";
}

/// Why a request was not answered as asked.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    #[serde(skip)]
    pub kind: Kind,
    /// Stable, for programs.
    #[serde(rename = "type")]
    typed: &'static str,
    pub title: &'static str,
    status: u16,
    /// What happened, to which value, and what to do.
    pub detail: String,
    /// Of an import: the new ids of what was stored all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<Vec<HintId>>,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (typed, status, title) = kind.parts();
        Problem {
            kind,
            typed,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            stored: None,
        }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Problem::new(Kind::InvalidRequest, detail)
    }

    pub fn status(&self) -> StatusCode {
        self.kind.parts().1
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let json = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status(), json, Body::from(body)).into_response()
    }
}

impl From<HandoffError> for Problem {
    fn from(error: HandoffError) -> Self {
        let kind = match &error {
            HandoffError::ShutDown | HandoffError::WritesUnderWay { .. } => Kind::ShutDown,
            HandoffError::ReplayStopped(_) => Kind::ReplayStopped,
            HandoffError::Storage(_) => Kind::StoreFailed,
            HandoffError::FailedMeanwhile => Kind::FailedMeanwhile,
            HandoffError::Consumed { .. } | HandoffError::TakenByHand { .. } => Kind::TakenByHand,
            HandoffError::Refused(_) => Kind::Refused,
            HandoffError::HintOfAnotherStore { .. } | HandoffError::NoDeadLetter { .. } => {
                Kind::UnknownHint
            }
            HandoffError::DamagedLetter { .. } | HandoffError::DamagedHint { .. } => Kind::Damaged,
            HandoffError::BarrierOfAnotherStore { .. }
            | HandoffError::BarrierVersion { .. }
            | HandoffError::BarrierDamaged { .. }
            | HandoffError::BarrierAhead { .. } => Kind::BarrierRefused,
            HandoffError::UnknownNode { .. } => Kind::UnknownNode,
            HandoffError::NoNodes
            | HandoffError::SameNode { .. }
            | HandoffError::Setting(_)
            | HandoffError::TooManyMembers { .. } => Kind::InvalidRequest,
            HandoffError::NotDrained { .. } => Kind::NotDrained,
            HandoffError::RemovalCancelled { .. } => Kind::RemovalCancelled,
            HandoffError::TooManyQueues { .. } => Kind::TooManyQueues,
            _ => Kind::Internal,
        };
        Problem::new(kind, with_causes(&error))
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Problem::invalid(rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Problem::invalid(rejection.body_text())
    }
}

/// An error and all its causes in a line. They may be the host's, and what panics in them is no
/// text.
pub fn with_causes(error: &dyn Error) -> String {
    let text = || {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        text
    };
    catch_unwind(AssertUnwindSafe(text))
        .unwrap_or_else(|_| "an error whose text cannot be told: it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Speechless;

    impl fmt::Display for Speechless {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("no words")
        }
    }

    impl Error for Speechless {}

    #[test]
    fn an_error_of_the_hosts_that_panics_is_told_as_that() {
        assert!(with_causes(&Speechless).contains("panicked"));
        let wrapped = std::io::Error::other(Speechless);
        assert!(with_causes(&wrapped).contains("panicked"));
    }
}
