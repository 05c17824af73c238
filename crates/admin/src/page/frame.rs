//! What all pages are framed by, and what a browser is told about them.

use axum::{
    extract::{FromRequestParts, OriginalUri},
    http::{HeaderName, HeaderValue, Uri, request::Parts},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{form::hex, problem::Problem, settings::Settings};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("refresh.js");
/// A dot in a circle, so that the browser asks for no icon.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='%232f6f4f'/%3E%3Cpath d='M4 8h8M8 4v8' stroke='white' stroke-width='2'/%3E%3C/svg%3E";

/// How a page is shown.
#[derive(Debug, Clone)]
pub struct Frame {
    /// What the path begins with that the host mounted the router at.
    pub base: String,
    /// What is asked for again when the page refreshes itself without scripts.
    again: String,
    /// Names the styles and the script that the browser may take; another one for each page.
    nonce: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Frame {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let original = OriginalUri::from_request_parts(parts, state).await;
        let original = original.map_or_else(|_| parts.uri.clone(), |it| it.0);
        Ok(Frame {
            base: base_of(&original, &parts.uri),
            again: again(parts.uri.query().unwrap_or_default()),
            nonce: random(),
        })
    }
}

/// `/handoff` where `/handoff/nodes/3` was asked for and `/nodes/3` is what the router sees.
fn base_of(original: &Uri, inner: &Uri) -> String {
    let original = original.path();
    let base = original.strip_suffix(inner.path()).unwrap_or(original);
    base.trim_end_matches('/').to_owned()
}

/// The same query without what was done just now, which is told once.
fn again(query: &str) -> String {
    let stays = |it: &&str| !["done=", "node="].iter().any(|name| it.starts_with(name));
    let stay: Vec<&str> = query.split('&').filter(stays).collect();
    format!("?{}", stay.join("&"))
}

/// 128 random bits as text. Without random bits, which Linux always has, there is none.
pub fn random() -> String {
    let mut bits = [0; 16];
    match getrandom::fill(&mut bits) {
        Ok(()) => hex(&bits),
        Err(_) => String::new(),
    }
}

impl Frame {
    /// A page that shows what changes, and refreshes itself.
    pub fn live(&self, settings: &Settings, title: &str, body: &Markup) -> Response {
        self.page(settings, title, body, true)
    }

    /// A page that stays as it is.
    pub fn still(&self, settings: &Settings, title: &str, body: &Markup) -> Response {
        self.page(settings, title, body, false)
    }

    fn page(&self, settings: &Settings, title: &str, body: &Markup, is_live: bool) -> Response {
        let nonce = &self.nonce;
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    @if is_live {
                        noscript { meta http-equiv="refresh" content={ "10; url=" (self.again) }; }
                    }
                    title {
                        (title)
                        @if let Some(host) = &settings.title { " · " (host) }
                    }
                    link rel="icon" href=(ICON);
                    style nonce=(nonce) { (PreEscaped(STYLE)) }
                }
                body {
                    a.skip href="#main" { "To the content" }
                    div #page { (body) }
                    @if is_live {
                        script nonce=(nonce) { (PreEscaped(SCRIPT)) }
                    }
                }
            }
        };
        let mut response = page.into_response();
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
             connect-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        );
        // The nonce is hexadecimal.
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            let name = HeaderName::from_static("content-security-policy");
            response.headers_mut().insert(name, policy);
        }
        response
    }

    /// A page that says why something was not done.
    pub fn problem(&self, settings: &Settings, problem: &Problem) -> Response {
        let body = html! {
            (self.top(settings, html! {}))
            main #main {
                section.card {
                    h2 #problem { (problem.title) }
                    p.cause.bad { (problem.detail) }
                    p { a href={ (self.base) "/" } { "Back to the overview" } }
                }
            }
        };
        let mut response = self.still(settings, problem.title, &body);
        *response.status_mut() = problem.status();
        response
    }

    /// The head of each page, with what stands at its right.
    pub fn top(&self, settings: &Settings, right: Markup) -> Markup {
        html! {
            header.top {
                h1 {
                    a href={ (self.base) "/" } { "Hinted handoff" }
                    @if let Some(host) = &settings.title { " " span.host { (host) } }
                }
                div.right {
                    (right)
                    @if settings.read_only { span.pill title="Nothing can be changed here" { "read-only" } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_begin_with_the_path_that_the_router_is_mounted_at() {
        for (original, inner, base) in [
            ("/", "/", ""),
            ("/nodes/3?sort=age", "/nodes/3", ""),
            ("/handoff", "/", "/handoff"),
            ("/handoff/", "/", "/handoff"),
            ("/a/b/nodes/3", "/nodes/3", "/a/b"),
        ] {
            let (original, inner) = (original.parse().unwrap(), inner.parse().unwrap());
            assert_eq!(base_of(&original, &inner), base);
        }
    }
}
