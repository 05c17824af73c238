//! All that is measured, and what an answer of each means.

use std::path::Path;

use crate::{
    common::Outcome,
    files::{InQueueFile, Yaque},
    peer::Peer,
    persistent,
    redb_alone::Redb,
    sled_alone::Sled,
};

type Open = fn(&Path) -> Outcome<Box<dyn Peer>>;

pub enum Kind {
    /// The raw file.
    Raw,
    Ours,
    /// Another, and how it is opened.
    Peer(Open),
}

pub struct Subject {
    pub name: &'static str,
    /// What its acknowledgement means.
    pub ack: &'static str,
    /// Whether both an entry that was answered and its removal survive a power cut.
    pub is_durable: bool,
    pub is_queue: bool,
    pub kind: Kind,
}

pub fn subjects() -> Vec<Subject> {
    let peer = |name, ack, is_durable, is_queue, open| Subject {
        name,
        ack,
        is_durable,
        is_queue,
        kind: Kind::Peer(open),
    };
    vec![
        Subject {
            name: "raw file, group commit",
            ack: "fdatasync",
            is_durable: true,
            is_queue: false,
            kind: Kind::Raw,
        },
        Subject {
            name: "hinted-handoff",
            ack: "fdatasync",
            is_durable: true,
            is_queue: true,
            kind: Kind::Ours,
        },
        peer(
            "sled, insert + flush",
            "**not synced**: sync_file_range",
            false,
            false,
            |dir| Ok(Box::new(Sled::open(dir, false)?)),
        ),
        peer(
            "sled, insert + flush + an fdatasync of one's own",
            "fdatasync",
            true,
            false,
            |dir| Ok(Box::new(Sled::open(dir, true)?)),
        ),
        peer(
            "redb, a transaction an entry",
            "fsync",
            true,
            false,
            |dir| Ok(Box::new(Redb::open(dir)?)),
        ),
        peer(
            "persistent-queue on sled, Group",
            "**not synced**: sync_file_range",
            false,
            true,
            |dir| Ok(Box::new(persistent::over_sled(dir, true)?)),
        ),
        peer(
            "persistent-queue on redb, Group",
            "fsync",
            true,
            true,
            |dir| Ok(Box::new(persistent::over_redb(dir, true)?)),
        ),
        peer(
            "the same, its acks not durable",
            "fsync; removals **not synced**",
            false,
            true,
            |dir| Ok(Box::new(persistent::over_redb(dir, false)?)),
        ),
        peer(
            "queue-file, under a mutex",
            "two fdatasyncs",
            true,
            true,
            |dir| Ok(Box::new(InQueueFile::open(dir)?)),
        ),
        peer(
            "yaque, under a mutex",
            "**not synced**: written to the page cache",
            false,
            true,
            |dir| Ok(Box::new(Yaque::open(dir)?)),
        ),
    ]
}
