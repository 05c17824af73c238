//! Many clients, nodes that fail in every way, and a store that fails or is closed in between.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    AnswerWhen, Config,
    ConsistencyLevel::{self, All, Any, One, Quorum},
    Durability, Health, Shard, ShardWrite, WriteOrdering,
    internals::CommitFault,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

use crate::{
    applied::Applied,
    world::{Answer, Calls, World, config, points, shard},
};

const CLIENTS: u64 = 6;
const WRITES: u64 = 40;
const SHARDS: u64 = 3;
const LIVES: u64 = 2;
/// Of one client that does not wait for answers.
const UNANSWERED_MAX: usize = 5;

type Writing = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// How a node answers that fails so often, of a hundred times.
fn reply(random: &mut fastrand::Rng, failures: u32, is_hint: bool, batches: usize) -> Reply {
    if random.u32(0..100) >= failures {
        return match random.bool() {
            true => Reply::Take,
            // Some of them are hinted meanwhile.
            false => Reply::Slow(Duration::from_micros(random.u64(1..8000))),
        };
    }
    match random.u32(0..10) {
        0..5 => Reply::Retry,
        5 => Reply::Hang,
        // Taken, and not said so in time.
        6 => Reply::Slow(Duration::from_millis(40)),
        7 | 8 => Reply::Panic,
        _ if is_hint => Reply::Partial(random.usize(..=batches)),
        _ => Reply::Reject,
    }
}

fn receiver(seed: u64, applied: &Applied) -> Arc<ScriptedWriter> {
    let failures = [1, 5, 30][seed as usize % 3];
    let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
    let pinged = Arc::clone(&random);
    let script = move |write: &ShardWrite<Bytes>| {
        let (is_hint, batches) = (write.is_replay(), write.batches.len());
        reply(&mut random.lock().unwrap(), failures, is_hint, batches)
    };
    let writer = ScriptedWriter::new(applied.by(script));
    let writer = writer.with_pings(
        move |_| match pinged.lock().unwrap().u32(0..50) < failures {
            true => Reply::Retry,
            false => Reply::Take,
        },
    );
    Arc::new(writer)
}

/// Polls a call until it has begun.
async fn begun(mut writing: Writing) -> Option<Writing> {
    poll_fn(|context| Poll::Ready(writing.as_mut().poll(context).is_pending()))
        .await
        .then_some(writing)
}

/// Waits until fewer calls than this are unanswered.
async fn fewer_than(most: usize, unanswered: &mut Vec<Writing>) {
    poll_fn(|context| {
        unanswered.retain_mut(|writing| writing.as_mut().poll(context).is_pending());
        match unanswered.len() < most {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// Some wait for each answer, some do not, some give up on one now and then.
async fn client(world: World, shards: Arc<Vec<Shard>>, client: u64, first: u64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let most = match client % 3 {
        0 => 1,
        _ => UNANSWERED_MAX,
    };
    let mut unanswered: Vec<Writing> = Vec::new();
    for number in first..first + WRITES {
        let (world, shards) = (world.clone(), Arc::clone(&shards));
        let shard = random.usize(..shards.len());
        let level: ConsistencyLevel = [Any, One, Quorum, All][random.usize(..4)];
        let writing = async move {
            let points = points(client, number);
            world.write(&shards[shard], level, points).await
        };
        tokio::time::sleep(Duration::from_micros(random.u64(0..4000))).await;
        let Some(writing) = begun(Box::pin(writing)).await else {
            continue;
        };
        if client % 3 == 2 && random.u32(0..10) == 0 {
            drop(writing);
        } else {
            unanswered.push(writing);
        }
        fewer_than(most, &mut unanswered).await;
    }
    fewer_than(1, &mut unanswered).await;
}

/// The store fails while clients write, and reopens itself.
async fn failure(world: World, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    tokio::time::sleep(Duration::from_millis(random.u64(1..60))).await;
    world.handoff.inject(CommitFault::Fail);
    tokio::time::sleep(Duration::from_millis(random.u64(1..60))).await;
    world.handoff.disk_works_again();
}

/// One round, from a seed. Threads are the one thing that it does not hold.
pub async fn round(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let shards = Arc::new((0..SHARDS).map(|id| shard(id, &[1, 2])).collect::<Vec<_>>());
    let applied = Applied::default();
    let writer = receiver(random.u64(..), &applied);
    let calls = Arc::new(Calls::default());
    let ordering = match random.u8(..4) {
        0 => WriteOrdering::Bypass,
        _ => WriteOrdering::Strict,
    };
    let durability = match random.bool() {
        true => Durability::Sync,
        false => Durability::Buffered,
    };
    let mut failed = false;
    for life in 0..LIVES {
        let config = Config {
            ordering,
            durability,
            hint_after: Duration::from_millis(random.u64(..10)),
            answer: [AnswerWhen::Level, AnswerWhen::Accounted][random.usize(..2)],
            fail_early: random.bool(),
            max_outstanding: [1, 4, 1024][random.usize(..3)],
            write_timeout: Duration::from_millis(15),
            send_timeout: Duration::from_millis(15),
            ..config(dir.path())
        };
        let world = World::open(config, &writer, &calls).await;
        let first = life * WRITES;
        let clients = (0..CLIENTS).map(|number| {
            let client = client(
                world.clone(),
                Arc::clone(&shards),
                number,
                first,
                random.u64(..),
            );
            tokio::spawn(client)
        });
        let clients: Vec<_> = clients.collect();
        if random.u32(0..3) == 0 {
            failure(world.clone(), random.u64(..)).await;
            failed = true;
        }
        for client in clients {
            client.await.unwrap();
        }
        let serves = || matches!(world.handoff.health(), Health::Serving);
        world.until("serving again", serves).await;
        let settled = || {
            let copies = world.stats();
            let ended = [
                copies.direct,
                copies.hinted,
                copies.withdrawn,
                copies.rejected,
                copies.unstored,
            ];
            ended.into_iter().sum::<u64>() == 2 * CLIENTS * WRITES
        };
        world.until("settled", settled).await;
        if life + 1 == LIVES {
            writer.follow(applied.by(|_| Reply::Take));
            writer.follow_pings(|_| Reply::Take);
            world.caught_up().await;
        }
        world.close().await;
    }
    let (once_each, refused) = applied.once_each();
    if ordering == WriteOrdering::Strict {
        calls.check(&writer);
        calls.check_applied(&once_each);
    }
    if !failed {
        calls.check_complete(&writer, &once_each, [1, 2]);
    }
    calls.count(refused);
}
