//! Answers as clients of InfluxDB know them.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::json;

use crate::relay::{body::BodyError, report::Verdict, users::Denied};

/// After how many seconds a client should send again what was answered with 503.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");
/// Letters of an error in a header.
const HEADER_MAX: usize = 500;

/// The two versions of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    V1,
    V2,
}

impl Dialect {
    /// That of a path.
    pub fn of(path: &str) -> Dialect {
        match path.starts_with("/api/v2/") {
            true => Dialect::V2,
            false => Dialect::V1,
        }
    }
}

/// An error, before it is put into the words of a version.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    text: String,
}

impl Problem {
    pub fn new(status: StatusCode, text: impl Into<String>) -> Problem {
        Problem {
            status,
            text: text.into(),
        }
    }

    pub fn told(self, dialect: Dialect) -> Response<Body> {
        let Problem { status, text } = self;
        let told = match dialect {
            Dialect::V1 => json!({"error": &text}),
            Dialect::V2 => json!({"code": code(status), "message": &text}),
        };
        let mut response = Response::new(Body::from(format!("{told}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        if dialect == Dialect::V1 {
            headers.insert("x-influxdb-error", in_header(&text));
        } else {
            let code = HeaderValue::from_static(code(status));
            headers.insert("x-platform-error-code", code);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if status == StatusCode::UNAUTHORIZED {
            let realm = HeaderValue::from_static("Basic realm=\"InfluxDB\"");
            headers.insert(header::WWW_AUTHENTICATE, realm);
        }
        response
    }
}

/// A text without what no header may have.
fn in_header(text: &str) -> HeaderValue {
    let plain = text.chars().take(HEADER_MAX);
    let plain: String = plain
        .map(|it| if it.is_control() { ' ' } else { it })
        .collect();
    HeaderValue::from_bytes(plain.as_bytes()).unwrap_or(HeaderValue::from_static("see the body"))
}

/// What the second version calls a status.
fn code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "invalid",
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::NOT_FOUND => "not found",
        StatusCode::METHOD_NOT_ALLOWED => "method not allowed",
        StatusCode::REQUEST_TIMEOUT => "request timeout",
        StatusCode::PAYLOAD_TOO_LARGE => "request too large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported media type",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        _ => "internal error",
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = match &error {
            BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            BodyError::BrokeOff(_) | BodyError::NotGzip(_) => StatusCode::BAD_REQUEST,
            BodyError::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            BodyError::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, error.to_string())
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let text = match denied {
            Denied::Nobody => "unable to parse authentication credentials",
            Denied::Wrong => "authorization failed",
        };
        Problem::new(StatusCode::UNAUTHORIZED, text)
    }
}

/// The answer to a write.
pub fn written(verdict: Verdict) -> Result<Response<Body>, Problem> {
    let (status, text) = match verdict {
        Verdict::Written => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(response);
        }
        Verdict::Bad(text) => (StatusCode::BAD_REQUEST, text),
        Verdict::Missing(text) => (StatusCode::NOT_FOUND, text),
        Verdict::Later(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
        Verdict::Internal(text) => (StatusCode::INTERNAL_SERVER_ERROR, text),
    };
    Err(Problem::new(status, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_several_lines_and_letters_fits_a_header() {
        let header = in_header("unable to parse 'a\u{e4}'\nunable\r\n\0to");
        assert_eq!(
            header.as_bytes(),
            "unable to parse 'a\u{e4}' unable   to".as_bytes()
        );
        assert_eq!(in_header(&"x".repeat(10_000)).len(), HEADER_MAX);
    }
}
