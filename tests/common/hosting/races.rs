//! Races that go wrong unless transactions are serialisable. Each is forced: both have read before
//! either can be committed.

use std::{
    collections::BTreeSet,
    sync::{Arc, Barrier},
    thread,
};

use hinted_handoff::{Abort, RowBatch, TransactionError};

use super::{Host, MANUAL, SHARD, number};

const AMOUNT: u64 = 100;

/// Two withdrawals at once.
struct Race {
    accounts: &'static [(&'static str, u64)],
    /// Each reads these, and withdraws only if this much is in them together.
    needed: u64,
    /// What each withdraws from.
    from: [&'static str; 2],
}

/// Both withdraw from one account that has enough for one of them.
pub fn lost_update(host: &Host) -> Result<(), String> {
    two_withdraw(
        host,
        &Race {
            accounts: &[("shared", 150)],
            needed: 100,
            from: ["shared", "shared"],
        },
    )
}

/// Each withdraws from its own account, if both together have enough left.
pub fn write_skew(host: &Host) -> Result<(), String> {
    two_withdraw(
        host,
        &Race {
            accounts: &[("his", 100), ("hers", 100)],
            needed: 200,
            from: ["his", "hers"],
        },
    )
}

fn two_withdraw(host: &Host, race: &Race) -> Result<(), String> {
    let mut opening = RowBatch::new();
    for (account, balance) in race.accounts {
        opening
            .insert(&host.rows, account, &balance.to_be_bytes())
            .unwrap();
    }
    host.handoff.apply_blocking(opening).unwrap();
    let waiting_before = host.pending(MANUAL);
    let both_have_read = Arc::new(Barrier::new(2));
    let withdrawn = thread::scope(|scope| {
        let threads = race.from.map(|from| {
            let barrier = Arc::clone(&both_have_read);
            scope.spawn(move || withdraw(host, race, from, &barrier))
        });
        let done = threads.map(|it| it.join().unwrap());
        done.into_iter().filter(|done| *done).count() as u64
    });
    let hints = host.pending(MANUAL) - waiting_before;
    let left: u64 = race
        .accounts
        .iter()
        .map(|(account, _)| balance(host, account))
        .sum();
    let before: u64 = race.accounts.iter().map(|(_, balance)| balance).sum();
    let all = format!("{withdrawn} withdrawals, {hints} hints, {left} left of {before}");
    match withdrawn == 1 && hints == 1 && left + AMOUNT == before {
        true => Ok(()),
        false => Err(all),
    }
}

fn balance(host: &Host, account: &str) -> u64 {
    number(host.rows.get(account).unwrap())
}

/// Whether there was enough.
fn withdraw(host: &Host, race: &Race, from: &str, both_have_read: &Barrier) -> bool {
    let mut is_first_run = true;
    let done = host
        .handoff
        .transaction_blocking(&[&host.rows], |rows, hints| {
            let mut sum = 0;
            for (account, _) in race.accounts {
                sum += number(rows[0].get(account)?);
            }
            if std::mem::take(&mut is_first_run) {
                both_have_read.wait();
            }
            if sum < race.needed {
                return Err(Abort::new("not enough"));
            }
            let left = number(rows[0].get(from)?) - AMOUNT;
            rows[0].insert(from, &left.to_be_bytes())?;
            hints.enqueue(MANUAL, SHARD, &from.to_owned().into())?;
            Ok(())
        });
    match done {
        Ok(_) => true,
        Err(TransactionError::Aborted(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

/// Reads an account, lets somebody move all of it to another, and reads that: what was read is of
/// one moment, or the reader runs again.
pub fn reads_of_two_moments(host: &Host) -> Result<(), String> {
    let mut opening = RowBatch::new();
    opening
        .insert(&host.rows, "from", &AMOUNT.to_be_bytes())
        .unwrap();
    opening
        .insert(&host.rows, "to", &0_u64.to_be_bytes())
        .unwrap();
    host.handoff.apply_blocking(opening).unwrap();
    let mut seen = BTreeSet::new();
    let read = host.handoff.transaction_blocking(&[&host.rows], |rows, _| {
        let from = number(rows[0].get("from")?);
        if seen.is_empty() {
            thread::scope(|scope| scope.spawn(|| move_all(host)).join().unwrap());
        }
        let sum = from + number(rows[0].get("to")?);
        seen.insert(sum);
        // A wrong conclusion from what does not fit together must not be told either.
        match sum {
            AMOUNT => Ok(()),
            wrong => Err(Abort::new(format!("{wrong} in all, not {AMOUNT}"))),
        }
    });
    assert!(seen.contains(&(2 * AMOUNT)), "the race did not take place");
    read.map(drop).map_err(|error| format!("{error:?}"))
}

fn move_all(host: &Host) {
    let mut moved = RowBatch::new();
    moved
        .insert(&host.rows, "from", &0_u64.to_be_bytes())
        .unwrap();
    moved
        .insert(&host.rows, "to", &AMOUNT.to_be_bytes())
        .unwrap();
    host.handoff.apply_blocking(moved).unwrap();
}
