//! Settings that change while it runs.

use std::sync::Arc;

use super::handoff::{HintedHandoff, Inner};
use crate::{blocking::block_on, config::Config, error::HandoffError, payload::Payload};

impl<P: Payload> HintedHandoff<P> {
    /// The settings in effect.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.inner.config.read())
    }

    /// Changes settings while it runs. `change` is given those in effect; returns when those that
    /// it leaves are. One call at a time: `change` must not call `reconfigure` itself. Nothing of
    /// this is stored: the next open goes by its own configuration.
    ///
    /// What can change: the rates and bounds of replay (`retry_rate_limit`,
    /// `retry_rate_limit_total`, `batch_bytes`, `send_timeout`, `max_in_flight`, `max_sends`,
    /// `max_bytes_in_flight`, `window_hints`, `window_bytes`, `max_attempts`), `max_age`, what may
    /// be pending (`max_hints`, `max_bytes`, and both a node), `max_entry_bytes`, and what a write
    /// of a [`PointsWriter`](crate::PointsWriter) goes by (`write_timeout`, `answer`,
    /// `on_not_stored`, `fail_early`). Hints that are pending stay where a limit is less than they
    /// are by now; no others are taken until enough have left.
    ///
    /// Where something of replay changes, the tasks of all nodes begin anew, after what is in
    /// flight; so this may take as long as
    /// [`Config::shutdown_grace`](crate::Config::shutdown_grace). It waits for nodes that are being
    /// renamed or removed.
    ///
    /// ```
    /// # use hinted_handoff::*;
    /// # struct Nobody;
    /// # impl ShardWriter<String> for Nobody {
    /// #     async fn write_shard(&self, _: ShardWrite<String>) -> Result<(), WriteError> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let config = Config::new(dir.path().join("hints"));
    /// # let handoff: HintedHandoff<String> = HintedHandoff::open(config, Nobody).await?;
    /// handoff.reconfigure(|config| config.retry_rate_limit = 1024 * 1024).await?;
    /// assert_eq!(handoff.config().retry_rate_limit, 1024 * 1024);
    ///
    /// let refused = handoff.reconfigure(|config| config.dir = "elsewhere".into()).await;
    /// assert!(matches!(refused, Err(HandoffError::Setting(_))));
    /// # handoff.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`HandoffError::Setting`] with the first setting that is out of range or cannot change
    /// while it runs: then none is changed. Or why the store does not serve.
    pub async fn reconfigure(
        &self,
        change: impl FnOnce(&mut Config) + Send,
    ) -> Result<(), HandoffError> {
        let inner = Arc::clone(&self.inner);
        inner.store.check_serving()?;
        // One at a time: what is told to others last is what is in effect.
        let turn = Arc::clone(&inner.changes).acquire_owned().await;
        let turn = turn.map_err(|_| HandoffError::ShutDown)?;
        let before = self.config();
        let mut then = Config::clone(&before);
        // The host's code, so with no lock held.
        change(&mut then);
        before.check_change(&then)?;
        self.to_its_end(async move {
            inner.apply(&before, Arc::new(then)).await;
            drop(turn);
            Ok(())
        })
        .await
    }

    /// [`reconfigure`](HintedHandoff::reconfigure) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `reconfigure`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `reconfigure` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn reconfigure_blocking(
        &self,
        change: impl FnOnce(&mut Config) + Send,
    ) -> Result<(), HandoffError> {
        block_on(self.reconfigure(change))
    }
}

impl Inner {
    /// Puts settings in effect for whoever looks at them, and tells those who keep some. The caller
    /// has the permit of `changes`.
    async fn apply(&self, before: &Config, then: Arc<Config>) {
        *self.config.write() = Arc::clone(&then);
        self.store.set_limits(&then);
        if then.max_age != before.max_age {
            self.ageing.set_max_age(then.max_age);
        }
        if before.changes_replay(&then) {
            self.restart_replay(&then).await;
        }
    }
}
