//! Dead letters: a list of them, and one with what it holds.

use std::time::SystemTime;

use axum::{extract::State, response::Response};
use hinted_handoff::{DeadLetter, DeadReason, Payload};
use maud::{Markup, html};

use super::{act::Act, actions::button, frame::Frame, words};
use crate::{
    api::{How, Shown},
    extract::{HintPath, Path},
    form::unix_ms,
    problem::{Problem, with_causes},
    settings::Settings,
    state::Admin,
};

/// Bytes of a payload that are shown.
const SHOWN: usize = 16 * 1024;

fn moment(at: SystemTime) -> String {
    words::moment(unix_ms(at))
}

fn reason(reason: DeadReason) -> &'static str {
    match reason {
        DeadReason::Rejected => "rejected",
        DeadReason::Attempts => "tried too often",
        DeadReason::Undecodable => "does not decode",
        _ => "unknown reason",
    }
}

/// A list of letters.
pub fn list(base: &str, settings: &Settings, letters: &[DeadLetter]) -> Markup {
    html! {
        ul.plain {
            @for letter in letters {
                li {
                    div.head {
                        p {
                            span.pill.warn { (reason(letter.reason)) } " "
                            "node " (words::node(settings, letter.node)) ", shard " (letter.shard) " "
                            span.sub {
                                (words::bytes(letter.payload_bytes)) ", "
                                (words::counted(letter.attempts.into(), "try", "tries")) ", last "
                                (moment(letter.last_failed)) " UTC, id "
                                code { (letter.id) }
                            }
                        }
                        div.right {
                            a.sub href={ (base) "/nodes/" (letter.node) "/letters/" (letter.id) } { "Content" }
                            (buttons(base, settings, letter))
                        }
                    }
                    p.cause { (words::cause(&letter.error)) }
                }
            }
        }
    }
}

fn buttons(base: &str, settings: &Settings, letter: &DeadLetter) -> Markup {
    let (node, hint) = (Some(letter.node), Some(letter.id));
    html! {
        @if !settings.read_only {
            (button(base, Act::Redrive, node, hint))
            (button(base, Act::Discard, node, hint))
        }
    }
}

/// One with what it holds.
pub async fn letter<P: Payload>(
    frame: Frame,
    State(admin): State<Admin<P>>,
    path: Result<Path<HintPath>, Problem>,
) -> Response {
    let settings = admin.settings();
    let shown = async {
        let Path(path) = path?;
        let handoff = admin.handoff()?;
        let content = admin
            .call(handoff.dead_letter(path.node, path.hint()))
            .await?;
        let payload = payload(settings, content.format, &content.raw)?;
        let letter = &content.letter;
        let error = content.points.err().map(|it| with_causes(&it));
        Ok(html! {
            (frame.top(settings, html! {}))
            main #main {
                section.card {
                    h2 { "Dead letter " (letter.id) }
                    (list(&frame.base, settings, std::slice::from_ref(letter)))
                }
                section.card {
                    h2 { "Content" }
                    @if let Some(error) = error { p.cause.bad { (error) } }
                    p.sub {
                        "Enqueued " (moment(content.enqueued)) " UTC, payload format " (content.format)
                        @if let Some(first) = content.redriven_from { ", sent on before as " (first) }
                    }
                    (payload)
                }
                p { a href={ (frame.base) "/nodes/" (letter.node) } { "Back to node " (words::node(settings, letter.node)) } }
            }
        })
    };
    match shown.await {
        Ok(body) => frame.still(settings, "Dead letter", &body),
        Err(problem) => frame.problem(settings, &problem),
    }
}

/// A payload for people: as the host's decoder says, as text, or as digits.
pub fn payload(settings: &Settings, format: u16, raw: &[u8]) -> Result<Markup, Problem> {
    let shown = Shown::new(settings, format, raw, &How::hex(SHOWN))?;
    let is_all = raw.len() <= SHOWN;
    let beginning = raw.get(..SHOWN).unwrap_or(raw);
    let beginning = match std::str::from_utf8(beginning) {
        Ok(text) => Some(text),
        // Only the last character is cut.
        Err(error) if !is_all && error.error_len().is_none() => {
            let whole = beginning.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(whole).ok()
        }
        Err(_) => None,
    };
    let is_text = |text: &&str| {
        !text
            .chars()
            .any(|it| it.is_control() && !it.is_whitespace())
    };
    let plain = beginning.filter(is_text);
    let text = match (&shown.decoded, plain) {
        (Some(serde_json::Value::String(text)), _) => text.clone(),
        (Some(value), _) => serde_json::to_string_pretty(value).unwrap_or_default(),
        (None, Some(text)) => text.to_owned(),
        (None, None) => shown.payload.clone(),
    };
    Ok(html! {
        @if let Some(error) = &shown.decode_error { p.cause.bad { "The decoder says: " (error) } }
        pre { (text) }
        @if !is_all && shown.decoded.is_none() {
            p.sub { "The first " (words::bytes(SHOWN as u64)) " of " (words::bytes(shown.payload_bytes)) "." }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn shown(settings: &Settings, raw: &[u8]) -> String {
        payload(settings, 0, raw).unwrap().into_string()
    }

    #[test]
    fn a_text_that_is_cut_within_a_character_is_a_text() {
        let settings = Settings::default();
        let long = format!("a{}", "ü".repeat(SHOWN));
        let text = shown(&settings, long.as_bytes());
        let whole = format!("<pre>a{}</pre>", "ü".repeat(SHOWN / 2 - 1));
        assert!(
            text.contains(&whole) && text.contains("The first"),
            "{text}"
        );
        // What is no text anywhere else is none, and neither is one that ends so.
        let mut broken = long.into_bytes();
        broken[2] = b'x';
        assert!(shown(&settings, &broken).contains("<pre>61c3"));
        assert!(shown(&settings, b"a\xc3").contains("<pre>61c3</pre>"));
    }

    #[test]
    fn a_payload_that_is_too_long_for_the_decoder_is_shown_with_that() {
        let settings = Settings {
            decoder: Some(Arc::new(|_, _| Ok("decoded".into()))),
            ..Settings::default()
        };
        assert!(shown(&settings, &[b'a'; 1 << 20]).contains("<pre>decoded</pre>"));
        let long = shown(&settings, &[b'a'; (1 << 20) + 1]);
        assert!(long.contains("1048577 bytes are too many for the decoder"));
        let none = shown(&Settings::default(), &[b'a'; (1 << 20) + 1]);
        assert!(!none.contains("decoder"), "there is none");
    }
}
