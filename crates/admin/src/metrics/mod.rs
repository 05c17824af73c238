//! One look at the handoff as metrics: `/metrics`, which is OpenMetrics text, and the `metrics`
//! facade.

mod attribution;
#[cfg(feature = "metrics")]
mod facade;
mod families;
mod out;
#[cfg(feature = "metrics")]
mod reporter;
mod text;

use std::{fmt, sync::Arc};

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use hinted_handoff::{Config, Health, Payload, Stats, WeakHandoff};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{self, DescriptorEncoder},
    registry::Registry,
};

#[cfg(feature = "metrics")]
pub use self::reporter::Reporter;
use self::{attribution::Attribution, out::Out, text::Text};
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

/// The text of the metrics of a handoff.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Registry>);

impl Metrics {
    pub fn new<P: Payload>(
        handoff: WeakHandoff<P>,
        watch: Arc<Watch>,
        settings: Arc<Settings>,
    ) -> Metrics {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Source::new(handoff, watch, settings)));
        Metrics(Arc::new(registry))
    }

    pub fn text(&self) -> Result<String, Problem> {
        let mut text = String::with_capacity(64 * 1024);
        let encoded = encoding::text::encode(&mut text, &self.0);
        encoded.map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
        Ok(text)
    }
}

/// Answers a scrape.
pub async fn scrape(metrics: Metrics) -> Result<Response, Problem> {
    let text = metrics.text()?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}

/// What the figures are taken from.
struct Source {
    look: Box<dyn Fn() -> Look + Send + Sync>,
    watch: Arc<Watch>,
    settings: Arc<Settings>,
    /// Guards what was counted at the last look, for a look.
    attribution: Mutex<Attribution>,
}

impl Source {
    fn new<P: Payload>(
        handoff: WeakHandoff<P>,
        watch: Arc<Watch>,
        settings: Arc<Settings>,
    ) -> Source {
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
        Source {
            look: Box::new(look),
            watch,
            settings,
            attribution: Mutex::default(),
        }
    }

    /// Writes all families as they are now. Returns whether the handoff is there.
    fn write(&self, out: &mut Out<'_>) -> Result<bool, fmt::Error> {
        // Taken under the lock, so that of two scrapes the later one has the later counts.
        let mut attribution = self.attribution.lock();
        let look = (self.look)();
        let known = look.stats.as_ref().map(|(stats, config)| {
            let shown = attribution.look(&stats.nodes, self.settings.metrics_nodes);
            (stats, config, shown)
        });
        // The host is asked for names below, and may take its time.
        drop(attribution);
        families::state(out, &look.health, known.is_some())?;
        let Some((stats, config, shown)) = known else {
            return Ok(false);
        };
        families::store(out, stats, config)?;
        families::until_full(out, self.watch.filling())?;
        families::nodes(out, &shown)?;
        families::names(out, &shown, |node| self.settings.name(node))?;
        Ok(true)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl Collector for Source {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.write(&mut Out::Text(Text(encoder))).map(drop)
    }
}
