//! Encoding the blocks of a group, half of them on a thread of its own.
//!
//! Compressing is what takes longest in a large group, and those who wait for the group do nothing
//! meanwhile. So a group that is worth it is cut in two, with a block for each half where it is a
//! single queue's. Nothing else of a group is done anywhere but on the commit thread, which waits
//! for the other half before it goes on.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use crate::{
    error::StorageError,
    store::format::{
        encoder::{EncodedBlock, Encoder},
        run::Draft,
        wal_record::WalDraft,
    },
};

/// Half a group of fewer bytes is encoded before another thread is awake.
pub const HALF_BYTES: usize = 32 * 1024;

/// What is to be one block.
#[derive(Debug)]
pub enum Job {
    /// New hints of a queue.
    Block(Draft),
    /// New hints of many queues.
    Wal(WalDraft),
    /// Hints that stand in WAL records.
    Flush(Draft),
}

impl Job {
    /// Whether any of its hints has a lifetime of its own.
    pub fn has_lifetimes(&self) -> bool {
        let has_any = |draft: &Draft| draft.due_unix_ms() != u64::MAX;
        match self {
            Job::Block(draft) | Job::Flush(draft) => has_any(draft),
            Job::Wal(draft) => draft.runs.iter().any(has_any),
        }
    }
}

type Blocks = Vec<(Job, EncodedBlock)>;

pub struct Encoding {
    pub own: Encoder,
    helper: Option<Helper>,
}

/// The two ends of a thread that encodes what it is sent, and ends when these are dropped.
struct Helper {
    jobs: Sender<Vec<Job>>,
    blocks: Receiver<Blocks>,
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Job::Block(draft) | Job::Flush(draft) => draft.bytes(),
            Job::Wal(draft) => draft.bytes(),
        }
    }

    /// Cuts off what is over so many bytes, if it is worth it.
    fn split_off(&mut self, bytes: usize) -> Option<Job> {
        if self.bytes() <= HALF_BYTES {
            return None;
        }
        match self {
            Job::Block(draft) => draft.split_off(bytes).map(Job::Block),
            Job::Wal(draft) => draft.split_off(bytes).map(Job::Wal),
            // These are as large as is good to read.
            Job::Flush(_) => None,
        }
    }
}

impl Encoding {
    pub fn new() -> Self {
        let has_core = thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        Encoding {
            own: Encoder::new(),
            // Without it all is done on the commit thread.
            helper: has_core.then(Helper::start).flatten(),
        }
    }

    /// Encodes what is to be blocks, in this order.
    pub fn encode(&mut self, mut jobs: Vec<Job>) -> Result<Blocks, StorageError> {
        let all: usize = jobs.iter().map(Job::bytes).sum();
        let theirs = match self.helper.is_some() && all >= 2 * HALF_BYTES {
            true => second_half(&mut jobs, all / 2),
            false => Vec::new(),
        };
        let Some(helper) = self.helper.as_ref().filter(|_| !theirs.is_empty()) else {
            return Ok(encode_all(&mut self.own, jobs));
        };
        let is_sent = helper.jobs.send(theirs).is_ok();
        let mut blocks = encode_all(&mut self.own, jobs);
        // Bounded: it has half a group to encode, and if it ends the channel does.
        match helper.blocks.recv() {
            Ok(theirs) if is_sent => {
                blocks.extend(theirs);
                Ok(blocks)
            }
            // It panicked, and what it had is lost with it. From now on it is done here.
            _ => {
                self.helper = None;
                Err(StorageError::new("encode", "the encoding thread ended"))
            }
        }
    }
}

/// Takes away what stands behind the first so many bytes.
fn second_half(jobs: &mut Vec<Job>, half: usize) -> Vec<Job> {
    let mut before = 0;
    for index in 0..jobs.len() {
        let Some(job) = jobs.get_mut(index) else {
            break;
        };
        let bytes = job.bytes();
        if before + bytes <= half {
            before += bytes;
            continue;
        }
        let cut = job.split_off(half - before);
        let rest = jobs.split_off(index + 1);
        return cut.into_iter().chain(rest).collect();
    }
    Vec::new()
}

