//! Opening a store: lock, count the attempt, find the generation, open it guarded, migrate, recover, take over.

use std::{
    collections::{BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    clean::Summary,
    committer::{Committer, Tail},
    directory::Directory,
    encoder::Encoder,
    engine::{Engine, classify, panic_text, unopenable},
    exposed::Exposed,
    faults::{Faults, Safeguard, is_off, point},
    heal::Healing,
    home::Home,
    host_database::{HostDatabase, as_database_problem},
    meta::{self, MetaError},
    node_record::NodeRecord,
    rebuild::{self, Rebuilt},
    recovery::{Recovered, recover},
    schema::{self, SCHEMA_VERSION, SchemaError},
    shared::{OnDurable, Shared, Space},
    trim::Trimmer,
};
use crate::{
    config::{Config, OnUnopenable},
    error::{OpenError, StorageError, UnopenableReason},
    types::{Sequence, StoreId},
};

/// After this many deaths in a row while opening, nothing is tried again by itself: under `panic = "abort"` a damaged
/// store would otherwise kill the process at every start. A kill from outside counts too, since nobody can tell the two apart
/// afterwards; so there are more than it takes to be sure, lest a process that was killed twice while it started be refused.
const DEATHS_TOLERATED: u32 = 4;

/// Where a generation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Made by this open.
    New,
    /// Found without a `CURRENT`: its first open died before it could serve.
    Unnamed,
    /// Found, and named by `CURRENT`.
    Named,
    /// Written by a rebuild a moment ago, and named by `CURRENT`. Damage in it is not for another rebuild.
    Rebuilt,
}

impl Origin {
    fn is_named(self) -> bool {
        matches!(self, Origin::Named | Origin::Rebuilt)
    }
}

pub struct Opened {
    pub engine: Engine,
    pub recovered: Recovered,
    pub generation: String,
    pub moved_aside: Option<PathBuf>,
}

/// Counts the attempt while it is made. Whatever comes of it, this process lives to tell, unless it refused to try.
fn counted(
    directory: &Directory,
    attempt: impl FnOnce(u32) -> Result<Opened, OpenError>,
) -> Result<Opened, OpenError> {
    let died = directory.begin_opening(DEATHS_TOLERATED)?;
    let opened = point("open: attempt counted")
        .map_err(OpenError::from)
        .and_then(|()| attempt(died));
    let refused = matches!(
        &opened,
        Err(OpenError::Unopenable {
            reason: UnopenableReason::DiedWhileOpening { .. },
            ..
        })
    );
    if !refused {
        directory.end_opening()?;
    }
    opened
}

/// Opens the generation in use once more, within the life of a store. `known` is what the store knows of itself, where it
/// found its files damaged: then the generation is rebuilt from what is intact in them.
pub fn reopen(
    config: &Config,
    directory: &Directory,
    generation: &str,
    faults: &Arc<Faults>,
    known: Option<&Summary>,
    alive: &dyn Fn(),
) -> Result<Opened, OpenError> {
    counted(directory, |_died| {
        let (name, faults) = (generation.to_owned(), Arc::clone(faults));
        let Some(known) = known else {
            return open_generation(config, directory, name, Origin::Named, faults);
        };
        // A crash while it is rebuilt must not forget what was known.
        directory.write_clean_summary(generation, known)?;
        let rebuilt = rebuild::replace(directory, generation, known, alive)?;
        open_rebuilt(config, directory, rebuilt, faults)
    })
}

/// Opens the store in `config.dir` and returns what its threads need.
pub fn open(config: &Config, on_durable: OnDurable) -> Result<(Arc<Shared>, Committer), OpenError> {
    let directory = Directory::lock(&config.dir)?;
    point("open: locked")?;
    let Opened {
        engine,
        recovered,
        generation,
        moved_aside,
    } = counted(&directory, |died| {
        open_or_replace(config, &directory, directory.current()?, died)
    })?;
    let home = Home::Owned {
        directory,
        generation,
    };
    let opened = assemble(config, engine, recovered, home, on_durable);
    *opened.0.moved_aside.lock() = moved_aside;
    Ok(opened)
}

/// Opens the store in the host's database, whose directory `config.dir` names.
pub fn open_in(
    db: &sled::Db,
    config: &Config,
    on_durable: OnDurable,
) -> Result<(Arc<Shared>, Committer), OpenError> {
    let database = HostDatabase::lock(db, &config.dir)?;
    let path = database.path().to_owned();
    let (served, clean) = (database.served()?, database.clean_summary()?);
    let open_engine = || Engine::of(db.clone(), &path, Arc::default());
    let opened = guarded_open(config, &path, open_engine, served, clean.as_ref());
    let (engine, recovered) = opened.map_err(|error| as_database_problem(&path, error))?;
    database.begin_serving(recovered.store)?;
    let home = Home::Shared(database);
    Ok(assemble(config, engine, recovered, home, on_durable))
}

