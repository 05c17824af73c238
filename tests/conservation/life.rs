//! One life of the service, in time that stands still until it is moved: so what has been done at a
//! moment is known, and looked at.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use hinted_handoff::{
    Config, Durability, HandoffError, HintedHandoff, WhenFull,
    internals::{Store, WallClock},
};
use tokio::time::{Instant, advance};

use crate::{
    common,
    receiver::{Nodes, Receiver},
};

pub type Handoff = HintedHandoff<Bytes>;

/// Dead letters of a node: few, so that the quota is met.
pub const LETTERS: u64 = 3;
pub const GRACE: Duration = Duration::from_secs(30);
pub const PURGE_AFTER: Duration = Duration::from_secs(600);
/// The service looks at what is due this far apart at most.
pub const LOOKS_APART: Duration = Duration::from_secs(60);

pub struct Life {
    pub config: Config,
    pub handoff: Handoff,
    pub receiver: Arc<Receiver>,
    pub opened: Instant,
}

/// Other settings for each life.
pub fn config(dir: &Path, random: &mut fastrand::Rng) -> Config {
    let durabilities = [Durability::Sync, Durability::Buffered];
    let when_full = [WhenFull::Reject, WhenFull::DropOldest, WhenFull::Block];
    let mut some = |limit: u64| random.bool().then_some(limit);
    let limits = (some(12), some(2_500), some(25), some(5_000));
    Config {
        durability: durabilities[random.usize(..2)],
        when_full: when_full[random.usize(..3)],
        max_hints_per_node: limits.0,
        max_bytes_per_node: limits.1,
        max_hints: limits.2,
        max_bytes: limits.3,
        block_timeout: Duration::from_secs(4),
        retry_interval: Duration::from_secs(1),
        retry_max_interval: Duration::from_secs(4),
        send_timeout: Duration::from_secs(5),
        write_timeout: Duration::from_secs(5),
        // Hints of sends that succeed all the same are for the stories of a fan-out.
        hint_after: Duration::from_secs(5),
        shutdown_grace: Duration::from_secs(3),
        max_in_flight: random.usize(1..4),
        window_hints: [3, 64, 8192][random.usize(..3)],
        batch_bytes: [1, 600, 512_000][random.usize(..3)],
        max_attempts: [0, 0, 1, 4][random.usize(..4)],
        max_dead_letters: LETTERS,
        max_age: Duration::from_secs([0, 300, 1200][random.usize(..3)]),
        expiry_grace: GRACE,
        purge_after: PURGE_AFTER,
        ..common::config(dir)
    }
}

impl Life {
    pub async fn begin(config: Config, clock: &WallClock, nodes: &Arc<Nodes>) -> Life {
        let receiver = Arc::new(Receiver::of(nodes));
        let opened = Handoff::open_by_clock(config.clone(), clock.clone(), Arc::clone(&receiver));
        let handoff = opened.await.unwrap();
        assert_eq!(handoff.stats().store.damage, []);
        Life {
            config,
            handoff,
            receiver,
            opened: Instant::now(),
        }
    }

    pub fn store(&self) -> Arc<Store> {
        self.handoff.store_below()
    }

    /// Whatever can be told of how far everything got.
    fn progress(&self, nodes: &Nodes) -> impl PartialEq + use<> {
        let stats = self.handoff.stats();
        let shown = stats.nodes.iter().map(|it| {
            let left = (it.delivered, it.lost, it.dead_lettered, it.dead_letters);
            (it.node, it.pending, left, it.in_flight)
        });
        let answers = nodes.seen(|seen| (seen.calls.clone(), seen.answers.clone()));
        (shown.collect::<Vec<_>>(), stats.store.enqueued, answers)
    }

    /// Lets everything work until nothing is left to do but to wait for the time to pass.
    ///
    /// What is under way goes from a task to the one thread for blocking work, or to the commit
    /// thread, and back to a task: a look is behind all of that. Nothing has a way so long that it
    /// would not be seen within a few looks.
    pub async fn settle(&self, nodes: &Nodes) {
        let mut calm = 0;
        let mut before = self.progress(nodes);
        for _ in 0..20_000 {
            breathe().await;
            tokio::task::spawn_blocking(|| {}).await.unwrap();
            breathe().await;
            // Fails with the store, which is then at rest.
            let _ = self.sync().await;
            let now = self.progress(nodes);
            calm = if now == before { calm + 1 } else { 0 };
            before = now;
            if calm == 4 {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.handoff.stats());
    }

    /// Not the service's, which tells each failure of the store once.
    pub async fn sync(&self) -> Result<(), HandoffError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.store().sync(move |result| drop(tell.send(result)));
        told.await.unwrap_or(Err(HandoffError::ShutDown))
    }

    /// Lets the time pass that some work takes, and no more. Returns when all is at rest.
    pub async fn through<T: Send + 'static>(
        &self,
        nodes: &Nodes,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let work = tokio::spawn(work);
        // No work takes so long.
        for _ in 0..1_000 {
            self.settle(nodes).await;
            if work.is_finished() {
                return work.await.unwrap();
            }
            advance(Duration::from_millis(500)).await;
        }
        panic!("it does not end: {:?}", self.handoff.stats());
    }

    pub async fn shut_down(&self, nodes: &Nodes) {
        let handoff = self.handoff.clone();
        let closed = self.through(nodes, async move { handoff.shutdown().await });
        closed.await.unwrap();
    }
}

/// Lets the tasks go on that can.
pub async fn breathe() {
    for _ in 0..40 {
        tokio::task::yield_now().await;
    }
}
