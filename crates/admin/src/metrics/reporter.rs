//! What a host calls to have the figures in the `metrics` facade.

use std::sync::Arc;

use hinted_handoff::{HintedHandoff, Payload};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Source, facade::Facade, out::Out};
use crate::{routes::NoRuntime, settings::Settings, watch::Watch};

/// Reports the figures of `/metrics` through the facade of the crate [`metrics`](::metrics), for
/// hosts that have their own figures there. Needs the feature `metrics`.
///
/// A report is one look at the statistics. Nothing is added to the path of writes, and nothing
/// happens between reports. The host calls [`report`](Reporter::report) as often as its figures
/// are read, by a task of its own:
///
/// ```
/// # use hinted_handoff::*;
/// use hinted_handoff_admin::{NoRuntime, Reporter, Settings};
/// use std::time::Duration;
/// use tokio::{task::JoinHandle, time::interval};
///
/// // The recorder is installed before that. Abort the task when the handoff is shut down.
/// fn report(handoff: &HintedHandoff<String>) -> Result<JoinHandle<()>, NoRuntime> {
///     let reporter = Reporter::new(handoff, Settings::default())?;
///     Ok(tokio::spawn(async move {
///         let mut ticks = interval(Duration::from_secs(10));
///         loop {
///             ticks.tick().await;
///             reporter.report();
///         }
///     }))
/// }
/// ```
///
/// # Names
///
/// Names, labels and units are those of `/metrics` to the letter: `hinted_handoff_log_bytes`,
/// `hinted_handoff_enqueued_hints_total`. `metrics-exporter-prometheus` prints them as they are. So
/// it does with its `with_recommended_naming`, which adds units and `_total` to names that lack
/// them. Alerts and dashboards for `/metrics` work on both, but for histograms.
///
/// A histogram of the facade takes single samples, which a look at sums does not have. Of the
/// histograms of `/metrics` there is the gauge `hinted_handoff_append_seconds_count` and the gauge
/// `hinted_handoff_append_seconds_sum`, and so for `group` and `send`: means, but no quantiles.
/// They are gauges because an exporter may add `_total` to the name of a counter.
///
/// # What the facade cannot do
///
/// - **Nothing can be taken away.** A gauge that `/metrics` shows no more, as those of a node that
///   was removed, is set once more: to 0 if it has labels and counts something, so that sums stay
///   right, else to NaN, which is not known. Of a node with another name or in another state both
///   series are there, and one is 0: ask for `== 1`. Once the handoff is gone, all but `up` and
///   `health` are NaN. Counters keep their last value. An exporter that drops what is not
///   reported any more (`PrometheusBuilder::idle_timeout`) drops these, too; it also tells a host
///   whose reports stopped from one where nothing changes.
/// - **A counter never falls.** Where one of `/metrics` begins anew, since a node that was removed
///   is back, that of the facade goes on: rates are right. For a handoff that is opened again in
///   the same process call [`follow`](Reporter::follow); by another `Reporter` its counters would
///   stand still until they pass those of the one before.
/// - **Two handoffs of a process have the same names.** Report each into a recorder of its own, or
///   one that adds a label or a prefix, by `metrics::with_local_recorder`.
#[derive(Debug)]
pub struct Reporter {
    source: Source,
    settings: Arc<Settings>,
    /// Guards what was told to the recorder, for a report.
    facade: Mutex<Facade>,
}

impl Reporter {
    /// A reporter for this handoff. Of the settings it heeds
    /// [`metrics_nodes`](Settings::metrics_nodes) and [`node_names`](Settings::node_names).
    ///
    /// It does not keep the handoff alive. A task on the runtime of the caller remembers how free
    /// disk space changes, for `hinted_handoff_until_full_seconds`; it ends when this is dropped.
    ///
    /// # Errors
    /// [`NoRuntime`] if it is called where no tokio runtime is.
    pub fn new<P: Payload>(
        handoff: &HintedHandoff<P>,
        settings: Settings,
    ) -> Result<Reporter, NoRuntime> {
        let settings = Arc::new(settings);
        Ok(Reporter {
            source: source(handoff, &settings)?,
            settings,
            facade: Mutex::default(),
        })
    }

    /// Sets all gauges and counters to what they are now. Without a recorder this does nothing.
    ///
    /// It waits for no disk and no network, and may be called on a thread of a runtime. It calls
    /// the recorder and the host's [`node_names`](Settings::node_names). Reports of several threads
    /// wait for each other.
    pub fn report(&self) {
        let mut facade = self.facade.lock();
        // Only text fails to be written.
        let is_up = self.source.write(&mut Out::Facade(&mut facade));
        facade.end(is_up.unwrap_or_default());
    }

    /// Reports another handoff from now on: the one that a host opened again after it shut this
    /// one down. Counters go on from where they are.
    ///
    /// # Errors
    /// [`NoRuntime`] if it is called where no tokio runtime is. Then nothing has changed.
    pub fn follow<P: Payload>(&mut self, handoff: &HintedHandoff<P>) -> Result<(), NoRuntime> {
        self.source = source(handoff, &self.settings)?;
        self.facade.get_mut().begin_anew();
        Ok(())
    }
}

fn source<P: Payload>(
    handoff: &HintedHandoff<P>,
    settings: &Arc<Settings>,
) -> Result<Source, NoRuntime> {
    let runtime = Handle::try_current().map_err(|_| NoRuntime)?;
    let watch = Watch::begin(handoff, &runtime, CancellationToken::new());
    let settings = Arc::clone(settings);
    Ok(Source::new(handoff.downgrade(), Arc::new(watch), settings))
}
