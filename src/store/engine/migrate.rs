//! The schema version of a store and the runner of the steps in `migrations/`.

use std::sync::Arc;

use crate::{
    error::StorageError,
    store::{
        engine::{
            generation::Engine,
            meta::{self, MetaError},
            writer::Writer,
        },
        failpoints::{Safeguard, point},
    },
};

#[path = "../../../migrations/0001_create.rs"]
mod step_0001_create;

type Step = fn(&sled::Db, store_id: [u8; 16]) -> sled::Result<()>;

/// `STEPS[n]` brings a store from schema `n` to `n + 1`.
const STEPS: [Step; 1] = [step_0001_create::run];

/// The newest schema this library reads and the one it writes.
pub const SCHEMA_VERSION: u32 = STEPS.len() as u32;

#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("schema {found} is newer")]
    Newer { found: u32 },
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Brings the store to the newest schema: for each step the data first, then flush and fsync, then
/// the version, then flush and fsync again. A crash anywhere runs the step once more.
///
/// `served` says that this generation was open before: then it has a version, and if sled lost it
/// (a damaged file may come back as an empty database) running step 1 would silently start over.
pub fn migrate(
    engine: &Arc<Engine>,
    served: bool,
    new_store_id: [u8; 16],
) -> Result<(), SchemaError> {
    run(engine, served, new_store_id, &STEPS)
}

fn run(
    engine: &Arc<Engine>,
    served: bool,
    new_store_id: [u8; 16],
    steps: &[Step],
) -> Result<(), SchemaError> {
    let found = match meta::schema(engine)? {
        Some(version) => version,
        None if served || engine.holds_data().map_err(MetaError::from)? => {
            return Err(SchemaError::Meta(MetaError::Damaged {
                record: "schema",
                detail: "it is missing although the store was in use".to_owned(),
            }));
        }
        None => 0,
    };
    let todo = steps.get(found as usize..);
    let todo = todo.ok_or(SchemaError::Newer { found })?;
    let mut writer = Writer::new(
        Arc::clone(engine),
        "migrate the schema",
        Safeguard::GroupCommits,
    );
    for (version, step) in (found + 1..).zip(todo) {
        step(engine.db(), new_store_id)
            .map_err(|error| StorageError::new("migrate the schema", error))?;
        point("migrate: data written")?;
        writer.commit()?;
        point("migrate: data durable")?;
        meta::set_schema(&mut writer, version)?;
        point("migrate: version written")?;
        writer.commit()?;
        tracing::info!(
            from_schema = version - 1,
            to_schema = version,
            "schema migrated"
        );
    }
    Ok(())
}

#[cfg(test)]
#[cfg(feature = "internals")]
mod tests;
