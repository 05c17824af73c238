//! `/metrics`: OpenMetrics text of one look at the handoff.

mod attribution;
mod families;
mod out;

use std::{fmt, sync::Arc};

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use hinted_handoff::{Config, Health, Payload, Stats, WeakHandoff};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    registry::Registry,
};

use self::{attribution::Attribution, out::Out};
use crate::{
    problem::{Kind, Problem},
    settings::Settings,
    watch::Watch,
};

/// The media type of OpenMetrics.
const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What all names begin with.
const PREFIX: &str = "hinted_handoff";

/// One look.
struct Look {
    health: Health,
    /// `None` once the handoff is gone.
    stats: Option<(Stats, Arc<Config>)>,
}

/// The metrics of a handoff.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Registry>);

impl Metrics {
    pub fn new<P: Payload>(
        handoff: WeakHandoff<P>,
        watch: Arc<Watch>,
        settings: Arc<Settings>,
    ) -> Metrics {
        let look = move || match handoff.upgrade() {
            Some(handoff) => Look {
                health: handoff.health(),
                stats: Some((handoff.stats(), handoff.config())),
            },
            None => Look {
                health: Health::ShutDown,
                stats: None,
            },
        };
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Scrape {
            look: Box::new(look),
            watch,
            settings,
            attribution: Mutex::default(),
        }));
        Metrics(Arc::new(registry))
    }

    pub fn text(&self) -> Result<String, Problem> {
        let mut text = String::with_capacity(64 * 1024);
        let encoded = text::encode(&mut text, &self.0);
        encoded.map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
        Ok(text)
    }
}

/// Answers a scrape.
pub async fn scrape(metrics: Metrics) -> Result<Response, Problem> {
    let text = metrics.text()?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}

struct Scrape {
    look: Box<dyn Fn() -> Look + Send + Sync>,
    watch: Arc<Watch>,
    settings: Arc<Settings>,
    /// Guards what was counted at the last scrape, for a look.
    attribution: Mutex<Attribution>,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Taken under the lock, so that of two scrapes the later one has the later counts.
        let mut attribution = self.attribution.lock();
        let look = (self.look)();
        let known = look.stats.as_ref().map(|(stats, config)| {
            let shown = attribution.look(&stats.nodes, self.settings.metrics_nodes);
            (stats, config, shown)
        });
        // The host is asked for names below, and may take its time.
        drop(attribution);
        let mut out = Out::new(encoder);
        families::state(&mut out, &look.health, known.is_some())?;
        let Some((stats, config, shown)) = known else {
            return Ok(());
        };
        families::store(&mut out, stats, config)?;
        families::until_full(&mut out, self.watch.filling())?;
        families::nodes(&mut out, &shown)?;
        families::names(&mut out, &shown, |node| self.settings.name(node))
    }
}