/// What the threads of a store need, given what was opened.
fn assemble(
    config: &Config,
    engine: Engine,
    recovered: Recovered,
    home: Home,
    on_durable: OnDurable,
) -> (Arc<Shared>, Committer) {
    tracing::info!(
        database = %home.database().display(), store = %recovered.store,
        nodes = recovered.registry.nodes.len(), "store opened"
    );
    let engine = Arc::new(engine);
    let shared = Arc::new(Shared::new(
        recovered.store,
        Arc::clone(&engine),
        recovered.registry,
        on_durable,
        matches!(home, Home::Owned { .. }),
        Space {
            dir: config.dir.clone(),
            reserve_bytes: config.free_space_reserve_bytes,
        },
    ));
    let (tails, trimmer, dirty) = take_over(&shared, &recovered.live, &recovered.retired);
    let committer = Committer {
        shared: Arc::clone(&shared),
        engine: Some(engine),
        config: Config {
            // Once is enough: a reopen goes on with the identity it has.
            reset_identity: false,
            ..config.clone()
        },
        home,
        encoder: Encoder::new(),
        records: recovered.records,
        tails,
        next_queue: recovered.next_queue,
        trimmer,
        dirty,
        handed_bytes: 0,
        healing: Healing::default(),
        searched: BTreeSet::new(),
    };
    (shared, committer)
}

pub type TakenOver = (
    HashMap<crate::types::NodeId, Tail>,
    Trimmer,
    BTreeSet<super::inbox::Dirty>,
);

/// Where new hints go, and what an earlier stop left to be trimmed or retired.
pub fn take_over(
    shared: &Shared,
    live: &[super::inbox::Dirty],
    retired: &[super::inbox::Dirty],
) -> TakenOver {
    let mut trimmer = Trimmer::default();
    for (node, queue) in retired {
        trimmer.whole(*node, *queue);
    }
    let registry = shared.registry.lock();
    let mut dirty = BTreeSet::new();
    for (node, at) in live {
        let Some(queue) = registry.queue(*node, *at) else {
            continue;
        };
        if queue.sealed && queue.is_drained() {
            // Writing its cursor retires it.
            dirty.insert((*node, *at));
        } else {
            trimmer.below(*at, queue.cursor.next);
        }
    }
    let last = registry.nodes.iter().filter_map(|(node, queues)| {
        let queue = queues.queues.back().filter(|queue| !queue.sealed)?;
        let tail = Tail {
            queue: queue.at,
            next: Sequence(queue.watermark.0 + 1),
            bytes: queue.bytes,
        };
        Some((*node, tail))
    });
    (last.collect(), trimmer, dirty)
}

/// Opens the current generation; one that cannot be opened is moved aside whole if the caller chose that.
fn open_or_replace(
    config: &Config,
    directory: &Directory,
    current: Option<(String, bool)>,
    died: u32,
) -> Result<Opened, OpenError> {
    let Some((generation, is_named)) = current else {
        let first = directory.unused_generation()?;
        return open_generation(config, directory, first, Origin::New, Arc::default());
    };
    if is_named {
        directory.tidy(&generation)?;
    }
    let tried = if died > DEATHS_TOLERATED {
        let reason = UnopenableReason::DiedWhileOpening { attempts: died };
        Err(unopenable(&directory.generation(&generation), reason))
    } else {
        let origin = if is_named {
            Origin::Named
        } else {
            Origin::Unnamed
        };
        open_generation(
            config,
            directory,
            generation.clone(),
            origin,
            Arc::default(),
        )
    };
    let reason = match tried {
        Err(OpenError::Unopenable { reason, .. }) => reason,
        other => return other,
    };
    // A generation that CURRENT never named died in its first open: nothing in it was ever answered.
    if is_named && config.on_unopenable == OnUnopenable::Fail {
        return Err(unopenable(&directory.generation(&generation), reason));
    }
    let next = directory.unused_generation()?;
    let move_aside = || directory.move_aside(&generation);
    // A crash in between must leave one generation in use: the one that CURRENT names, or none.
    let moved_first = (!is_named).then(move_aside).transpose()?;
    let mut opened = open_generation(config, directory, next, Origin::New, Arc::default())?;
    let aside = moved_first.map_or_else(move_aside, Ok)?;
    tracing::error!(
        %reason, moved_to = %aside.display(),
        "the store cannot be opened; it was moved aside whole and an empty one is started"
    );
    opened.moved_aside = Some(aside);
    Ok(opened)
}

