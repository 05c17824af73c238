//! Starts tasks again that fail, and knows which ones do.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{backoff::Backoff, host_code::caught};
use crate::{
    error::{ReplayStopped, ReplayTask},
    events::{Event, Events},
    store::panic_text,
    types::NodeId,
};

/// The first wait before a task is started again, and the longest. At least half of it is waited: a
/// second, in which what a node's task left behind lets go of its claims.
const RESTART_AFTER: Duration = Duration::from_secs(2);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(60);

/// Whether a task is done, or why it ended though it was not.
pub type Ended = Result<(), String>;

/// The owner of all tasks.
#[derive(Debug)]
pub struct Supervision {
    /// Tasks that failed, and have not worked since for as long as they were left alone. Held for a
    /// look only.
    failed: Mutex<BTreeMap<ReplayTask, Failed>>,
    events: Events,
}

#[derive(Debug)]
struct Failed {
    why: ReplayStopped,
    /// It was started again, and has not worked for long enough yet.
    is_on_trial: bool,
}

impl Supervision {
    pub fn new(events: Events) -> Arc<Self> {
        Arc::new(Supervision {
            failed: Mutex::default(),
            events,
        })
    }

    /// One of the tasks that do not work, if there are any.
    pub fn why(&self) -> Option<ReplayStopped> {
        let failed = self.failed.lock();
        failed.values().next().map(|failed| failed.why.clone())
    }

    /// Whether the task of a node failed and is left alone.
    pub fn is_left_alone(&self, node: NodeId) -> bool {
        let failed = self.failed.lock();
        let failed = failed.get(&ReplayTask::Node(node));
        failed.is_some_and(|failed| !failed.is_on_trial)
    }

    /// Does the work of a task until it is done or told to stop, again and again if it fails, with
    /// growing waits.
    pub async fn keep<F: Future<Output = Ended>>(
        self: Arc<Self>,
        task: ReplayTask,
        stop: CancellationToken,
        work: impl Fn() -> F,
    ) {
        let mut backoff = Backoff::new(RESTART_AFTER, RESTART_AFTER_MAX);
        let mut left_alone = None;
        while let Err(error) = self.once(task, &work, left_alone, &mut backoff).await {
            if stop.is_cancelled() {
                break;
            }
            let after = backoff.next(None);
            self.note_failed(task, error, after);
            if stop.run_until_cancelled(sleep(after)).await.is_none() {
                break;
            }
            left_alone = Some(after);
            if let Some(failed) = self.failed.lock().get_mut(&task) {
                failed.is_on_trial = true;
            }
        }
        self.failed.lock().remove(&task);
    }

