//! Scrubbing: a hint that could not be read is read again, and skipped if it still does not read.
//! Only the commit thread does this, after reading it twice itself and looking for it in the log:
//! sled drops records at recovery that are still there (docs/sled.md rule 10).

use std::sync::Arc;

use crate::{
    error::StorageError,
    stats::Damage,
    store::{
        commit::{accepted::Accepted, committer::Committer},
        engine::{
            blocks::{self, ReadError},
            generation::Engine,
            log_search, table,
        },
        failpoints::{Safeguard, is_off},
        format::{
            block::{self, Header},
            cursor::Leave,
            keys::QueueRef,
            loss::{Loss, LostRange},
            reasons::LossReason,
        },
        home::location::Home,
        state::queue::Queue,
    },
    types::{NodeId, Sequence},
};

/// A longer log of the host's is not searched: what does not read is lost then.
const SHARED_LOG_SEARCHED_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// What is lost from the cursor on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unread {
    last: Sequence,
    /// Payload bytes of the queue up to and including `last`.
    bytes_through: u64,
}

impl Committer {
    /// Skips what really does not read, and says which range that is.
    pub fn scrub(&mut self, node: NodeId, at: QueueRef) -> Result<(), StorageError> {
        // What stands in WAL records is not to be taken for missing.
        self.flush_memtable()?;
        let Some(queue) = self.shared.registry.lock().queue(node, at) else {
            return Ok(());
        };
        let mut unread = read_twice(&*self.engine()?, &queue)?;
        // One search finds all that the queue misses.
        let is_missing = unread.is_some() && !queue.is_drained() && !is_off(Safeguard::LogScan);
        if is_missing && self.may_search() && self.searched.insert(at) {
            self.search_log(&queue)?;
            unread = read_twice(&*self.engine()?, &queue)?;
        }
        let Some(range) = unread.filter(|_| !queue.is_drained()) else {
            return Ok(());
        };
        self.skip(node, &queue, range)
    }

    /// The cursor moves behind what is lost, in one step with the record of it.
    fn skip(&mut self, node: NodeId, queue: &Queue, range: Unread) -> Result<(), StorageError> {
        let (at, first) = (queue.at, queue.cursor.next);
        let mut cursor = queue.cursor.clone();
        let lost = cursor.advance(range.last, range.bytes_through, Leave::Lost);
        let place = LostRange {
            queue: at.queue,
            first,
            last: range.last,
        };
        let loss = Loss::new(node, None, Some(place), lost, LossReason::Damaged);
        let mut accepted = Accepted::default();
        self.record_unread(&mut accepted, queue, loss, place);
        accepted.cursors.insert((node, at), cursor);
        self.write_as_one(Vec::new(), accepted)?;
        let mut registry = self.shared.registry.lock();
        registry.advance(node, at, range.last, range.bytes_through, Leave::Lost);
        registry.note_damage(Damage {
            node: at.node,
            queue: at.queue,
            what: format!("{} hints ({} bytes) did not read", lost.hints, lost.bytes),
            lost: Some((first, range.last)),
        });
        drop(registry);
        self.shared.tell_leave();
        self.settle()?;
        self.tell_what_left();
        Ok(())
    }

    /// Everybody waits for a search. A log of our own is as long as hints wait for it; the host's
    /// may be of any length.
    fn may_search(&self) -> bool {
        let log = std::fs::metadata(self.home.database().join("db"));
        let is_long = log.map_or(true, |log| log.len() > SHARED_LOG_SEARCHED_BYTES);
        matches!(self.home, Home::Owned { .. }) || !is_long
    }

    /// Stores again what is intact in the log of the queue's blocks that do not read.
    fn search_log(&mut self, queue: &Queue) -> Result<(), StorageError> {
        let engine = self.engine()?;
        let log = self.home.database().join("db");
        let is_wanted = |first, chunk, value: &[u8]| {
            first <= queue.watermark && may_be_wanted(queue, first, chunk, value)
        };
        let reads = |first| matches!(blocks::read(&engine.hints, queue.at, first), Ok(Some(_)));
        let shared = Arc::clone(&self.shared);
        let alive = || shared.busy.start();
        log_search::find(&log, queue.at, &alive, is_wanted, reads, |key, value| {
            self.writer()?.put(&engine.hints, key, value.to_vec())
        })?;
        self.writer()?.commit()
    }
}

