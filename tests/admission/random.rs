//! Many clients, nodes that fail in every way, and a store that fails or is closed in between.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use hinted_handoff::{
    Config,
    ConsistencyLevel::{self, All, Any, One, Quorum},
    Durability, Health, Shard,
    testkit::{CommitFault, Reply, ScriptedWriter},
};

use crate::world::{Answer, Calls, World, config, points, shard};

const CLIENTS: u64 = 6;
const WRITES: u64 = 40;
const SHARDS: u64 = 3;
const LIVES: u64 = 2;
/// Of one client that does not wait for answers.
const UNANSWERED_MAX: usize = 5;

type Writing = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// How a node answers that fails so often, of a hundred times.
fn reply(random: &mut fastrand::Rng, failures: u32, is_hint: bool) -> Reply {
    if random.u32(0..100) >= failures {
        return match random.bool() {
            true => Reply::Take,
            false => Reply::Slow(Duration::from_micros(random.u64(1..1000))),
        };
    }
    match random.u32(0..10) {
        0..5 => Reply::Retry,
        5 => Reply::Hang,
        // Taken, and not said so in time.
        6 => Reply::Slow(Duration::from_millis(40)),
        7 | 8 => Reply::Panic,
        _ if is_hint => Reply::Take,
        _ => Reply::Reject,
    }
}

fn receiver(seed: u64) -> Arc<ScriptedWriter> {
    let failures = [1, 5, 30][seed as usize % 3];
    let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
    let pinged = Arc::clone(&random);
    let writer = ScriptedWriter::new(move |write| {
        let is_hint = write.batches.iter().any(|batch| batch.hint.is_some());
        reply(&mut random.lock().unwrap(), failures, is_hint)
    });
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

/// The store fails while clients write, and mends itself.
async fn failure(world: World, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    tokio::time::sleep(Duration::from_millis(random.u64(1..60))).await;
    world.handoff.inject(CommitFault::Fail);
    tokio::time::sleep(Duration::from_millis(random.u64(1..60))).await;
    world.handoff.heal_disk();
}

/// One round, from a seed. Threads are the one thing that it does not hold.
pub async fn round(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let shards = Arc::new((0..SHARDS).map(|id| shard(id, &[1, 2])).collect::<Vec<_>>());
    let (calls, writer) = (Arc::new(Calls::default()), receiver(random.u64(..)));
    let durability = match random.bool() {
        true => Durability::Sync,
        false => Durability::Buffered,
    };
    let mut failed = false;
    for life in 0..LIVES {
        let config = Config {
            durability,
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
            copies.direct + copies.hinted + copies.rejected + copies.unstored
                == 2 * CLIENTS * WRITES
        };
        world.until("settled", settled).await;
        if life + 1 == LIVES {
            writer.follow(|_| Reply::Take);
            writer.follow_pings(|_| Reply::Take);
            world.caught_up().await;
        }
        world.close().await;
    }
    calls.check(&writer);
    if !failed {
        calls.check_complete(&writer, [1, 2]);
    }
}
