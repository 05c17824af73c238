//! A replica: takes writes over TCP into its own database.

use std::{path::Path, sync::Arc};

use hinted_handoff::NodeId;

use crate::{
    protocol::{Failure, ReplicaAnswer, ReplicaRequest, replica_name, with_causes},
    server::{self, Service},
    table::{ApplyError, Table},
};

struct Replica {
    table: Arc<Table>,
}

pub async fn run(root: &Path, node: NodeId) -> Result<(), Failure> {
    server::end_with_the_director();
    let name = replica_name(node);
    let table = Arc::new(Table::open(&root.join(&name))?);
    server::serve(root, &name, Replica { table }).await
}

impl Service<ReplicaRequest> for Replica {
    async fn answer(&self, request: ReplicaRequest) -> Result<ReplicaAnswer, Failure> {
        let table = Arc::clone(&self.table);
        // It waits for the disk, so not on a thread that drives connections. It also runs to its
        // end when the coordinator is killed meanwhile: then it was applied, and nobody was told.
        tokio::task::spawn_blocking(move || answer(&table, request)).await?
    }
}

fn answer(table: &Table, request: ReplicaRequest) -> Result<ReplicaAnswer, Failure> {
    Ok(match request {
        ReplicaRequest::Ping => ReplicaAnswer::Pong,
        ReplicaRequest::Write(write) => match table.apply(&write) {
            Ok(()) => ReplicaAnswer::Written,
            Err(ApplyError::Malformed(why)) => ReplicaAnswer::Malformed(why.to_string()),
            Err(ApplyError::Storage(error)) => {
                // sled's errors are sticky and the outcome is unknown: a replica that went on would
                // answer from memory what the disk does not have.
                eprintln!(
                    "replica: the database failed: {}",
                    with_causes(error.as_ref())
                );
                std::process::exit(1);
            }
        },
        ReplicaRequest::Dump => ReplicaAnswer::Dump {
            points: table.points()?,
            counters: table.counters()?,
        },
    })
}
