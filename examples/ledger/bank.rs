//! The bank: moves money between accounts, and hints each transfer for the branch.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use hinted_handoff::{
    Abort, Config, HintedHandoff, Postcard, ShardWrite, ShardWriter, TransactionError, WriteError,
    database_config, open_database, sled::Tree,
};
use parking_lot::Mutex;
use tokio::{
    net::UnixStream,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    accounts::{self, ACCOUNTS_A_REGION, REGIONS, balance, set_balance},
    child::{orders, tell},
    protocol::{BRANCH, Delivery, Failure, Hint, Receipt, SOCKET, Transfer, receive, send},
};

/// The bank's directory, and its tree of journal rows.
pub const NAME: &str = "bank";
pub const JOURNAL: &str = "journal";

/// Who move money at the same time. They share few accounts, so that some lose a race and their
/// transaction runs again.
const TELLERS: u64 = 8;
/// From one transfer of a teller to its next one, at most.
const PAUSE: Duration = Duration::from_millis(4);
/// The tellers serve one region after the other, each for so long: of the hints that wait only
/// those of one shard that stand together go in one delivery.
const SHIFT: Duration = Duration::from_millis(20);
/// A part of what an account has at the start, and enough for some to run dry.
const TRANSFER_CENTS_MAX: i64 = 200 * 100;
/// For all that waits at the end to be delivered.
const DRAIN_MAX: Duration = Duration::from_secs(45);

struct Bank {
    handoff: HintedHandoff<Hint>,
    accounts: Tree,
    journal: Tree,
    opened: Instant,
}

/// Why a transfer is refused: an error of ours, which comes back out of the transaction that it
/// aborts.
#[derive(Debug, thiserror::Error)]
#[error("account {payer} has too little for that")]
struct InsufficientFunds {
    payer: u64,
}

pub async fn run(root: &Path, seed: u64) -> Result<(), Failure> {
    let finish = orders();
    let config = Config {
        // The branch is never gone for long.
        retry_interval: Duration::from_millis(10),
        retry_max_interval: Duration::from_millis(100),
        write_timeout: Duration::from_secs(2),
        // A hundred transfers or so a delivery, so that there are many moments to be killed in.
        batch_bytes: 4096,
        ..Config::new(root.join(NAME))
    };
    let db = open_database(&database_config(&config.dir))?;
    let handoff = HintedHandoff::open_in(&db, config, Courier::new(root)).await?;
    let bank = Arc::new(Bank {
        accounts: accounts::open(&db, &handoff).await?,
        journal: db.open_tree(JOURNAL)?,
        opened: Instant::now(),
        handoff,
    });
    let mut tellers = JoinSet::new();
    for teller in 0..TELLERS {
        let rng = Rng::with_seed(seed.wrapping_add(teller));
        tellers.spawn(Arc::clone(&bank).serve(rng, finish.clone()));
    }
    while let Some(ended) = tellers.join_next().await {
        ended??;
    }
    bank.drain().await?;
    Ok(bank.handoff.shutdown().await?)
}

impl Bank {
    async fn serve(
        self: Arc<Self>,
        mut rng: Rng,
        finish: CancellationToken,
    ) -> Result<(), Failure> {
        while !finish.is_cancelled() {
            let shifts = self.opened.elapsed().as_millis() / SHIFT.as_millis();
            let region = shifts as u64 % REGIONS * ACCOUNTS_A_REGION;
            let payer = rng.u64(..ACCOUNTS_A_REGION);
            let payee = (payer + rng.u64(1..ACCOUNTS_A_REGION)) % ACCOUNTS_A_REGION;
            let cents = rng.i64(1..=TRANSFER_CENTS_MAX);
            let transferred = self.transfer(rng.u128(..), region + payer, region + payee, cents);
            match transferred.await {
                // Told after the answer, so all that is told must be found in the end.
                Ok(()) => tell("transfers", 1),
                Err(TransactionError::Aborted(why)) if why.is::<InsufficientFunds>() => {
                    tell("refused", 1);
                }
                Err(error) => return Err(error.into()),
            }
            sleep(PAUSE.mul_f64(rng.f64())).await;
        }
        Ok(())
    }

    /// Both accounts, the journal and the hint for the branch change together or not at all,
    /// whenever we are killed.
    async fn transfer(
        &self,
        id: u128,
        payer: u64,
        payee: u64,
        cents: i64,
    ) -> Result<(), TransactionError> {
        let mut runs = 0;
        let trees = [&self.accounts, &self.journal];
        let outcome = self.handoff.transaction(&trees, |rows, hints| {
            // It runs again if another teller changes what it read; so nothing but `runs` outlives
            // a run.
            runs += 1;
            let [accounts, journal] = rows else {
                return Err(Abort::new("two trees were named"));
            };
            let payer_after = balance(accounts, payer)? - cents;
            let payee_after = balance(accounts, payee)? + cents;
            if payer_after < 0 {
                // What is written already would be gone too.
                return Err(InsufficientFunds { payer }.into());
            }
            set_balance(accounts, payer, payer_after)?;
            set_balance(accounts, payee, payee_after)?;
            journal.insert(id.to_be_bytes(), &cents.to_be_bytes())?;
            let transfer = Transfer {
                id,
                payer,
                payee,
                cents,
                payer_after,
                payee_after,
            };
            // Hints of a shard are queued in the order in which their transactions come into
            // effect.
            hints.enqueue(BRANCH, accounts::shard(payer), &Postcard(transfer))?;
            Ok(())
        });
        let outcome = outcome.await.map(|_| ());
        tell("run_again", u64::saturating_sub(runs, 1));
        outcome
    }

    /// Waits until the branch has taken every hint.
    async fn drain(&self) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            let nodes = self.handoff.stats().nodes;
            let Some(waiting) = nodes.iter().find(|node| node.pending.hints > 0) else {
                return Ok(());
            };
            if started.elapsed() > DRAIN_MAX {
                return Err(format!("hints still wait after {DRAIN_MAX:?}: {waiting:?}").into());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// How the bank reaches the branch.
struct Courier {
    socket: PathBuf,
    /// A connection that nobody uses at the moment.
    idle: Mutex<Option<UnixStream>>,
}

impl Courier {
    fn new(root: &Path) -> Self {
        Courier {
            socket: root.join(SOCKET),
            idle: Mutex::default(),
        }
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<(), Failure> {
        let idle = self.idle.lock().take();
        let mut connection = match idle {
            Some(connection) => connection,
            None => UnixStream::connect(&self.socket).await?,
        };
        send(&mut connection, delivery).await?;
        let receipt: Receipt = receive(&mut connection).await?;
        let last = delivery.batches.last().and_then(|batch| batch.hint);
        if last != Some(receipt) {
            return Err(format!("the receipt is for {receipt}, not for {last:?}").into());
        }
        // Kept only after a whole conversation: if the library gives up waiting, it drops this
        // future and the connection with it, and a late receipt is not taken for that of the next
        // delivery.
        *self.idle.lock() = Some(connection);
        Ok(())
    }
}

impl ShardWriter<Hint> for Courier {
    async fn write_shard(&self, write: ShardWrite<Hint>) -> Result<(), WriteError> {
        let delivered = self.deliver(&write).await;
        delivered.map_err(WriteError::retry)
    }
}
