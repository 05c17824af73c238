//! Durable append with and without a collector that asks for the metrics each second, in
//! alternating rounds.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::{Request, header},
};
use hinted_handoff_admin::{Settings as AdminSettings, router};
use tokio::{task::JoinHandle, time::interval};
use tower::ServiceExt;

use crate::{
    Settings,
    common::{
        Outcome,
        entries::{Entries, POINTS},
        machine::Place,
        ours::{Appender, Handoff, check_pending, open_down},
        producers::{Until, produce},
        report::{Spread, Table, ratio, thousands},
    },
    figures::Figures,
};

const KEY: &str = "append_64_scraped";
const ROUNDS: usize = 8;
/// Some scrapes fall into it.
const ROUND: Duration = Duration::from_secs(5);
const ENTRIES: usize = 20_000;
const PRODUCERS: usize = 64;
/// As often as collectors come at most.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// More than any answer has.
const ANSWER_BYTES: usize = 16 << 20;

pub async fn run(settings: &Settings, place: &Place, figures: &mut Figures) -> Outcome<()> {
    let until = Until::Elapsed(ROUND.mul_f64(settings.scale));
    let entries = Arc::new(Entries::line_protocol(ENTRIES, POINTS)?);
    let (mut table, mut ratios) = (
        Table::new(&["round", "alone/s", "scraped/s", "ratio"]),
        vec![],
    );
    append(place, &entries, until, false).await?;
    for number in 1..=ROUNDS {
        // Each goes first as often as the other.
        let scraped_first = number % 2 == 0;
        let first = append(place, &entries, until, scraped_first).await?;
        let second = append(place, &entries, until, !scraped_first).await?;
        let (alone, scraped) = match scraped_first {
            true => (second, first),
            false => (first, second),
        };
        table.row([
            number.to_string(),
            thousands(alone),
            thousands(scraped),
            ratio(Some(scraped / alone)),
        ]);
        ratios.push(scraped / alone);
    }
    table.print("Durable append by 64 producers, alone and with a scrape each second");
    figures.note(KEY, Spread::of(ratios));
    Ok(())
}

/// Entries a second.
async fn append(
    place: &Place,
    entries: &Arc<Entries>,
    until: Until,
    is_scraped: bool,
) -> Outcome<f64> {
    let dir = place.fresh_dir()?;
    let handoff = open_down(&dir.path().join("store")).await?;
    let scraping = match is_scraped {
        true => Some(scrape(&handoff)?),
        false => None,
    };
    let done = produce(&Appender::new(&handoff, 1), entries, PRODUCERS, until).await?;
    if let Some(scraping) = scraping {
        if scraping.is_finished() {
            return Err(format!("the collector ended: {:?}", scraping.await?).into());
        }
        scraping.abort();
    }
    check_pending(&handoff, &done)?;
    handoff.shutdown().await?;
    Ok(done.per_second())
}

/// Asks for the metrics each second until it is aborted, the first time at once.
fn scrape(handoff: &Handoff) -> Outcome<JoinHandle<Outcome<Infallible>>> {
    let router = router(handoff, AdminSettings::default())?;
    Ok(tokio::spawn(async move {
        let mut every = interval(SCRAPE_EVERY);
        loop {
            every.tick().await;
            let request = Request::get("/metrics").header(header::HOST, "localhost");
            let answer = router.clone().oneshot(request.body(Body::empty())?).await?;
            if !answer.status().is_success() {
                return Err(format!("a scrape was answered with {}", answer.status()).into());
            }
            to_bytes(answer.into_body(), ANSWER_BYTES).await?;
        }
    }))
}
