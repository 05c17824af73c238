//! The accounts as both databases keep them: a row each, the number (u64) to the balance in cents
//! (i64), big endian.

use std::collections::BTreeMap;

use hinted_handoff::{
    Abort, HintedHandoff, RowBatch, Rows, ShardId, TransactionError,
    sled::{Db, IVec, Tree},
};

use crate::protocol::{Failure, Hint};

/// Each region's accounts are a shard of their own, and money stays within a region: the order of
/// hints is kept within a shard, and only transfers that share an account must keep theirs.
pub const REGIONS: u64 = 2;
pub const ACCOUNTS_A_REGION: u64 = 16;
pub const ACCOUNTS: u64 = REGIONS * ACCOUNTS_A_REGION;
/// What each account has at the start.
pub const OPENING_CENTS: i64 = 1_000 * 100;

const TREE: &str = "accounts";

pub fn shard(account: u64) -> ShardId {
    ShardId(account / ACCOUNTS_A_REGION)
}

/// The accounts of this database. In a new one they are made, all at once or, if this process is
/// killed now, none.
pub async fn open(db: &Db, handoff: &HintedHandoff<Hint>) -> Result<Tree, Failure> {
    let accounts = db.open_tree(TREE)?;
    if accounts.is_empty() {
        let mut batch = RowBatch::new();
        for account in 0..ACCOUNTS {
            batch.insert(&accounts, key(account), value(OPENING_CENTS))?;
        }
        handoff.apply(batch).await?;
    }
    Ok(accounts)
}

/// All accounts of a database that nobody writes to.
pub fn read_all(db: &Db) -> Result<BTreeMap<u64, i64>, Failure> {
    let rows = db.open_tree(TREE)?.iter();
    rows.map(|row| {
        let (key, value) = row?;
        Ok((u64::from_be_bytes(key.as_ref().try_into()?), cents(&value)?))
    })
    .collect()
}

pub fn balance(accounts: &mut Rows<'_>, account: u64) -> Result<i64, Abort> {
    let row = accounts.get(key(account))?;
    let row = row.ok_or_else(|| Abort::new(format!("there is no account {account}")))?;
    cents(&row).map_err(Abort::new)
}

pub fn set_balance(
    accounts: &mut Rows<'_>,
    account: u64,
    cents: i64,
) -> Result<(), TransactionError> {
    accounts.insert(key(account), value(cents))
}

fn key(account: u64) -> [u8; 8] {
    account.to_be_bytes()
}

fn value(cents: i64) -> IVec {
    IVec::from(&cents.to_be_bytes())
}

fn cents(value: &IVec) -> Result<i64, Failure> {
    Ok(i64::from_be_bytes(value.as_ref().try_into()?))
}
