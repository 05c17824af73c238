//! Opening the engine guarded, bringing its schema up to date, and finding out what is in it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use crate::{
    config::Config,
    error::{OpenError, StorageError, UnopenableReason},
    store::{
        engine::{
            generation::{Engine, classify, classify_stored, panic_text, unopenable},
            meta::{self, MetaError},
            migrate::{self, SCHEMA_VERSION, SchemaError},
            rows::RowMap,
            writer::Writer,
        },
        failpoints::{Safeguard, point},
        format::{node_record::NodeRecord, shutdown_summary::Summary},
        recover::{
            dead_letters::{RepairedPart, unlisted},
            memtable::flush_found,
            recovery::{Recovered, recover},
        },
    },
    types::StoreId,
};

/// Opens the engine and finds out what is there; `served` says whether a store was open there
/// before. docs/sled.md rule 10: a damaged file may make the engine panic, when it opens or at the
/// first reads.
pub fn guarded_open(
    config: &Config,
    path: &Path,
    open: impl FnOnce() -> Result<Engine, OpenError>,
    served: bool,
    clean: Option<&Summary>,
) -> Result<(Arc<Engine>, Recovered), OpenError> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let engine = Arc::new(open()?);
        match prepare(config, &engine, path, served, clean) {
            Ok(recovered) => Ok((engine, recovered)),
            Err(error) => {
                // Guarded, as sled's drop may panic too; the first error is the one to tell.
                let _ = Engine::close_shared(engine);
                Err(error)
            }
        }
    }));
    opened.unwrap_or_else(|panic| {
        let reason = UnopenableReason::Panic(panic_text(panic.as_ref()));
        Err(unopenable(path, reason))
    })
}

fn prepare(
    config: &Config,
    engine: &Arc<Engine>,
    path: &Path,
    served: bool,
    clean: Option<&Summary>,
) -> Result<Recovered, OpenError> {
    point("open: engine open")?;
    let new_id = random_store_id()?;
    migrate::migrate(engine, served, new_id.0).map_err(|error| match error {
        SchemaError::Newer { found } => OpenError::NewerSchema {
            path: path.to_owned(),
            found,
            supported: SCHEMA_VERSION,
        },
        SchemaError::Meta(error) => meta_failed(path, error),
        SchemaError::Storage(error) => error.into(),
    })?;
    let clean = of_this_store(engine, clean);
    let failed = |error| classify(path, error, "write");
    let unwritten = |error| classify_stored(path, error);
    let mut writer = Writer::new(
        Arc::clone(engine),
        "write what an open found",
        Safeguard::GroupCommits,
    );
    if config.reset_identity {
        meta::set_store_id(&mut writer, new_id).map_err(unwritten)?;
    }
    let wal = flush_found(engine, path, clean.is_some())?;
    let mut recovered = recover(engine, clean, wal).map_err(|error| meta_failed(path, error))?;
    point("open: recovered")?;
    // Ids skipped after an unclean stop are skipped for good before any of them can be given out.
    meta::set_next_queue(&mut writer, recovered.next_queue).map_err(unwritten)?;
    // What CLEAN knew to be done with is so for good: the next open may come without one.
    for node in &recovered.rewritten {
        if let Some(record) = recovered.records.get(node) {
            writer
                .put(&engine.nodes, &NodeRecord::key(*node), record.encode(*node))
                .map_err(unwritten)?;
        }
    }
    for RepairedPart { hints, losses } in std::mem::take(&mut recovered.repaired).into_parts() {
        let part = [(&engine.hints, &hints), (&engine.losses, &losses)];
        writer.transact(&part, 0).map_err(unwritten)?;
    }
    let mut folded = RowMap::new();
    let fold = recovered.journal.fold(&engine.losses, &mut folded);
    fold.map_err(failed)?;
    let folded = [(&engine.losses, &folded)];
    writer.transact(&folded, 0).map_err(unwritten)?;
    let unlisted = unlisted(engine, recovered.records.values());
    for key in unlisted.map_err(failed)? {
        writer.remove(&engine.losses, &key, 0).map_err(unwritten)?;
    }
    for place in &recovered.stale {
        writer
            .remove(&engine.hints, &place.letter_key(), 0)
            .map_err(unwritten)?;
    }
    writer.commit()?;
    Ok(recovered)
}

/// A summary, unless it names another store: then this one was not closed cleanly.
fn of_this_store<'a>(engine: &Engine, clean: Option<&'a Summary>) -> Option<&'a Summary> {
    // A record that does not read is told of by whoever needs it.
    let store = meta::store_id(engine).ok().flatten();
    match (store, clean) {
        (Some(store), Some(clean)) if clean.is_of_another(store) => {
            tracing::error!(%store, "the CLEAN summary is of another store; opening as after an unclean stop");
            None
        }
        _ => clean,
    }
}

fn meta_failed(path: &Path, error: MetaError) -> OpenError {
    match error {
        MetaError::Damaged { record, detail } => {
            unopenable(path, UnopenableReason::Damaged { record, detail })
        }
        MetaError::Engine(error) => classify(path, error, "read"),
    }
}

fn random_store_id() -> Result<StoreId, StorageError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| StorageError::new("draw a random store id", error))?;
    Ok(StoreId(id))
}
