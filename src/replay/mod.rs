//! Replay: one task a node that sends what waits, several shards at a time, each in order, until
//! nothing does.

mod aside;
mod backoff;
mod claim;
mod end;
mod expired;
mod filling;
mod give_up;
mod host_code;
mod landing;
mod line;
mod node_handle;
mod node_processor;
mod position;
mod progress;
mod pulse;
mod rate;
mod rate_limit;
mod reading;
mod round;
mod scheduler;
mod send;
mod send_limits;
mod settings;
mod shard;
mod supervision;
mod window;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::Admission,
    config::Config,
    error::{HandoffError, ReplayStopped, ReplayTask, RuntimeProblem},
    events::Events,
    links::Links,
    payload::Payload,
    shard_writer::ShardWriter,
    stats::{DurationCounts, Durations},
    store::{QueueRef, Store},
    types::NodeId,
};
pub use expired::lose;
pub use host_code::caught;
use node_handle::{ManualNode, NodeHandle};
use node_processor::NodeProcessor;
pub use progress::Progress;
pub use pulse::Pulse;
use reading::Reads;
use settings::Settings;
pub use supervision::Ended;
use supervision::Supervision;

/// Starts the task of a node.
type Start = Box<dyn Fn(NodeId, Arc<NodeHandle>) + Send + Sync>;

/// The node processors, by node.
///
/// `nodes` guards the map alone: it is held for a look-up and never across an await or a call into
/// the store. The commit thread takes it (through [`wake`](Replays::wake)) while it holds no lock
/// of its own.
pub struct Replays {
    /// Nodes that have no task. Never changes.
    manual: HashMap<NodeId, ManualNode>,
    nodes: Mutex<HashMap<NodeId, Arc<NodeHandle>>>,
    start: OnceLock<Start>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Starts tasks again that fail.
    supervision: Arc<Supervision>,
    /// Whether their runtime runs.
    pulse: Arc<Pulse>,
    /// Told what becomes of nodes.
    events: Events,
    /// How long the host's writer takes for a send.
    send_times: Arc<DurationCounts>,
    /// What tasks begin with; set once there is a store. The lock guards only this.
    settings: OnceLock<Arc<RwLock<Settings>>>,
}

/// Has the commit thread scrub what a peek found damaged; the next peek goes on behind it.
pub async fn scrub(store: &Store, node: NodeId, queue: QueueRef) -> Result<(), HandoffError> {
    let (tell, told) = oneshot::channel();
    store.scrub(node, queue, move |result| {
        // Nobody listens if whoever peeked was stopped meanwhile.
        let _ = tell.send(result);
    });
    told.await.unwrap_or(Err(HandoffError::ShutDown))
}

impl Replays {
    /// `manual` are the nodes whose hints the host takes itself. Says what is wrong with a runtime
    /// that no task can run on.
    pub fn new(
        manual: &BTreeSet<NodeId>,
        runtime: tokio::runtime::Handle,
        events: Events,
    ) -> Result<Self, RuntimeProblem> {
        let manual = manual.iter().map(|node| (*node, ManualNode::default()));
        let stop = CancellationToken::new();
        Ok(Replays {
            manual: manual.collect(),
            nodes: Mutex::default(),
            start: OnceLock::new(),
            tasks: TaskTracker::new(),
            supervision: Supervision::new(events.clone()),
            pulse: Pulse::start(runtime, events.clone(), stop.clone())?,
            stop,
            events,
            send_times: Arc::default(),
            settings: OnceLock::new(),
        })
    }

    /// Says how tasks are started, and starts one for every node that has a queue.
    pub fn begin<P: Payload, W: ShardWriter<P>>(
        &self,
        config: &Config,
        store: &Arc<Store>,
        writer: W,
        admission: Option<Arc<Admission>>,
        links: Arc<Links>,
    ) {
        let times = Arc::clone(&self.send_times);
        let settings = Settings::new(config, times, admission, links);
        let settings = Arc::new(RwLock::new(settings));
        let _ = self.settings.set(Arc::clone(&settings));
        let writer = Arc::new(writer);
        let reads = Reads::new();
        let (tasks, runtime) = (self.tasks.clone(), self.pulse.runtime().clone());
        let supervision = Arc::clone(&self.supervision);
        // The store calls back into `self`: a strong handle here would keep both alive for ever.
        let weak = Arc::downgrade(store);
        let start: Start = Box::new(move |node, handle| {
            // Also if the runtime drops the task before it begins.
            let ended = handle.ended.clone().drop_guard();
            let (weak, writer, stop) = (weak.clone(), Arc::clone(&writer), handle.stop.clone());
            let (settings, reads) = (Arc::clone(&settings), reads.clone());
            let work = move || {
                let (weak, writer) = (weak.clone(), Arc::clone(&writer));
                let (settings, reads) = (settings.read().clone(), reads.clone());
                let handle = Arc::clone(&handle);
                async move {
                    let Some(store) = weak.upgrade() else {
                        return Ok(());
                    };
                    let stop = handle.stop.clone();
                    let node = NodeProcessor::new(node, store, writer, settings, handle, reads);
                    node.run().await;
                    match stop.is_cancelled() {
                        true => Ok(()),
                        false => Err("it ended without being told to".to_owned()),
                    }
                }
            };
            let supervision = Arc::clone(&supervision);
            let kept = async move {
                let _ended = ended;
                supervision.keep(ReplayTask::Node(node), stop, work).await;
            };
            tasks.spawn_on(kept, &runtime);
        });
        // Set once: a service begins once.
        let _ = self.start.set(start);
        self.wake(&store.nodes().into_iter().map(|(node, _)| node).collect());
    }

