//! Whether the runtime runs that replay was given: it may be dropped while the host lives on, be
//! driven by nobody, or have all of its threads blocked.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use super::host_code::caught;
use crate::{
    error::{ReplayStopped, RuntimeProblem},
    events::{Event, Events},
};

/// A runtime that has run nothing for so long counts as stalled.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// What one look counts for at the most. A process that was stopped as a whole looks late itself.
const LOOK_COUNTS_AT_MOST: Duration = Duration::from_secs(2);

/// Knows whether the runtime runs. Somebody on a thread of its own [looks](Pulse::look) now and
/// then; that the runtime is dropped is heard of at once.
#[derive(Debug)]
pub struct Pulse {
    runtime: Handle,
    /// Why it does not run, if so.
    stopped: watch::Sender<Option<ReplayStopped>>,
    /// A beat was asked for that the runtime has not run yet.
    is_due: AtomicBool,
    /// Guards what looks are counted by, and is held for a few instructions.
    looks: Mutex<Looks>,
    /// The service is told to stop: from then on the runtime may go.
    stop: CancellationToken,
    events: Events,
}

#[derive(Debug, Default)]
struct Looks {
    last: Option<Instant>,
    /// For how long the beat is due.
    stalled: Duration,
}

/// Lives in a task: dropped by the runtime when that is shut down.
struct Sentinel(Arc<Pulse>);

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.0.gone();
    }
}