fn encode_all(encoder: &mut Encoder, jobs: Vec<Job>) -> Blocks {
    let blocks = jobs.into_iter().map(|job| {
        let block = match &job {
            Job::Wal(draft) => encoder.encode_wal(draft),
            Job::Block(it) | Job::Flush(it) => {
                let mut block = encoder.encode(it.queue, it.first, it.bytes_before, &it.hints);
                if it.with_body {
                    block.body = encoder.body(&block.header);
                }
                block
            }
        };
        (job, block)
    });
    blocks.collect()
}

impl Helper {
    fn start() -> Option<Self> {
        let (jobs, to_encode) = mpsc::channel::<Vec<Job>>();
        let (encoded, blocks) = mpsc::channel();
        let work = move || {
            let mut encoder = Encoder::new();
            while let Ok(jobs) = to_encode.recv() {
                if encoded.send(encode_all(&mut encoder, jobs)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("hh-encode".to_owned());
        thread.spawn(work).ok()?;
        Some(Helper { jobs, blocks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::format::{block::Hint, keys::QueueRef},
        types::{NodeId, QueueId, Sequence, ShardId},
    };

    fn draft(node: u64, hints: usize, payload_bytes: usize) -> Draft {
        let hint = Hint {
            shard: ShardId(1),
            format: 0,
            enqueued_unix_ms: 0,
            payload: vec![7; payload_bytes].into(),
            origin: None,
            write: None,
            lifetime_ms: None,
        };
        let node = NodeId(node);
        Draft {
            node,
            queue: QueueRef {
                node,
                queue: QueueId(node.0),
            },
            first: Sequence(10),
            bytes_before: 1000,
            hints: vec![hint; hints],
            with_body: false,
        }
    }

    /// Node, first sequence, hints, bytes before and bytes through, of every block.
    fn encoded(helper: bool, drafts: Vec<Draft>) -> Vec<(u64, u64, u32, u64, u64)> {
        let mut encoding = Encoding {
            own: Encoder::new(),
            helper: helper.then(Helper::start).flatten(),
        };
        assert_eq!(encoding.helper.is_some(), helper);
        let jobs = drafts.into_iter().map(Job::Block).collect();
        let blocks = encoding.encode(jobs).unwrap();
        let told = blocks.iter().map(|(_, block)| {
            let header = block.header;
            let (before, through) = (header.bytes_before, header.bytes_through());
            (
                block.queue.node.0,
                header.first.0,
                header.hints,
                before,
                through,
            )
        });
        told.collect()
    }

    #[test]
    fn a_large_block_is_cut_in_two_that_follow_one_another() {
        let halves = encoded(true, vec![draft(1, 100, 1000)]);
        assert_eq!(
            halves,
            [(1, 10, 50, 1000, 51_000), (1, 60, 50, 51_000, 101_000)]
        );
        let whole = encoded(false, vec![draft(1, 100, 1000)]);
        assert_eq!(whole, [(1, 10, 100, 1000, 101_000)]);
    }

    #[test]
    fn many_small_blocks_are_not_cut_and_stay_in_order() {
        let drafts = || (1..=90).map(|node| draft(node, 2, 1000)).collect();
        assert_eq!(encoded(true, drafts()), encoded(false, drafts()));
    }

    #[test]
    fn without_the_other_thread_one_group_fails_and_the_next_is_encoded_here() {
        let (jobs, to_encode) = mpsc::channel();
        let (_, blocks) = mpsc::channel();
        drop(to_encode);
        let mut encoding = Encoding {
            own: Encoder::new(),
            helper: Some(Helper { jobs, blocks }),
        };
        let large = || vec![Job::Block(draft(1, 100, 1000))];
        assert!(encoding.encode(large()).is_err());
        assert_eq!(encoding.encode(large()).unwrap().len(), 1);
    }

    #[test]
    fn what_is_small_or_one_hint_is_one_block() {
        for (hints, payload_bytes) in [(1, 1), (30, 1000), (1, 2_000_000)] {
            assert_eq!(encoded(true, vec![draft(1, hints, payload_bytes)]).len(), 1);
        }
        let uneven = encoded(true, vec![draft(1, 1, 2_000_000), draft(2, 1, 10)]);
        assert_eq!(uneven.len(), 2);
    }
}