fn open_generation(
    config: &Config,
    directory: &Directory,
    generation: String,
    origin: Origin,
    faults: Arc<Faults>,
) -> Result<Opened, OpenError> {
    let path = directory.generation(&generation);
    let clean = match origin {
        Origin::New => Some(Summary::default()),
        _ => directory.clean_summary(&generation)?,
    };
    let log = path.join("db");
    let exposed = match origin {
        Origin::Named if !is_off(Safeguard::Carving) => Exposed::find(&log).ok(),
        _ => None,
    };
    let exposed = exposed.filter(|exposed| !exposed.is_whole);
    let open_engine = || Engine::open(&path, Arc::clone(&faults));
    let opened = match (exposed, &clean) {
        // sled would take damage at the end of the log for its end, and write over what stands behind it.
        (Some(_), Some(_)) => Err(unopenable(
            &path,
            UnopenableReason::Damaged {
                record: "log",
                detail: "its end does not read".to_owned(),
            },
        )),
        // After an unclean stop that is nothing special. But if it does not open, it is to be what it was.
        (Some(exposed), None) => {
            let kept = exposed.keep(&log);
            let opened = guarded_open(config, &path, open_engine, origin.is_named(), None);
            if let (Err(OpenError::Unopenable { .. }), Ok(kept)) = (&opened, kept) {
                kept.put_back(&log).map_err(|source| OpenError::Io {
                    action: "put back what the engine changed of",
                    path: log,
                    source,
                })?;
            }
            opened
        }
        (None, clean) => guarded_open(
            config,
            &path,
            open_engine,
            origin.is_named(),
            clean.as_ref(),
        ),
    };
    let (engine, recovered) = match (opened, &clean) {
        // What CLEAN knows tells what is missing, so all that is intact can be used.
        (Err(error @ OpenError::Unopenable { .. }), Some(clean)) if origin == Origin::Named => {
            return match rebuild::replace(directory, &generation, clean, &|| {}) {
                Ok(rebuilt) => open_rebuilt(config, directory, rebuilt, faults),
                Err(OpenError::Unopenable { reason, .. }) => {
                    tracing::error!(%reason, "too little is intact to rebuild the store");
                    Err(error)
                }
                Err(in_the_way) => Err(in_the_way),
            };
        }
        (opened, _) => opened?,
    };
    point("open: prepared")?;
    if !origin.is_named() {
        directory.set_current(&generation)?;
    }
    point("open: named")?;
    directory.remove_clean_summary(&generation)?;
    point("open: clean summary removed")?;
    Ok(Opened {
        engine,
        recovered,
        generation,
        moved_aside: None,
    })
}

/// Opens what a rebuild made.
fn open_rebuilt(
    config: &Config,
    directory: &Directory,
    rebuilt: Rebuilt,
    faults: Arc<Faults>,
) -> Result<Opened, OpenError> {
    let mut opened = open_generation(
        config,
        directory,
        rebuilt.generation,
        Origin::Rebuilt,
        faults,
    )?;
    opened.moved_aside.get_or_insert(rebuilt.moved_aside);
    Ok(opened)
}

/// Opens the engine and finds out what is there; `served` says whether a store was open there before. SLED.md rule 10: a damaged file may make the engine panic, when it opens or at
/// the first reads.
fn guarded_open(
    config: &Config,
    path: &Path,
    open: impl FnOnce() -> Result<Engine, OpenError>,
    served: bool,
    clean: Option<&Summary>,
) -> Result<(Engine, Recovered), OpenError> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let engine = open()?;
        match prepare(config, &engine, path, served, clean) {
            Ok(recovered) => Ok((engine, recovered)),
            Err(error) => {
                // Guarded, as sled's drop may panic too; the first error is the one to tell.
                let _ = engine.close();
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
    engine: &Engine,
    path: &Path,
    served: bool,
    clean: Option<&Summary>,
) -> Result<Recovered, OpenError> {
    point("open: engine open")?;
    let new_id = random_store_id()?;
    schema::migrate(engine, served, new_id.0).map_err(|error| match error {
        SchemaError::Newer { found } => OpenError::NewerSchema {
            path: path.to_owned(),
            found,
            supported: SCHEMA_VERSION,
        },
        SchemaError::Meta(error) => meta_failed(path, error),
        SchemaError::Storage(error) => error.into(),
    })?;
    if config.reset_identity {
        meta::set_store_id(engine, new_id).map_err(|error| classify(path, error, "write"))?;
    }
    let recovered = recover(engine, clean).map_err(|error| meta_failed(path, error))?;
    point("open: recovered")?;
    // Ids skipped after an unclean stop are skipped for good before any of them can be given out.
    meta::set_next_queue(engine, recovered.next_queue)
        .map_err(|error| classify(path, error, "write"))?;
    // What CLEAN knew to be done with is so for good: the next open may come without one.
    for node in &recovered.rewritten {
        if let Some(record) = recovered.records.get(node) {
            let insert = engine
                .nodes
                .insert(NodeRecord::key(*node), record.encode(*node));
            insert.map_err(|error| classify(path, error, "write"))?;
        }
    }
    engine.commit()?;
    Ok(recovered)
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
