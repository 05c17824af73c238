//! The branch: a mirror of the bank's accounts, which applies each hint once however often it
//! comes.

use std::{io::ErrorKind, path::Path, sync::Arc, time::Duration};

use fastrand::Rng;
use hinted_handoff::{
    Abort, AppliedHints, Config, HintedHandoff, Postcard, Rows, ShardWrite, ShardWriter,
    TransactionError, WriteError, database_config, open_database,
    sled::{Db, Tree},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::sleep,
};

use crate::{
    accounts::{self, balance, set_balance},
    child::{orders, tell},
    protocol::{Delivery, Failure, Hint, SOCKET, Transfer, receive, send},
};

/// The branch's directory, and its tree of journal rows.
pub const NAME: &str = "branch";
pub const JOURNAL: &str = "journal";
const COUNTS: &str = "counts";

/// One receipt in so many is held back for up to so long: then it is likely that a kill comes
/// between a transaction and its receipt, and all of it comes again.
const ONE_LATE_IN: u32 = 8;
const LATE_MAX: Duration = Duration::from_millis(60);

struct Branch {
    handoff: HintedHandoff<Hint>,
    accounts: Tree,
    journal: Tree,
    counts: Tree,
    applied: AppliedHints,
    rng: Mutex<Rng>,
}

/// What the branch counts in the same transaction as what it counts, so that no kill falsifies it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub applied: u64,
    /// Transfers that were in the journal already: seen without looking at the marks.
    pub came_again: u64,
    /// Hints that were not new by their marks.
    pub suppressed: u64,
    /// Transfers after which the accounts had not what they had at the bank.
    pub out_of_step: u64,
}

/// The branch hints nothing; its handoff is there for the transactions.
struct Nobody;

impl ShardWriter<Hint> for Nobody {
    async fn write_shard(&self, _: ShardWrite<Hint>) -> Result<(), WriteError> {
        Err(WriteError::reject("the branch hints nothing"))
    }
}

pub async fn run(root: &Path, seed: u64) -> Result<(), Failure> {
    let finish = orders();
    let config = Config::new(root.join(NAME));
    let db = open_database(&database_config(&config.dir))?;
    let handoff = HintedHandoff::open_in(&db, config, Nobody).await?;
    let branch = Arc::new(Branch {
        accounts: accounts::open(&db, &handoff).await?,
        journal: db.open_tree(JOURNAL)?,
        counts: db.open_tree(COUNTS)?,
        applied: AppliedHints::open(&db)?,
        rng: Mutex::new(Rng::with_seed(seed)),
        handoff,
    });
    let listener = listen(&root.join(SOCKET))?;
    // A delivery that was read is applied to its end, also when the bank is killed meanwhile and
    // nobody waits for the receipt.
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            () = finish.cancelled() => break,
            accepted = listener.accept() => {
                conversations.spawn(Arc::clone(&branch).converse(accepted?.0));
            }
            Some(ended) = conversations.join_next() => ended??,
        }
    }
    Ok(branch.handoff.shutdown().await?)
}

fn listen(socket: &Path) -> Result<UnixListener, Failure> {
    match std::fs::remove_file(socket) {
        // Of the life before, or there is none.
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    Ok(UnixListener::bind(socket)?)
}

impl Branch {
    /// Ends when the bank hangs up. An error is one of the branch's own database.
    async fn converse(self: Arc<Self>, mut bank: UnixStream) -> Result<(), Failure> {
        while let Ok(delivery) = receive::<Delivery>(&mut bank).await {
            // Only direct writes have no id, and the bank makes none.
            let Some(last) = delivery.batches.last().and_then(|batch| batch.hint) else {
                return Ok(());
            };
            let counts = self.take(&delivery).await?;
            tell("applied", counts.applied);
            tell("suppressed", counts.suppressed);
            let late = self.late();
            sleep(late).await;
            if send(&mut bank, &last).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Applies what is new of a delivery. When it returns, that is on disk, and so are its marks:
    /// they are in one transaction, and there is no moment to be killed in between.
    async fn take(&self, delivery: &Delivery) -> Result<Counts, TransactionError> {
        let marks = self.applied.tree();
        let trees = [&self.accounts, &self.journal, &self.counts, marks];
        let committed = self.handoff.transaction(&trees, |rows, _| {
            let [accounts, journal, counts, marks] = rows else {
                return Err(Abort::new("four trees were named"));
            };
            let mut now = Counts::default();
            for batch in &delivery.batches {
                if journal.get(batch.points.0.id.to_be_bytes())?.is_some() {
                    now.came_again += 1;
                }
            }
            let new = self.applied.take_new(marks, delivery)?;
            now.applied = new.len() as u64;
            now.suppressed = delivery.batches.len() as u64 - now.applied;
            for batch in new {
                let Postcard(transfer) = &batch.points;
                journal.insert(transfer.id.to_be_bytes(), &transfer.cents.to_be_bytes())?;
                if !apply(accounts, transfer)? {
                    now.out_of_step += 1;
                }
            }
            let so_far = Counts::decode(counts.get(COUNTS)?.as_deref())?;
            counts.insert(COUNTS, postcard::to_stdvec(&so_far.plus(now))?)?;
            Ok(now)
        });
        Ok(committed.await?.value)
    }

    fn late(&self) -> Duration {
        let mut rng = self.rng.lock();
        match rng.u32(..ONE_LATE_IN) {
            0 => LATE_MAX.mul_f64(rng.f64()),
            _ => Duration::ZERO,
        }
    }
}

/// Moves the money, and says whether both accounts then have what they had at the bank.
fn apply(accounts: &mut Rows<'_>, transfer: &Transfer) -> Result<bool, Abort> {
    let payer_after = balance(accounts, transfer.payer)? - transfer.cents;
    let payee_after = balance(accounts, transfer.payee)? + transfer.cents;
    set_balance(accounts, transfer.payer, payer_after)?;
    set_balance(accounts, transfer.payee, payee_after)?;
    Ok((payer_after, payee_after) == (transfer.payer_after, transfer.payee_after))
}

impl Counts {
    /// Those of a database that nobody writes to.
    pub fn read(db: &Db) -> Result<Self, Failure> {
        let row = db.open_tree(COUNTS)?.get(COUNTS)?;
        Ok(Counts::decode(row.as_deref())?)
    }

    fn decode(row: Option<&[u8]>) -> Result<Self, postcard::Error> {
        row.map_or(Ok(Counts::default()), postcard::from_bytes)
    }

    fn plus(self, other: Counts) -> Counts {
        Counts {
            applied: self.applied + other.applied,
            came_again: self.came_again + other.came_again,
            suppressed: self.suppressed + other.suppressed,
            out_of_step: self.out_of_step + other.out_of_step,
        }
    }
}