/// Only a first chunk says what it belongs to; the others are taken as they come, and read with
/// their block.
fn may_be_wanted(queue: &Queue, first: Sequence, chunk: u16, value: &[u8]) -> bool {
    if chunk > 0 {
        return true;
    }
    let Ok(header) = Header::parse(queue.at, first, value) else {
        return false;
    };
    let body = block::body_of_chunk0(value);
    let is_whole = header.chunks > 1 || block::decode(queue.at, &header, body).is_ok();
    is_whole && header.last() >= queue.cursor.next
}

/// Reads what is at the cursor twice. `None` if it reads after all.
///
/// What does not read ends where the next block that does begins, or at the watermark: the range
/// follows from its neighbours, never from what is damaged.
fn read_twice(engine: &Engine, queue: &Queue) -> Result<Option<Unread>, StorageError> {
    let failed = |error: table::Error| StorageError::new("read a damaged block", error);
    for _ in 0..2 {
        match blocks::read_covering(&engine.hints, queue.at, queue.cursor.next) {
            Ok(_) => return Ok(None),
            Err(ReadError::Engine(error)) => return Err(failed(error)),
            Err(ReadError::Damaged(_)) => {}
        }
    }
    let above = Sequence(queue.cursor.next.0.saturating_add(1));
    for first in blocks::starts(&engine.hints, queue.at, above) {
        let first = first.map_err(failed)?;
        match blocks::read(&engine.hints, queue.at, first) {
            Ok(Some(next)) => {
                return Ok(Some(Unread {
                    last: Sequence(first.0 - 1),
                    bytes_through: next.header.bytes_before,
                }));
            }
            Err(ReadError::Engine(error)) => return Err(failed(error)),
            Ok(None) | Err(ReadError::Damaged(_)) => {}
        }
    }
    Ok(Some(Unread {
        last: queue.watermark,
        bytes_through: queue.bytes,
    }))
}

#[cfg(test)]
#[cfg(feature = "internals")]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;
    use crate::{
        Config,
        store::{CommitFault, Hint, Peek, PeekLimits, Place, Reader, Store},
        types::ShardId,
    };

    const NODE: NodeId = NodeId(1);

    fn hint() -> Hint {
        Hint {
            shard: ShardId(1),
            format: 0,
            enqueued_unix_ms: 0,
            payload: vec![7; 1000].into(),
            origin: None,
            write: None,
            lifetime_ms: None,
        }
    }

    /// Appends a hint and waits for the outcome.
    fn append(store: &Store) -> Option<Place> {
        let (tell, told) = mpsc::channel();
        store.append(NODE, hint(), Box::new(move |it| drop(tell.send(it))));
        let id = told.recv().unwrap().ok()?;
        let queue = QueueRef {
            node: NODE,
            queue: id.queue,
        };
        let sequence = id.sequence;
        Some(Place { queue, sequence })
    }

    /// Drops a block as sled does when it opens a log that is damaged: what it holds stays in the
    /// log.
    fn drop_block(store: &Store, place: Place) {
        let engine = store.shared.engine().unwrap();
        let key = place.queue.chunk_key(place.sequence, 0);
        assert!(engine.hints.remove(key));
        engine.commit_now();
    }

    fn scrub_now(store: &Store, queue: QueueRef) {
        let (tell, told) = mpsc::channel();
        store.scrub(NODE, queue, move |it| drop(tell.send(it)));
        told.recv().unwrap().unwrap();
    }

    fn first_pending(store: &Store) -> Option<Place> {
        let mut reader = Reader::default();
        let limits = PeekLimits {
            hints: 1,
            payload_bytes: 1,
        };
        match store.peek(&mut reader, NODE, limits).unwrap() {
            Peek::Hints(hints) => hints.first().map(|it| it.mark.place()),
            _ => None,
        }
    }

    #[test]
    fn what_a_reopen_drops_is_looked_for_though_its_queue_was_looked_into_before() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().join("hints"));
        let store = Store::open(&config, Box::new(|_| {})).unwrap();
        let place = append(&store).unwrap();
        drop_block(&store, place);
        scrub_now(&store, place.queue);
        assert_eq!(first_pending(&store), Some(place));

        store.inject(CommitFault::Fail);
        assert_eq!(append(&store), None);
        store.inject(CommitFault::None);
        while store.reopens() == 0 || store.check_serving().is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        drop_block(&store, place);
        scrub_now(&store, place.queue);
        assert_eq!(first_pending(&store), Some(place), "it is in the log still");
        assert!(store.stats().damage.is_empty());
        store.close().unwrap();
    }
}
