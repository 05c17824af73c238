//! The audit: when all is delivered and closed, the books of bank and branch are compared, and the
//! run judged.

use std::{collections::BTreeMap, path::Path};

use hinted_handoff::{
    AppliedHints, database_config, open_database,
    sled::{Db, IVec},
};

use crate::{
    accounts::{self, ACCOUNTS, OPENING_CENTS},
    bank,
    branch::{self, Counts},
    child::Told,
    protocol::Failure,
};

/// A run of so long in which something never happened counts as failed: it would have shown nothing
/// of it.
const FULL_SECONDS: u64 = 30;
/// Differing accounts that are named.
const NAMED_MAX: usize = 5;

/// What the parent saw.
pub struct Run {
    pub seconds: u64,
    pub bank_kills: u64,
    pub branch_kills: u64,
    pub told: Told,
}

/// What a database says when nobody writes to it any more.
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

    fn sum(&self) -> i64 {
        self.accounts.values().sum()
    }
}

/// Prints what happened, and fails if anything is not as it must be.
pub fn judge(root: &Path, run: &Run) -> Result<(), Failure> {
    // The children are gone, and rows can be read without a store.
    let bank_db = open_database(&database_config(root.join(bank::NAME)))?;
    let branch_db = open_database(&database_config(root.join(branch::NAME)))?;
    let bank = Books::read(&bank_db, bank::JOURNAL)?;
    let branch = Books::read(&branch_db, branch::JOURNAL)?;
    let counts = Counts::read(&branch_db)?;
    let marks = AppliedHints::open(&branch_db)?.tree().len();
    print(run, &bank, counts, marks);

    let faults = faults(run, &bank, &branch, counts);
    if faults.is_empty() {
        println!("\nOK: bank and branch agree to the cent");
        return Ok(());
    }
    Err(format!("the books do not agree:\n  {}", faults.join("\n  ")).into())
}

fn print(run: &Run, bank: &Books, counts: Counts, marks: usize) {
    let Told {
        transfers: answered,
        refused,
        run_again,
        ..
    } = run.told;
    let Run {
        bank_kills,
        branch_kills,
        ..
    } = run;
    let Counts {
        applied,
        came_again,
        suppressed,
        ..
    } = counts;
    let (sum, transfers) = (euros(bank.sum()), bank.journal.len());
    println!();
    println!("crashes      {bank_kills} of the bank, {branch_kills} of the branch");
    println!("transfers    {transfers} in the bank's journal, {answered} answered before a crash");
    println!("aborted      {refused} for lack of funds");
    println!("run again    {run_again} times, having lost a race");
    println!("applied      {applied} by the branch");
    println!("redelivered  {came_again} hints came again");
    println!("suppressed   {suppressed} by their marks, of which {marks} are left");
    println!("money        {sum} in {} accounts", bank.accounts.len());
}

fn faults(run: &Run, bank: &Books, branch: &Books, counts: Counts) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    let (sum, opening) = (bank.sum(), ACCOUNTS as i64 * OPENING_CENTS);
    must(
        sum == opening,
        format!("the bank had {}, and has {}", euros(opening), euros(sum)),
    );
    let (transfers, answered) = (bank.journal.len() as u64, run.told.transfers);
    must(
        answered <= transfers,
        format!("{answered} transfers were answered, the bank has {transfers}"),
    );
    let Counts {
        applied,
        came_again,
        suppressed,
        out_of_step,
    } = counts;
    must(
        applied == transfers,
        format!("the bank made {transfers} transfers, the branch applied {applied}"),
    );
    let lacks = lacking(&bank.journal, &branch.journal);
    let foreign = lacking(&branch.journal, &bank.journal);
    must(
        (lacks, foreign) == (0, 0),
        format!("the branch lacks {lacks} journal rows, and has {foreign} of its own"),
    );
    must(
        suppressed == came_again,
        format!("{came_again} hints came again, {suppressed} were suppressed"),
    );
    must(
        out_of_step == 0,
        format!("{out_of_step} transfers left the branch with other balances than the bank"),
    );
    let differing: Vec<String> = (0..ACCOUNTS)
        .filter_map(|it| differs(it, bank, branch))
        .collect();
    for account in differing.iter().take(NAMED_MAX) {
        must(false, account.clone());
    }
    must(
        differing.len() <= NAMED_MAX,
        format!("{} of {ACCOUNTS} accounts differ", differing.len()),
    );
    if run.seconds >= FULL_SECONDS {
        let happened = [
            ("a kill of the bank", run.bank_kills),
            ("a kill of the branch", run.branch_kills),
            ("an abort", run.told.refused),
            ("a lost race", run.told.run_again),
            ("a duplicate", suppressed),
        ];
        for (what, times) in happened {
            must(
                times > 0,
                format!("{what} never happened, so nothing was shown of it"),
            );
        }
    }
    faults
}

fn differs(account: u64, bank: &Books, branch: &Books) -> Option<String> {
    let cents = |books: &Books| books.accounts.get(&account).copied();
    let text = |cents: Option<i64>| cents.map_or("nothing".to_owned(), euros);
    let (there, here) = (cents(bank), cents(branch));
    (there.is_none() || there != here).then(|| {
        format!(
            "account {account} has {} at the bank and {} at the branch",
            text(there),
            text(here)
        )
    })
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
