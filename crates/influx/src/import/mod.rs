//! `hh-relay import`: queues of InfluxDB's own hinted handoff, put into the store of a relay.
//!
//! InfluxDB 0.9 to 0.11 kept a queue a node, in files `<dir>/<node>/<segment>`; influxdb-cluster
//! keeps one a node and shard, in `<dir>/<node>/<shard>/<segment>`. A segment is
//!
//! ```text
//! repeat: u64 BE length | body
//! last:   u64 BE footer: where the first record begins that the node has not
//!
//! body:   u64 BE shard | lines of line protocol, in nanoseconds
//!     or: u64 BE shard | repeat: u32 BE length | a point in binary form
//! ```
//!
//! and has no checksum. An append writes its length over the footer, then its body, then the
//! footer again, so a crash leaves many forms. Nothing in the directory is changed.
//!
//! # What is taken of a torn segment
//!
//! Two things are proofs. Records **tile** if each length leads to the next one, and the last to
//! the footer. And a record shows by its **content** that it is one: a length up to 10 MiB, a
//! shard's id below 2^32, and nothing but whole points up to the end that the length says. What is
//! neither is kept aside. A point that is delivered twice does no harm, one that is lost does: so a
//! footer that is not proven counts for nothing, and all records of its segment are imported.
//!
//! | what is there | by what it is known | what is imported | what is reported |
//! |---|---|---|---|
//! | an intact segment | records tile, and the footer is where one begins, or the last one ends | records from the footer on | nothing |
//! | no byte | | nothing: it was just made | nothing |
//! | 1 to 7 bytes | | nothing | all of it |
//! | the length of a new record in place of the footer | records tile, and the footer is where none begins | all records | the footer |
//! | a footer that is negative, past the end, or in a record | the same | all records | the footer |
//! | a new record that is cut, within its length, its body, or the new footer | records do not tile | all before it, and its whole points | the rest of it |
//! | a tail that is cut anywhere | records do not tile | the same | the same |
//! | a record that was cut, and others written over its end | its body is not whole points, and within it a record shows by its content; even if lengths happen to tile | its points before that one, and those that follow | what is between |
//! | a length that is 0, as up to 0.9.4 | no length is | its points, up to the next record | its length |
//! | a length that is wrong | no record, by its content | its points, up to the next record that shows by its content | what is between |
//! | a run of zeros | the same | what follows it | the run |
//! | lines that are no points | | the other lines | the record, with the first 20 |
//! | points in binary form that do not read | | the other points | each |
//! | a shard that is 0 or 2^32 and more | | nothing, but where the folder names the shard | the record |
//! | points with a byte 0 in them | zeros were written into them | the other points | each |
//!
//! A line is whole if its end is there, and no byte 0 before it; a point in binary form if its
//! lengths add up and its time is one, which in a torn segment must be in UTC, as those of writes
//! are. Records that tile are taken as they are. Damage that leaves a point which reads is not
//! noticed: there is no checksum.
//!
//! One thing cannot be proven: a crash right behind the length of a new record, whose value is by
//! chance where a record begins, looks exactly like a footer. With records of some hundred bytes
//! that is one of some hundred such crashes. `--from-start` imports all records whatever the footer
//! says.
//!
//! # Twice is never
//!
//! `influx-import/journal`, in the store's directory, has two lines for each segment: `begin`, on
//! the disk before the first of its hints is handed in, and `end`, after the last of them is
//! durable. A segment is known by its name, the bytes of its records, its node, and the places of
//! its shards: a segment of the same name of another server is another one, and so is one that is
//! put into another database, since that has not got it.
//!
//! If an import is cut short one line `begin` has no end. Then it is counted what the store has of
//! it ([`settle`]), which is exact:
//!
//! - Each hint has a [`WriteId`](hinted_handoff::WriteId): `boot` is that of the line, and
//!   `counter` grows from hint to hint. No other hint has that `boot`.
//! - All hints of a segment are for one node, and so of one queue. A store that is recovered has a
//!   beginning of what was handed in for a queue. So the highest counter in it says which hints are
//!   there: all up to that one.
//! - Counting begins when recovery is done, and nothing has left the store since it was cut short:
//!   the importer delivers nothing, and a relay settles before it opens the store.
//!
//! Then a line `end` says up to which counter hints are there, and the next import goes on with the
//! one behind it. Reading a segment again gives the same hints in the same order, since the bytes
//! are compared.
//!
//! It is not exact, and hints come twice, never none:
//!
//! - if another program than the relay, one that does not settle, opens the store after an import
//!   was cut short, and what it delivers or discards are the last of the hints that are there;
//! - if an old server ran meanwhile and cut or overwrote the bytes that were imported;
//! - if the journal is deleted, or hints are moved to another store.
//!
//! The journal belongs to its store by id, and lies in its directory so that both are copied and
//! deleted together. The store leaves alone what it does not know there.
//!
//! # Ages
//!
//! A hint is as old as the last change of its file, and so is a point in a line without a time. A
//! relay drops hints that are older than its `max_age`, and records that: raise it before it is
//! started with an old directory's hints.
//!
//! # The file of shards
//!
//! Old queues name shards only. TOML says which databases they are of; so does what
//! `influx -execute 'SHOW SHARDS' -format csv`, or `json`, printed.
//!
//! ```toml
//! # All that are not below; left out, each shard must be.
//! default = { database = "telegraf" }
//!
//! [[shard]]
//! id = 7
//! database = "metrics"
//! retention_policy = "autogen"
//! ```

mod arguments;
mod block;
mod error;
mod journal;
mod load;
mod output;
mod point;
mod progress;
mod report;
mod segment;
mod settle;
mod shards;
mod source;
mod survey;
mod walk;

pub use arguments::Arguments;
pub use block::Block;
pub use error::ImportFailure;
pub use segment::{Damage, Record, Segment};
pub use settle::settle;