    /// Has another task end with these: it is to end when [`stop`](Replays::stop) is cancelled, a
    /// shutdown waits for it, and it is started again if it fails.
    pub fn spawn<F: Future<Output = Ended> + Send + 'static>(
        &self,
        task: ReplayTask,
        work: impl Fn() -> F + Send + Sync + 'static,
    ) {
        let kept = Arc::clone(&self.supervision).keep(task, self.stop.clone(), work);
        self.tasks.spawn_on(kept, self.pulse.runtime());
    }

    /// How long the host's writer took for the sends so far.
    pub fn send_times(&self) -> Durations {
        self.send_times.seen()
    }

    /// Whether the runtime runs.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Why tasks do not run, if one does not.
    pub fn why_stopped(&self) -> Option<ReplayStopped> {
        self.pulse.why().or_else(|| self.supervision.why())
    }

    /// Whether the task of a node can do its work, as far as that does not depend on the node.
    pub fn runs(&self, node: NodeId) -> bool {
        self.pulse.why().is_none() && !self.supervision.is_left_alone(node)
    }

    /// New hints are durable for these nodes: at once, no polling. The first hint of a node starts
    /// its task.
    pub fn wake(&self, woken: &BTreeSet<NodeId>) {
        for node in woken {
            if let Some(manual) = self.manual.get(node) {
                manual.bell.notify_one();
                continue;
            }
            let mut nodes = self.nodes.lock();
            if let Some(handle) = nodes.get(node) {
                handle.progress.wake();
                continue;
            }
            if self.stop.is_cancelled() {
                return;
            }
            let handle = self.new_handle(*node);
            nodes.insert(*node, Arc::clone(&handle));
            drop(nodes);
            if let Some(start) = self.start.get() {
                start(*node, handle);
            }
        }
    }

    fn new_handle(&self, node: NodeId) -> Arc<NodeHandle> {
        Arc::new(NodeHandle {
            progress: Progress::new(node, self.events.clone()),
            stop: self.stop.child_token(),
            ended: CancellationToken::new(),
        })
    }

    /// A node whose hints the host takes itself; `None` for any other.
    pub fn manual(&self, node: NodeId) -> Option<&ManualNode> {
        self.manual.get(&node)
    }

    /// Cancelled when the service stops.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The nodes that have a task.
    pub fn with_tasks(&self) -> Vec<NodeId> {
        self.nodes.lock().keys().copied().collect()
    }

    /// The task of a node, if it was ever hinted.
    pub fn get(&self, node: NodeId) -> Option<Arc<NodeHandle>> {
        self.nodes.lock().get(&node).cloned()
    }

    /// Has the queues of nodes changed by `change`, with no task of theirs at work when it ends:
    /// nothing is sent or acknowledged any more. One change at a time. The next hint, or
    /// [`wake`](Replays::wake), starts a new task.
    pub async fn without_nodes<T>(&self, nodes: &[NodeId], change: impl Future<Output = T>) -> T {
        // All are told before any is waited for: what is in flight ends at the same time.
        let stopping = nodes.iter().map(|node| {
            let mut known = self.nodes.lock();
            // One without a task gets none meanwhile: its bell is rung in vain.
            let handle = known.entry(*node).or_insert_with(|| {
                let handle = self.new_handle(*node);
                handle.ended.cancel();
                handle
            });
            handle.stop.cancel();
            Arc::clone(handle)
        });
        let stopping: Vec<_> = stopping.collect();
        for handle in stopping {
            handle.ended.cancelled().await;
        }
        let changed = change.await;
        for node in nodes {
            self.nodes.lock().remove(node);
        }
        changed
    }

    /// What the tasks that begin from now on go by.
    pub fn set(&self, config: &Config) {
        if let Some(settings) = self.settings.get() {
            let mut settings = settings.write();
            *settings = settings.changed(config);
        }
    }

    /// Tells all tasks to stop.
    pub fn stop_all(&self) {
        self.stop.cancel();
        self.tasks.close();
    }

    /// Waits until all have stopped.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ageing::Ageing,
        clock::Clock,
        shard_writer::{ShardWrite, WriteError},
    };

    const NODE: NodeId = NodeId(1);

    struct Nobody;

    impl ShardWriter<String> for Nobody {
        async fn write_shard(&self, _: ShardWrite<String>) -> Result<(), WriteError> {
            Ok(())
        }
    }

    /// Found by the crash loop: such a task went on beside the next one, and sent what was removed.
    #[tokio::test]
    async fn a_task_that_begins_while_its_node_is_removed_does_not_outlive_that() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path());
        let store = Arc::new(Store::open(&config, Box::new(|_| {})).unwrap());
        let runtime = tokio::runtime::Handle::current();
        let replays = Replays::new(&config.manual_nodes, runtime, Events::new()).unwrap();
        let ageing = Ageing::new(&config, Clock::System, Vec::new());
        let links = Links::new(&config, Arc::new(ageing), Events::new());
        let links = Arc::new(links);
        replays.begin::<String, _>(&config, &store, Nobody, None, links);
        let begun = replays.without_nodes(&[NODE], async {
            replays.wake(&BTreeSet::from([NODE]));
            replays.get(NODE).unwrap()
        });
        assert!(begun.await.ended.is_cancelled());
        assert!(replays.get(NODE).is_none());
        replays.wake(&BTreeSet::from([NODE]));
        assert!(!replays.get(NODE).unwrap().ended.is_cancelled());
        replays.stop_all();
        replays.stopped().await;
    }
}
