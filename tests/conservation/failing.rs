//! Ends of lives: clean, as a crash leaves it, and a storage that fails under a service that lives
//! on.

use std::time::Duration;

use hinted_handoff::{
    Accepted, FailedOutcome, HandoffError, Health, NodeId, Pause, ShardId, internals::CommitFault,
};
use tokio::time::advance;

use crate::{
    audit::{NODES, Step},
    common::{copy::copy_of, frozen::until},
    life::{Life, breathe, config},
    service::ServiceStory,
};

const UNDONE: Step = Step {
    undone: true,
    discards: false,
    renamed: None,
};

impl ServiceStory {
    async fn begin_anew(&mut self) {
        let config = config(self.dir.path(), &mut self.random);
        let life = Life::begin(config, &self.clock, &self.nodes).await;
        self.ended = Some(std::mem::replace(&mut self.life, life));
        self.paused.retain(|_, how| *how == Pause::Lasting);
        self.paused_all = self.paused_all.filter(|how| *how == Pause::Lasting);
        self.parked.values_mut().for_each(|since| *since = None);
        self.calls_held.clear();
        self.waiting.clear();
    }

    pub async fn reopen(&mut self) -> Step {
        self.life.shut_down(&self.nodes).await;
        self.begin_anew().await;
        self.count("reopened", 1);
        Step::default()
    }

    /// Hints are handed in, and what came of them nobody hears.
    fn write_unheard(&mut self) {
        for _ in 0..self.random.usize(..4) {
            let (node, shard) = (NODES[self.random.usize(..NODES.len())], self.shard());
            let (number, entry, payload) = self.new_hint(node, shard);
            let handoff = self.handoff();
            self.unknown.insert(number, entry);
            tokio::spawn(async move {
                let written = handoff.write_shard(NodeId(node), ShardId(shard), &payload);
                written.await
            });
        }
    }

    /// What a crash leaves: all that is durable, and perhaps what is not. In half of them the disk
    /// hangs before, so nothing becomes durable any more, while hints are taken and acknowledged.
    pub async fn crash(&mut self) -> Step {
        if self.random.bool() {
            self.life.handoff.inject(CommitFault::Hang);
            self.write_unheard();
            for _ in 0..self.random.u32(..6) {
                advance(Duration::from_secs(1)).await;
                for _ in 0..5 {
                    breathe().await;
                    tokio::task::spawn_blocking(|| {}).await.unwrap();
                }
            }
        }
        self.life.receiver.cut();
        let copy = copy_of(self.dir.path());
        self.life.handoff.disk_works_again();
        self.life.shut_down(&self.nodes).await;
        self.dir = copy;
        self.begin_anew().await;
        self.count("crashed", 1);
        UNDONE
    }

    /// The storage fails under whatever goes on; the store reopens itself.
    pub async fn fail(&mut self, node: u64) -> Step {
        let store = self.life.store();
        let reopens = store.reopens();
        self.life.handoff.inject(CommitFault::Fail);
        for _ in 0..self.random.u32(..3) {
            advance(Duration::from_secs(1)).await;
            self.life.settle(&self.nodes).await;
        }
        let shard = self.shard();
        let (number, entry, payload) = self.new_hint(node, shard);
        let handoff = self.handoff();
        let write = async move {
            let written = handoff.write_shard(NodeId(node), ShardId(shard), &payload);
            written.await
        };
        match self.life.through(&self.nodes, write).await {
            Ok(Accepted::Durable(id)) => panic!("{id} cannot be durable"),
            Err(error) if error.outcome() == FailedOutcome::Refused => {}
            Ok(_) | Err(_) => drop(self.unknown.insert(number, entry)),
        }
        self.life.handoff.disk_works_again();
        self.waiting.clear();
        let is_well = || matches!(store.health(), Health::Serving);
        until("the store is reopened", is_well).await;
        if store.reopens() == reopens {
            // The hint was refused by a limit, and nothing else was to be written.
            return UNDONE;
        }
        let told = self.life.handoff.sync().await;
        assert!(
            matches!(told, Err(HandoffError::FailedMeanwhile)),
            "{told:?}"
        );
        self.life.handoff.sync().await.unwrap();
        self.nodes.note_failure();
        self.count("storage failures", 1);
        UNDONE
    }
}
