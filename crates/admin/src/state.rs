//! What all requests share.

use std::{future::Future, sync::Arc, time::Duration};

use hinted_handoff::{HandoffError, HintedHandoff, Losses, Payload, WeakHandoff};
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    form::now_unix_ms,
    page::random,
    problem::{Kind, Problem},
    settings::Settings,
    watch::Watch,
};

/// How long a call of the library may take that waits for nothing but the store.
const CALL_TIME: Duration = Duration::from_secs(30);
/// How long a call may take that reads through a long queue, or writes much.
pub const LONG: Duration = Duration::from_secs(300);
/// The longest wait that a request may ask for.
pub const WAIT_MAX: Duration = Duration::from_secs(300);
/// Losses that the page shows, and how long they are shown before the journal is asked again.
const LOSSES: u64 = 10;
const LOSSES_AFTER: Duration = Duration::from_secs(30);
/// Listeners for events at a time.
const STREAMS: usize = 16;

/// The last entries of the loss journal.
#[derive(Debug, Clone)]
pub struct Journal {
    pub losses: Arc<Losses>,
    /// When it was asked, in milliseconds since 1970.
    pub asked_unix_ms: u64,
    /// What [`Watch::losses_told`] said before it was asked.
    losses_told: u64,
}

/// A handoff that is shown, and how. It does not keep that alive.
pub struct Admin<P: Payload>(Arc<Shared<P>>);

struct Shared<P: Payload> {
    handoff: WeakHandoff<P>,
    settings: Arc<Settings>,
    watch: Arc<Watch>,
    streams: Arc<Semaphore>,
    /// Taken for the time of an import, whose body may be large.
    imports: Semaphore,
    /// What forms of the page are told by.
    token: String,
    /// What the page shows of the loss journal, and since when. Guarded for a copy.
    losses: Mutex<Option<(Instant, Journal)>>,
    /// Cancelled when whoever serves the router stops.
    stop: CancellationToken,
}

impl<P: Payload> Clone for Admin<P> {
    fn clone(&self) -> Self {
        Admin(Arc::clone(&self.0))
    }
}

impl<P: Payload> Admin<P> {
    pub fn new(
        handoff: &HintedHandoff<P>,
        settings: Arc<Settings>,
        watch: Arc<Watch>,
        stop: CancellationToken,
    ) -> Self {
        Admin(Arc::new(Shared {
            handoff: handoff.downgrade(),
            settings,
            watch,
            streams: Arc::new(Semaphore::new(STREAMS)),
            imports: Semaphore::new(1),
            token: random(),
            losses: Mutex::default(),
            stop,
        }))
    }

    /// The handoff, for as long as a request needs it.
    pub fn handoff(&self) -> Result<HintedHandoff<P>, Problem> {
        let handoff = self.0.handoff.upgrade();
        handoff.ok_or_else(|| HandoffError::ShutDown.into())
    }

    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub fn watch(&self) -> &Watch {
        &self.0.watch
    }

    pub fn streams(&self) -> &Arc<Semaphore> {
        &self.0.streams
    }

    pub fn imports(&self) -> &Semaphore {
        &self.0.imports
    }

    pub fn token(&self) -> &str {
        &self.0.token
    }

    /// The last losses, and the sums of all. A look at the journal closes entries that grow, so it
    /// is asked only if anything was lost since, and not each time that a page refreshes itself.
    pub async fn losses(&self) -> Result<Journal, Problem> {
        let known = self.0.losses.lock().clone();
        if let Some((at, journal)) = known
            && (at.elapsed() < LOSSES_AFTER || journal.losses_told == self.0.watch.losses_told())
        {
            return Ok(journal);
        }
        let journal = self.ask_journal().await?;
        *self.0.losses.lock() = Some((Instant::now(), journal.clone()));
        Ok(journal)
    }

    async fn ask_journal(&self) -> Result<Journal, Problem> {
        // Before the journal is asked: what is lost meanwhile has it asked again.
        let losses_told = self.0.watch.losses_told();
        let handoff = self.handoff()?;
        let sums = self.call(handoff.losses(u64::MAX)).await?;
        let since = sums.next.saturating_sub(LOSSES);
        Ok(Journal {
            losses: Arc::new(self.call(handoff.losses(since)).await?),
            asked_unix_ms: now_unix_ms(),
            losses_told,
        })
    }

    pub fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// A call of the library, for no longer than it should take.
    pub async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, HandoffError>>,
    ) -> Result<T, Problem> {
        self.within(CALL_TIME, call).await
    }

    /// A call that waits for so long by itself.
    pub async fn wait<T>(
        &self,
        wait: Duration,
        call: impl Future<Output = Result<T, HandoffError>>,
    ) -> Result<T, Problem> {
        self.within(wait.saturating_add(CALL_TIME), call).await
    }

    async fn within<T>(
        &self,
        time: Duration,
        call: impl Future<Output = Result<T, HandoffError>>,
    ) -> Result<T, Problem> {
        tokio::select! {
            biased;
            done = timeout(time, call) => match done {
                Ok(done) => Ok(done?),
                Err(_) => Err(Problem::new(Kind::TimedOut, format!(
                    "no answer within {} s; what was asked for may still come into effect", time.as_secs(),
                ))),
            },
            () = self.0.stop.cancelled() => Err(Problem::new(
                Kind::ShutDown,
                "this interface is being stopped; what was asked for may still come into effect",
            )),
        }
    }
}

/// A wait as a request asks for it.
pub fn wait_of(timeout_ms: Option<u64>) -> Result<Duration, Problem> {
    let wait = Duration::from_millis(timeout_ms.unwrap_or(0));
    match wait <= WAIT_MAX {
        true => Ok(wait),
        false => Err(Problem::invalid(format!(
            "timeout_ms = {}: give 0 to {}, and ask again",
            wait.as_millis(),
            WAIT_MAX.as_millis()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;
    use hinted_handoff::{Config, Event, NodeId, ShardId};
    use hinted_handoff_testkit::{Reply, ScriptedWriter};
    use tokio::runtime::Handle;

    use super::*;
    use crate::watch::Told;

    /// As if the journal was asked so long ago that a loss since is of interest.
    fn age(admin: &Admin<Bytes>) {
        if let Some((at, _)) = &mut *admin.0.losses.lock() {
            *at -= LOSSES_AFTER;
        }
    }

    #[tokio::test]
    async fn a_loss_is_shown_though_who_asked_first_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let writer = ScriptedWriter::new(|_| Reply::Retry);
        let config = Config {
            min_free_disk: 0,
            ..Config::new(dir.path().join("hints"))
        };
        let handoff: HintedHandoff<Bytes> = HintedHandoff::open(config, writer).await.unwrap();
        let stop = CancellationToken::new();
        let watch = Watch::begin(&handoff, &Handle::current(), stop.clone()).into();
        let admin = Admin::new(&handoff, Arc::default(), watch, stop);
        assert_eq!(admin.losses().await.unwrap().losses.entries.len(), 0);

        let (node, points) = (NodeId(2), Bytes::from_static(b"a"));
        handoff
            .write_shard(node, ShardId(7), &points)
            .await
            .unwrap();
        handoff.remove_node(node).await.unwrap();
        let is_loss = |it: &(u64, Told)| matches!(it.1, Told::Event(Event::Lost(_)));
        while !admin.watch().told().iter().any(is_loss) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        age(&admin);
        let dropped = admin.losses().now_or_never();
        assert!(dropped.is_none(), "it was under way: {dropped:?}");
        age(&admin);
        let shown = admin.losses().await.unwrap();
        assert_eq!(shown.losses.entries.len(), 1);
    }
}
