//! Reading on tokio's blocking threads, a few at a time for all nodes together.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    error::HandoffError,
    store::{Peek, PeekLimits, Place, Reader, Store},
    types::{Amount, NodeId},
};

/// Blocks are read this many at a time for all nodes together: no thread a node.
const READS_AT_A_TIME: usize = 2;
/// Payload bytes of the windows of all nodes together: the more nodes are being sent to, the
/// smaller each window.
const WINDOWS_BYTES: u64 = 32 * 1024 * 1024;

/// What all nodes share.
#[derive(Clone)]
pub struct Reads {
    queue: Arc<ReadQueueLock>,
    /// Nodes that have a window, or are about to.
    sending: Arc<AtomicU64>,
}

/// Reads that wait, and how many threads are at them. A thread goes on until none waits: were each
/// read a task of its own, tokio would start a thread more whenever the next comes before the last
/// one's thread is idle again, and each would have the allocator keep memory.
///
/// The lock is held to put in or take out, and nothing else is taken meanwhile.
#[derive(Default)]
struct ReadQueueLock(Mutex<ReadQueue>);

#[derive(Default)]
struct ReadQueue {
    reads: VecDeque<Box<dyn FnOnce() + Send>>,
    threads: usize,
}

/// A thread that is at the reads.
struct ReadTurn {
    queue: Arc<ReadQueueLock>,
    is_over: bool,
}

impl ReadQueueLock {
    fn put(self: &Arc<Self>, read: Box<dyn FnOnce() + Send>) {
        let has_thread = {
            let mut waiting = self.0.lock();
            waiting.reads.push_back(read);
            let has_thread = waiting.threads < READS_AT_A_TIME;
            waiting.threads += usize::from(has_thread);
            has_thread
        };
        if has_thread {
            let mut turn = ReadTurn {
                queue: Arc::clone(self),
                is_over: false,
            };
            tokio::task::spawn_blocking(move || while turn.next() {});
        }
    }
}

impl ReadTurn {
    /// Does what waits longest. False if nothing does: then it is over.
    fn next(&mut self) -> bool {
        let next = {
            let mut waiting = self.queue.0.lock();
            let next = waiting.reads.pop_front();
            self.is_over = next.is_none();
            waiting.threads -= usize::from(self.is_over);
            next
        };
        let Some(read) = next else {
            return false;
        };
        // Whoever waits for one that panics is told nothing; the others go on.
        let _ = catch_unwind(AssertUnwindSafe(read));
        true
    }
}

/// A runtime that shuts down drops what it has not begun. Nobody is left to wait then.
impl Drop for ReadTurn {
    fn drop(&mut self) {
        if !self.is_over {
            let mut waiting = self.queue.0.lock();
            waiting.threads -= 1;
            let _reads = std::mem::take(&mut waiting.reads);
            drop(waiting);
        }
    }
}

/// Counts a node among those that have a window, until it is dropped.
pub struct Sending(Arc<AtomicU64>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What a read gives back: the reader, and what it found; nothing if it was told to stop.
pub type Read = Pin<Box<dyn Future<Output = Option<(Reader, Result<Peek, HandoffError>)>> + Send>>;

impl Reads {
    pub fn new() -> Self {
        Reads {
            queue: Arc::default(),
            sending: Arc::default(),
        }
    }

    /// Counts a node among those that have a window.
    pub fn begin(&self) -> Sending {
        self.sending.fetch_add(1, Relaxed);
        Sending(Arc::clone(&self.sending))
    }

    /// How many nodes have a window.
    pub fn nodes(&self) -> usize {
        usize::try_from(self.sending.load(Relaxed)).unwrap_or(usize::MAX)
    }

    /// A node's part of what all windows may hold, and no more than `most`.
    pub fn share(&self, most: Amount) -> Amount {
        let share = WINDOWS_BYTES / self.sending.load(Relaxed).max(1);
        Amount {
            bytes: most.bytes.min(share),
            ..most
        }
    }

    /// Reads what stands from `from` on.
    pub fn read(
        &self,
        store: &Arc<Store>,
        mut reader: Reader,
        node: NodeId,
        from: Option<Place>,
        limits: PeekLimits,
        quit: CancellationToken,
    ) -> Read {
        let (tell, told) = oneshot::channel();
        let store = Arc::clone(store);
        self.queue.put(Box::new(move || {
            if !quit.is_cancelled() {
                let peeked = store.peek_from(&mut reader, node, from, limits);
                // Nobody listens if the node's task ended meanwhile.
                let _ = tell.send((reader, peeked));
            }
        }));
        // Told nothing if it is to stop.
        Box::pin(async { told.await.ok() })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::resume_unwind,
        sync::{Barrier, mpsc},
        time::Duration,
    };

    use super::*;

    /// Puts in one that does `work`; told when it is done, or an error if it never is.
    fn put<T: Send + 'static>(
        queue: &Arc<ReadQueueLock>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (tell, told) = oneshot::channel();
        queue.put(Box::new(move || drop(tell.send(work()))));
        told
    }

    #[tokio::test]
    async fn two_are_done_at_a_time_and_the_others_in_the_order_they_came() {
        let queue = Arc::<ReadQueueLock>::default();
        let begun = Arc::new(Barrier::new(3));
        let held: Vec<_> = (0..READS_AT_A_TIME)
            .map(|_| {
                let (begun, (go, wait)) = (Arc::clone(&begun), mpsc::channel::<()>());
                let read = put(&queue, move || {
                    begun.wait();
                    wait.recv()
                });
                (go, read)
            })
            .collect();
        begun.wait();
        let done = Arc::<Mutex<Vec<_>>>::default();
        let reads = (0..20).map(|number| {
            let done = Arc::clone(&done);
            put(&queue, move || done.lock().push(number))
        });
        let reads: Vec<_> = reads.collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(done.lock().is_empty(), "a third began");
        // One thread has the time now.
        let mut held = held.into_iter();
        let (go, first) = held.next().unwrap();
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        for read in reads {
            read.await.unwrap();
        }
        assert_eq!(*done.lock(), (0..20).collect::<Vec<_>>());
        for (go, read) in held {
            go.send(()).unwrap();
            read.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn one_that_comes_while_the_last_thread_leaves_is_not_forgotten() {
        let queue = Arc::<ReadQueueLock>::default();
        for number in 0..2000 {
            let read = tokio::time::timeout(Duration::from_secs(10), put(&queue, move || number));
            assert_eq!(read.await.unwrap().unwrap(), number);
        }
    }

    #[tokio::test]
    async fn one_that_panics_takes_no_other_with_it() {
        let queue = Arc::<ReadQueueLock>::default();
        let bad: Vec<_> = (0..4)
            .map(|_| put(&queue, || resume_unwind(Box::new("by a test"))))
            .collect();
        let good = put(&queue, || 7);
        assert_eq!(good.await.unwrap(), 7);
        for read in bad {
            let told: Result<(), _> = read.await;
            assert!(told.is_err());
        }
    }

    #[test]
    fn a_runtime_that_is_gone_leaves_nobody_waiting() {
        let queue = Arc::<ReadQueueLock>::default();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _entered = handle.enter();
        for _ in 0..2 * READS_AT_A_TIME {
            assert!(pollster::block_on(put(&queue, || ())).is_err());
        }
        let waiting = queue.0.lock();
        assert_eq!((waiting.reads.len(), waiting.threads), (0, 0));
    }
}