    /// Does the work once. It counts as working again when it has gone well for as long as it was
    /// left alone before.
    async fn once<F: Future<Output = Ended>>(
        &self,
        task: ReplayTask,
        work: &impl Fn() -> F,
        mut on_trial: Option<Duration>,
        backoff: &mut Backoff,
    ) -> Ended {
        // Made in there, so that a panic of the making is caught, too.
        let mut working = Box::pin(caught(async { work().await }));
        let proven = sleep(on_trial.unwrap_or_default());
        let mut proven = std::pin::pin!(proven);
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut working => break ended,
                () = &mut proven, if on_trial.is_some() => {
                    on_trial = None;
                    backoff.reset();
                    self.note_works(task);
                }
            }
        };
        // What it leaves behind may be the host's, and panic.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(working)));
        let dropped = dropped.map_err(|panic| panic_text(panic.as_ref()));
        match ended.and_then(|ended| dropped.map(|()| ended)) {
            Ok(ended) => ended,
            Err(panic) => Err(format!("it panicked: {panic}")),
        }
    }

    fn note_failed(&self, task: ReplayTask, error: String, again_after: Duration) {
        let again_after_ms = again_after.as_millis() as u64;
        tracing::error!(%task, %error, again_after_ms, "a task failed; it is started again");
        let why = ReplayStopped::TaskFailed {
            task,
            error,
            again_after,
        };
        let failed = Failed {
            why: why.clone(),
            is_on_trial: false,
        };
        self.failed.lock().insert(task, failed);
        self.events.tell(Event::ReplayStopped(why));
    }

    fn note_works(&self, task: ReplayTask) {
        let failed = self.failed.lock().remove(&task);
        if let Some(Failed { why, .. }) = failed {
            tracing::info!(%task, "a task that failed works again");
            self.events.tell(Event::ReplayResumed(why));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use tokio::time::Instant;

    use super::*;

    const TASK: ReplayTask = ReplayTask::Node(NodeId(2));

    /// Fails so often at once, and then goes on for ever.
    fn failing(times: u32) -> (Arc<AtomicU32>, impl Fn() -> futures::Work) {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let work = move || -> futures::Work {
            let run = counted.fetch_add(1, Relaxed);
            Box::pin(async move {
                match run {
                    run if run >= times => std::future::pending().await,
                    run if run % 2 == 0 => std::panic::resume_unwind(Box::new("scripted")),
                    _ => Err("it ended early".to_owned()),
                }
            })
        };
        (runs, work)
    }

    mod futures {
        pub type Work = std::pin::Pin<Box<dyn Future<Output = super::Ended> + Send>>;
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_went_well_for_long_is_left_alone_for_no_longer_than_the_first_time() {
        const FAILURES: u32 = 8;
        let events = Events::new();
        let mut told = events.listen();
        let runs = AtomicU32::new(0);
        let work = move || -> futures::Work {
            let run = runs.fetch_add(1, Relaxed);
            Box::pin(async move {
                if run == FAILURES {
                    sleep(Duration::from_secs(3600)).await;
                }
                Err("it ended early".to_owned())
            })
        };
        let stop = CancellationToken::new();
        let kept = Supervision::new(events).keep(TASK, stop.clone(), work);
        let kept = tokio::spawn(kept);
        let mut waits = Vec::new();
        while waits.len() <= FAILURES as usize {
            if let Event::ReplayStopped(ReplayStopped::TaskFailed { again_after, .. }) =
                told.recv().await.unwrap()
            {
                waits.push(again_after);
            }
        }
        let [first, .., grown, last] = waits[..] else {
            panic!("{waits:?}");
        };
        assert!(grown > first * 10 && last <= first * 2, "{waits:?}");
        stop.cancel();
        kept.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_fails_is_started_again_after_growing_waits_and_tells_of_it() {
        let events = Events::new();
        let mut told = events.listen();
        let supervision = Supervision::new(events);
        let (runs, work) = failing(8);
        let stop = CancellationToken::new();
        let began = Instant::now();
        let kept = Arc::clone(&supervision).keep(TASK, stop.clone(), work);
        let kept = tokio::spawn(kept);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let Ok(Event::ReplayStopped(ReplayStopped::TaskFailed {
                task,
                error,
                again_after,
            })) = told.recv().await
            else {
                panic!("another event");
            };
            assert_eq!(task, TASK);
            assert!(error.contains(["scripted", "it ended early"][waits.len() % 2]));
            assert!(supervision.is_left_alone(NodeId(2)));
            waits.push(again_after);
        }
        assert!(
            waits[7] > waits[0] * 10 && waits[7] <= RESTART_AFTER_MAX,
            "{waits:?}"
        );
        tokio::time::sleep(waits[7] + Duration::from_millis(1)).await;
        // It works, and is not said to until it has done so for a while.
        assert!(!supervision.is_left_alone(NodeId(2)) && supervision.why().is_some());
        assert!(matches!(told.recv().await, Ok(Event::ReplayResumed(_))));
        // It has worked for as long as it was left alone.
        let until = waits.iter().sum::<Duration>() + waits[7];
        let lasted = began.elapsed();
        assert!(
            lasted >= until && lasted < until + Duration::from_secs(1),
            "{lasted:?}"
        );
        assert!(!supervision.is_left_alone(NodeId(2)) && supervision.why().is_none());
        assert_eq!(runs.load(Relaxed), 9);
        kept.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_told_to_stop_is_not_started_again() {
        let supervision = Supervision::new(Events::new());
        let (runs, work) = failing(u32::MAX);
        let stop = CancellationToken::new();
        let kept = Arc::clone(&supervision).keep(TASK, stop.clone(), work);
        let kept = tokio::spawn(kept);
        while supervision.why().is_none() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        kept.await.unwrap();
        assert_eq!(runs.load(Relaxed), 1);
        assert!(supervision.why().is_none());
    }
}