impl Pulse {
    /// Says what is wrong with a runtime that replay cannot run on.
    pub fn start(
        runtime: Handle,
        events: Events,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, RuntimeProblem> {
        // There is no other way to ask for a timer than to make one, which panics if there is none.
        let make_timer = || {
            let _within = runtime.enter();
            drop(tokio::time::sleep(Duration::ZERO));
        };
        catch_unwind(AssertUnwindSafe(make_timer)).map_err(|_| RuntimeProblem::NoTimers)?;
        let pulse = Arc::new(Pulse {
            runtime,
            stopped: watch::Sender::new(None),
            is_due: AtomicBool::new(false),
            looks: Mutex::default(),
            stop: stop.clone(),
            events,
        });
        let sentinel = Sentinel(Arc::clone(&pulse));
        pulse.runtime.spawn(async move {
            let _sentinel = sentinel;
            stop.cancelled().await;
        });
        // One that is shut down has dropped it already.
        match pulse.why() {
            None => Ok(pulse),
            Some(_) => Err(RuntimeProblem::ShutDown),
        }
    }

    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Why the runtime does not run, if so.
    pub fn why(&self) -> Option<ReplayStopped> {
        self.stopped.borrow().clone()
    }

    /// Why the runtime does not run, if so, as [`stopped`](Pulse::stopped) sees it.
    pub fn check(&self) -> Result<(), ReplayStopped> {
        match self.why() {
            Some(why) if self.is_stopped(&why) => Err(why),
            _ => Ok(()),
        }
    }

    /// Waits until the runtime does not run. Whoever is polled by a runtime sees that it does not
    /// stall.
    pub async fn stopped(&self) -> ReplayStopped {
        let mut stopped = self.stopped.subscribe();
        let is_so = |why: &Option<_>| why.as_ref().is_some_and(|why| self.is_stopped(why));
        let why = stopped.wait_for(is_so).await.map(|why| why.clone());
        // The sender is in here, so the wait does not fail.
        why.ok().flatten().unwrap_or(ReplayStopped::RuntimeGone)
    }

    fn is_stopped(&self, why: &ReplayStopped) -> bool {
        let is_within = || Handle::try_current().is_ok_and(|it| it.id() == self.runtime.id());
        !matches!(why, ReplayStopped::RuntimeStalled { .. }) || !is_within()
    }

    /// Waits by the clock of the runtime, on whatever thread and executor, unless the runtime does
    /// not run.
    pub async fn sleep(&self, length: Duration) -> Result<(), ReplayStopped> {
        let sleeping = {
            let _within = self.runtime.enter();
            tokio::time::sleep(length)
        };
        tokio::select! {
            biased;
            why = self.stopped() => Err(why),
            // A timer of a runtime that shuts down in this very moment panics.
            slept = caught(sleeping) => slept.map_err(|_| ReplayStopped::RuntimeGone),
        }
    }

    /// Looks whether the runtime ran what it was given at the last look. To be called every second
    /// or so, by a thread that is none of the runtime's.
    pub fn look(self: &Arc<Self>) {
        if matches!(self.why(), Some(ReplayStopped::RuntimeGone)) {
            return;
        }
        let now = Instant::now();
        let is_due = self.is_due.swap(true, Relaxed);
        let stalled = {
            let mut looks = self.looks.lock();
            let last = looks.last.replace(now);
            let passed = last.map_or(Duration::ZERO, |last| now.duration_since(last));
            looks.stalled = match is_due {
                true => looks.stalled + passed.min(LOOK_COUNTS_AT_MOST),
                false => Duration::ZERO,
            };
            looks.stalled
        };
        if !is_due {
            let beating = Arc::downgrade(self);
            self.runtime.spawn(async move {
                if let Some(pulse) = beating.upgrade() {
                    pulse.beat();
                }
            });
        } else if stalled >= STALLED_AFTER {
            self.stalled(stalled);
        }
    }

    fn stalled(&self, stalled: Duration) {
        let why = ReplayStopped::RuntimeStalled { stalled };
        let mut is_news = false;
        self.stopped.send_if_modified(|now| {
            // It may have beaten, or gone, since the look.
            let is_so =
                self.is_due.load(Relaxed) && !matches!(now, Some(ReplayStopped::RuntimeGone));
            if is_so {
                is_news = now.replace(why.clone()).is_none();
            }
            is_news
        });
        if is_news && !self.stop.is_cancelled() {
            tracing::error!(error = %why, "replay does not run");
            self.events.tell(Event::ReplayStopped(why));
        }
    }

    /// Run by the runtime.
    fn beat(&self) {
        let mut before = None;
        self.stopped.send_if_modified(|now| {
            self.is_due.store(false, Relaxed);
            let is_stalled = matches!(now, Some(ReplayStopped::RuntimeStalled { .. }));
            before = now.take_if(|_| is_stalled);
            before.is_some()
        });
        if let Some(before) = before {
            tracing::info!("the runtime runs again, and so does replay");
            self.events.tell(Event::ReplayResumed(before));
        }
    }

    fn gone(&self) {
        if self.stop.is_cancelled() {
            return;
        }
        let why = ReplayStopped::RuntimeGone;
        self.stopped.send_replace(Some(why.clone()));
        tracing::error!(error = %why, "replay does not run");
        self.events.tell(Event::ReplayStopped(why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undriven() -> (tokio::runtime::Runtime, Arc<Pulse>, Events) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().build().unwrap();
        let events = Events::new();
        let handle = runtime.handle().clone();
        let pulse = Pulse::start(handle, events.clone(), CancellationToken::new()).unwrap();
        (runtime, pulse, events)
    }

    /// Looks as if so much time had passed since the last look.
    fn look_after(pulse: &Arc<Pulse>, passed: Duration) {
        pulse.looks.lock().last = Instant::now().checked_sub(passed);
        pulse.look();
    }

    #[test]
    fn a_runtime_that_nobody_drives_stalls_and_goes_on_when_it_is_driven() {
        let (runtime, pulse, events) = undriven();
        let mut told = events.listen();
        for _ in 0..10 {
            look_after(&pulse, Duration::from_secs(1));
        }
        assert_eq!(pulse.why(), None, "nine seconds");
        look_after(&pulse, Duration::from_secs(1));
        assert!(matches!(
            pulse.why(),
            Some(ReplayStopped::RuntimeStalled { .. })
        ));
        look_after(&pulse, Duration::from_secs(1));
        assert!(matches!(told.try_recv(), Ok(Event::ReplayStopped(_))));
        assert!(told.try_recv().is_err(), "it is told once");
        // Whoever it is that waits on another thread.
        let why = pollster::block_on(pulse.sleep(Duration::MAX)).unwrap_err();
        assert!(why.to_string().contains("run nothing for"), "{why}");
        // Whoever is polled by it sees that it runs, before the beat too.
        let within = runtime.block_on(pulse.sleep(Duration::from_millis(1)));
        assert_eq!(within, Ok(()));
        assert_eq!(pulse.why(), None);
        assert!(matches!(told.try_recv(), Ok(Event::ReplayResumed(_))));
    }

    #[test]
    fn a_process_that_was_stopped_as_a_whole_does_not_take_its_runtime_for_stalled() {
        let (_runtime, pulse, _) = undriven();
        look_after(&pulse, Duration::ZERO);
        look_after(&pulse, Duration::from_secs(3600));
        assert_eq!(pulse.why(), None);
    }

    #[test]
    fn a_runtime_that_is_dropped_is_heard_of_at_once_unless_the_service_has_stopped() {
        for stops in [false, true] {
            let (runtime, pulse, events) = undriven();
            let mut told = events.listen();
            if stops {
                pulse.stop.cancel();
            }
            drop(runtime);
            assert_eq!(pulse.why().is_some(), !stops);
            assert_eq!(told.try_recv().is_ok(), !stops);
            if !stops {
                let slept = pollster::block_on(pulse.sleep(Duration::MAX));
                assert_eq!(slept, Err(ReplayStopped::RuntimeGone));
            }
        }
    }
}
