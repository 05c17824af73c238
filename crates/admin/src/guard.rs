//! Who may ask for what: only by a name of this host, and only what a foreign page cannot ask for.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use crate::{
    problem::{Kind, Problem},
    settings::Settings,
};

/// A page of another origin may send this header only if this host says so to a preflight, which it
/// never does.
pub const HEADER: &str = "x-hinted-handoff";

/// Bytes of a body: a barrier of 8,000 nodes fits, with one queue each and figures of up to twelve
/// digits.
const BODY_BYTES: usize = 1024 * 1024;
/// The path whose body may be longer.
pub const IMPORT: &str = "/v1/import";
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The name that a request calls this host by.
fn host(request: &Request) -> Option<&str> {
    let header = request.headers().get(header::HOST);
    match header {
        Some(host) => host.to_str().ok(),
        // HTTP/2 has it in the URI.
        None => request.uri().authority().map(|it| it.as_str()),
    }
}

/// For every request: the host is called by a name of its own, and the body is small and arrives.
/// The handler of an import reads its own body, after the checks.
pub async fn every_request(
    State(settings): State<Arc<Settings>>,
    request: Request,
    next: Next,
) -> Response {
    if !settings.hosts.allow(host(&request).unwrap_or_default()) {
        return Problem::new(
            Kind::ForeignHost,
            "the Host header names another host than this one; call it by a name in Settings::hosts",
        )
        .into_response();
    }
    let request = match request.uri().path() {
        IMPORT => Ok(with_host(request)),
        _ => with_body(with_host(request), BODY_BYTES, BODY_TIME).await,
    };
    let request = match request {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With `no-referrer` a form would be sent without its origin.
        (header::REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A request of HTTP/2 gets the header, which the origin of a form is held against.
fn with_host(mut request: Request) -> Request {
    let named = host(&request).and_then(|host| HeaderValue::from_str(host).ok());
    if let Some(named) = named {
        request.headers_mut().insert(header::HOST, named);
    }
    request
}

/// The request with all of its body, which is no longer than this and arrives in this time.
pub async fn with_body(request: Request, bytes: usize, time: Duration) -> Result<Request, Problem> {
    if !is_said(request.method()) {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let body = match timeout(time, to_bytes(body, bytes)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let detail = format!("the body is longer than {bytes} bytes, or broke off");
            return Err(Problem::new(Kind::TooLarge, detail));
        }
        Err(_) => {
            let detail = format!("the body took longer than {} s", time.as_secs());
            return Err(Problem::new(Kind::TooSlow, detail));
        }
    };
    Ok(Request::from_parts(parts, Body::from(body)))
}

fn is_said(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// For the API: what is more than a look has the header.
pub async fn not_forged(request: Request, next: Next) -> Response {
    if is_said(request.method()) && !request.headers().contains_key(HEADER) {
        let detail = format!("send the header `{HEADER}: 1`, which a foreign page cannot");
        return Problem::new(Kind::Forgeable, detail).into_response();
    }
    next.run(request).await
}

/// For what changes something.
pub async fn writable(
    State(settings): State<Arc<Settings>>,
    request: Request,
    next: Next,
) -> Response {
    match may_write(&settings) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

pub fn may_write(settings: &Settings) -> Result<(), Problem> {
    match settings.read_only {
        false => Ok(()),
        true => Err(Problem::new(
            Kind::ReadOnly,
            "this interface only shows; the host opens it with Settings::read_only = false",
        )),
    }
}

/// Whether a form that changes something may be looked at. Checked before the form is parsed, so
/// that whoever has no right to that is told so, whatever the form says.
pub fn may_send_form(settings: &Settings, headers: &HeaderMap) -> Result<(), Problem> {
    may_write(settings)?;
    match is_own_form(headers) {
        true => Ok(()),
        false => {
            let detail = "another site sent this form; nothing was changed";
            Err(Problem::new(Kind::Forgeable, detail))
        }
    }
}

/// Whether a form has the token of this server.
pub fn check_token(given: &str, token: &str) -> Result<(), Problem> {
    match same_token(given, token) {
        true => Ok(()),
        false => Err(Problem::new(
            Kind::Forgeable,
            "the form is of a server that was restarted since, or was not made here; go back, and \
             send it again",
        )),
    }
}

/// Whether a form was sent by a page of this host, as far as the browser says.
fn is_own_form(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|it| it.to_str().unwrap_or_default());
    let site = text(&HeaderName::from_static("sec-fetch-site"));
    let origin = text(&header::ORIGIN);
    let own_origin = origin.is_none_or(|origin| {
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_some() && host == text(&header::HOST)
    });
    site.is_none_or(|site| site == "same-origin") && own_origin
}

/// Whether two tokens are the same, in a time that does not tell how far they are.
fn same_token(given: &str, token: &str) -> bool {
    let differ = given
        .bytes()
        .zip(token.bytes())
        .fold(0, |sum, (a, b)| sum | (a ^ b));
    !token.is_empty() && given.len() == token.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        pairs.collect()
    }

    #[test]
    fn a_form_of_another_origin_is_told_apart() {
        let host = ("host", "127.0.0.1:81");
        for own in [
            vec![host],
            vec![host, ("origin", "http://127.0.0.1:81")],
            vec![host, ("sec-fetch-site", "same-origin")],
        ] {
            assert!(is_own_form(&headers(&own)), "{own:?}");
        }
        for foreign in [
            vec![host, ("origin", "http://127.0.0.1:82")],
            vec![host, ("origin", "http://evil.example")],
            vec![host, ("origin", "null")],
            vec![host, ("sec-fetch-site", "cross-site")],
            vec![host, ("sec-fetch-site", "same-site")],
            vec![
                host,
                ("origin", "http://127.0.0.1:81"),
                ("sec-fetch-site", "cross-site"),
            ],
        ] {
            assert!(!is_own_form(&headers(&foreign)), "{foreign:?}");
        }
    }

    #[test]
    fn tokens_are_the_same_only_whole() {
        assert!(same_token("abc", "abc"));
        for other in ["", "ab", "abd", "abcd"] {
            assert!(!same_token(other, "abc"), "{other}");
        }
        assert!(
            !same_token("", ""),
            "a server without random bits has no token"
        );
    }
}
