//! The audit: when all is delivered and closed, the books of bank and branch are compared, and the run judged.

use std::{collections::BTreeMap, path::Path};

use hinted_handoff::{
    AppliedHints, database_config, open_database,
    sled::{Db, IVec},
};

use crate::{
    accounts::{self, ACCOUNTS, OPENING_CENTS},
    bank, branch,
    protocol::Failure,
};

/// From here on a run that killed nobody or saw no hint twice counts as failed: it would have shown nothing.
const FULL_SECONDS: u64 = 30;

/// What the parent saw.
pub struct Run {
    pub seconds: u64,
    pub bank_kills: u64,
    pub branch_kills: u64,
    /// What the children told, see `child.rs`.
    pub told: BTreeMap<String, u64>,
}

struct Books {
    accounts: BTreeMap<u64, i64>,
    /// The transfer's id to its cents.
    journal: BTreeMap<IVec, IVec>,
}

impl Books {
    fn read(db: &Db, journal: &str) -> Result<Self, Failure> {
        Ok(Books {
            accounts: accounts::read_all(db)?,
            journal: db.open_tree(journal)?.iter().collect::<Result<_, _>>()?,
        })
    }
}

/// Prints what happened, and fails if anything is not as it must be.
pub fn judge(root: &Path, run: &Run) -> Result<(), Failure> {
    // The children are gone, and rows can be read without a store.
    let bank_db = open_database(&database_config(root.join(bank::NAME)))?;
    let branch_db = open_database(&database_config(root.join(branch::NAME)))?;
    let bank = Books::read(&bank_db, bank::JOURNAL)?;
    let branch = Books::read(&branch_db, branch::JOURNAL)?;
    let counts = branch::Counts::read(&branch_db)?;
    let marks = AppliedHints::open(&branch_db)?.tree().len();

    let told = |what: &str| run.told.get(what).copied().unwrap_or(0);
    let (answered, refused, again) = (told("transfers"), told("refused"), told("run again"));
    let transfers = bank.journal.len() as u64;
    let sum: i64 = bank.accounts.values().sum();
    let opening = ACCOUNTS as i64 * OPENING_CENTS;

    println!();
    println!(
        "crashes       {} of the bank, {} of the branch",
        run.bank_kills, run.branch_kills
    );
    println!("transfers     {transfers}, of which {answered} were answered before a crash");
    println!("aborted       {refused} for lack of funds");
    println!("run again     {again} times, having lost a race");
    println!("applied       {} by the branch", counts.applied);
    println!("redelivered   {} hints came again", counts.came_again);
    println!(
        "suppressed    {} by their marks, of which {marks} are left",
        counts.suppressed
    );
    println!(
        "money         {} at the bank, {} at the start",
        euros(sum),
        euros(opening)
    );

    let mut faults = Vec::new();
    let mut must = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    must(
        sum == opening,
        format!(
            "the bank began with {} and has {}",
            euros(opening),
            euros(sum)
        ),
    );
    must(
        answered <= transfers,
        format!("{answered} transfers were answered, {transfers} are in the bank's journal"),
    );
    must(
        counts.applied == transfers,
        format!(
            "{transfers} transfers are in the bank's journal, the branch applied {}",
            counts.applied
        ),
    );
    must(
        bank.journal == branch.journal,
        format!(
            "of the bank's journal rows the branch lacks {}, and has {} that the bank lacks",
            lacking(&bank.journal, &branch.journal),
            lacking(&branch.journal, &bank.journal)
        ),
    );
    must(
        counts.suppressed == counts.came_again,
        format!(
            "{} hints came again, {} were suppressed",
            counts.came_again, counts.suppressed
        ),
    );
    must(
        counts.out_of_step == 0,
        format!(
            "{} transfers left the branch with other balances than the bank",
            counts.out_of_step
        ),
    );
    must(
        bank.accounts.len() as u64 == ACCOUNTS && branch.accounts.len() as u64 == ACCOUNTS,
        format!(
            "of {ACCOUNTS} accounts the bank has {}, the branch {}",
            bank.accounts.len(),
            branch.accounts.len()
        ),
    );
    for (account, cents) in &bank.accounts {
        let mirrored = branch.accounts.get(account).copied().unwrap_or(0);
        must(
            mirrored == *cents,
            format!(
                "account {account} has {} at the bank and {} at the branch",
                euros(*cents),
                euros(mirrored)
            ),
        );
    }
    if run.seconds >= FULL_SECONDS {
        let happened = [
            run.bank_kills,
            run.branch_kills,
            refused,
            again,
            counts.suppressed,
        ];
        must(
            happened.iter().all(|count| *count > 0),
            "a crash, an abort, a lost race or a duplicate never happened, so nothing was shown of it".to_owned(),
        );
    }
    if faults.is_empty() {
        println!("\nOK: every account has the same at the bank and at the branch, to the cent");
        return Ok(());
    }
    Err(format!("the books do not agree:\n  {}", faults.join("\n  ")).into())
}

/// How many rows of `these` are not, or not so, in `those`.
fn lacking(these: &BTreeMap<IVec, IVec>, those: &BTreeMap<IVec, IVec>) -> usize {
    let lacks = |(id, cents): &(&IVec, &IVec)| those.get(*id) != Some(*cents);
    these.iter().filter(lacks).count()
}

fn euros(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}
