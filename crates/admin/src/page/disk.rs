//! The disk of the store, and when it will be full.

use std::time::Duration;

use hinted_handoff::StoreStats;
use maud::{Markup, html};

use super::words;
use crate::disk::Filling;

/// With less time than this it is time to act; with less than the other one, to look.
const SOON: Duration = Duration::from_secs(3600);
const LATER: Duration = Duration::from_secs(86_400);

/// In a few words.
pub fn filling(filling: Filling) -> String {
    match filling {
        Filling::Unknown => "–".to_owned(),
        Filling::No => "not filling".to_owned(),
        Filling::FullIn(Duration::ZERO) => "full".to_owned(),
        Filling::FullIn(time) => format!("full in {}", words::time(time)),
    }
}

/// How it is coloured.
pub fn class(filling: Filling) -> &'static str {
    match filling.full_in() {
        Some(time) if time < SOON => "bad",
        Some(time) if time < LATER => "warn",
        _ => "",
    }
}

/// What it takes, what there is, and when that will be used up.
pub fn card(store: &StoreStats, max_disk_bytes: Option<u64>, now: Filling) -> Markup {
    let free = store.free_disk_bytes.map(words::bytes);
    let reserve = match store.reserve_bytes {
        0 => "none".to_owned(),
        bytes => words::bytes(bytes),
    };
    let until = match now {
        Filling::Unknown => "too few samples yet".to_owned(),
        Filling::FullIn(time) if !time.is_zero() => {
            format!("{}, at the rate of the last minutes", filling(now))
        }
        _ => filling(now),
    };
    let most = max_disk_bytes.map_or_else(|| "no limit".to_owned(), words::bytes);
    let facts = [
        ("Log", words::bytes(store.log_bytes)),
        ("Log at most", most),
        (
            "Free on the disk",
            free.unwrap_or_else(|| "unknown".to_owned()),
        ),
        ("Of it kept free", reserve),
        ("Until full", until),
        ("Compactions since open", words::count(store.compactions)),
    ];
    html! {
        section.card #disk {
            h2 { "Disk" }
            dl.facts {
                @for (name, value) in facts { div { dt { (name) } dd { (value) } } }
            }
        }
    }
}
