//! Rows, hints and marks that change together, shown by a bank and its branch that are killed all
//! the time.
//!
//! ```text
//! cargo run --release --example ledger              # kills for 30 seconds
//! cargo run --release --example ledger -- 5         # for 5
//! HH_SEED=7 cargo run --release --example ledger    # with the random choices of another run
//! ```
//!
//! The binary starts itself as two processes with a sled database each:
//!
//! - the *bank* (`bank.rs`) moves money between accounts, by several tasks at once. Both balances,
//!   a journal row and one hint for the branch are one `HintedHandoff::transaction`. A transfer
//!   that its payer cannot afford is aborted.
//! - the *branch* (`branch.rs`) mirrors the accounts. It is sent the hints over a socket
//!   (`protocol.rs`) and applies each once: the balances and the mark of `AppliedHints` are one
//!   transaction too, and on disk before it answers.
//!
//! The process you start (`main.rs`) kills each with SIGKILL at random moments and starts it again
//! (`child.rs`), so transfers break off anywhere, and hints come again since their receipt was
//! lost. Then it lets all be delivered and both close, and compares their books to the cent
//! (`audit.rs`). The exit code is 0 if they agree.
//!
//! Without transactions neither side can be right: a bank that writes the rows first may die before
//! the hint, one that hints first may die before the rows, and a branch that keeps its marks apart
//! loses a transfer or applies it twice.

mod accounts;
mod audit;
mod bank;
mod branch;
mod child;
mod protocol;

use std::{convert::Infallible, path::Path, process::ExitCode, sync::Arc, time::Duration};

use audit::Run;
use child::{Child, Told};
use fastrand::Rng;
use parking_lot::Mutex;
use protocol::{Failure, with_causes};
use tokio::time::{Instant, interval, sleep_until};

const SECONDS: u64 = 30;
/// How long a child lives before it is killed. One life in so many is so short that it ends while
/// the database is opened.
const LIFE_MAX: Duration = Duration::from_millis(1500);
const SHORT_LIFE_MAX: Duration = Duration::from_millis(40);
const ONE_SHORT_IN: u32 = 6;
/// For one child, when nobody is killed any more. The bank gives up by itself sooner.
const FINISH_MAX: Duration = Duration::from_secs(55);
/// For all of it, besides the time in which children are killed.
const STORY_MAX: Duration = Duration::from_secs(120);

const USAGE: &str = "usage: ledger [seconds]";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        [] => story(SECONDS).await,
        [seconds] if seconds.parse::<u64>().is_ok() => {
            story(seconds.parse().unwrap_or(SECONDS)).await
        }
        // The roles that the story starts.
        [role, root, seed] => play(role, Path::new(root), seed).await,
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let name = arguments.get(..3).map_or("FAILED", |role| role[0]);
            eprintln!("{name}: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn play(role: &str, root: &Path, seed: &str) -> Result<(), Failure> {
    let seed = seed.parse()?;
    match role {
        bank::NAME => bank::run(root, seed).await,
        branch::NAME => branch::run(root, seed).await,
        _ => Err(USAGE.into()),
    }
}

async fn story(seconds: u64) -> Result<(), Failure> {
    let seed = match std::env::var("HH_SEED") {
        Ok(seed) => seed
            .parse()
            .map_err(|_| format!("HH_SEED is a number, not {seed:?}"))?,
        Err(_) => fastrand::u64(..),
    };
    println!("HH_SEED={seed}; a bank and its branch are killed for {seconds} s");
    let dir = tempfile::tempdir()?;
    let told = Arc::new(Mutex::new(Told::default()));
    let mut rng = Rng::with_seed(seed);
    let mut bank = Child::new(bank::NAME, dir.path(), rng.u64(..), &told);
    let mut branch = Child::new(branch::NAME, dir.path(), rng.u64(..), &told);
    let end = Instant::now() + Duration::from_secs(seconds);

    let outcome = tokio::select! {
        outcome = async {
            tokio::try_join!(haunt(&mut bank, rng.fork(), end), haunt(&mut branch, rng.fork(), end))?;
            println!("no more is killed; what waits is delivered");
            // The branch last: it has to take what waits at the bank.
            bank.finish(FINISH_MAX).await?;
            branch.finish(FINISH_MAX).await
        } => outcome,
        never = watch(&told) => match never {},
        () = sleep_until(end + STORY_MAX) => Err("a child does not die".into()),
    };
    let run = Run {
        seconds,
        bank_kills: bank.kills,
        branch_kills: branch.kills,
        told: *told.lock(),
    };
    // However it ended, and before the directory is removed.
    bank.kill().await?;
    branch.kill().await?;
    outcome?;
    audit::judge(dir.path(), &run)
}

/// Kills a child at random moments, until the end. Then it lives.
async fn haunt(child: &mut Child, mut rng: Rng, end: Instant) -> Result<(), Failure> {
    loop {
        child.start()?;
        let life_max = match rng.u32(..ONE_SHORT_IN) {
            0 => SHORT_LIFE_MAX,
            _ => LIFE_MAX,
        };
        let death = Instant::now() + life_max.mul_f64(rng.f64());
        child.live(death.min(end) - Instant::now()).await?;
        if death >= end {
            return Ok(());
        }
        child.kill().await?;
    }
}

/// A line a second, until dropped.
async fn watch(told: &Mutex<Told>) -> Infallible {
    let started = Instant::now();
    let mut seconds = interval(Duration::from_secs(1));
    seconds.tick().await;
    loop {
        seconds.tick().await;
        let Told {
            transfers,
            refused,
            applied,
            suppressed,
            ..
        } = *told.lock();
        let second = started.elapsed().as_secs();
        println!(
            "[{second:2} s] bank: {transfers} transfers, {refused} refused; branch: {applied} applied, {suppressed} suppressed"
        );
    }
}
