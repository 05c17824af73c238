//! Opening a store: lock, count the attempt, find the generation, open it or what takes its place;
//! or open it in the host's database.

use std::{path::PathBuf, sync::Arc};

use crate::{
    config::{Config, OnUnopenable},
    error::{ConfigError, OpenError, UnopenableReason, with_causes},
    store::{
        commit::committer::Committer,
        engine::{
            generation::{Db, Engine, unopenable},
            log_tail::LogTail,
            snapshots, unsynced,
        },
        failpoints::{Faults, Safeguard, is_off, point},
        format::shutdown_summary::Summary,
        home::{
            directory::Directory,
            host_database::{HostDatabase, as_database_problem},
            location::Home,
        },
        pipeline::{events::OnDurable, shared::Shared},
        recover::{
            assemble::assemble,
            behind_end, memtable,
            prepare::guarded_open,
            recovery::Recovered,
            repair::{self, Rebuilt},
        },
    },
};

/// After this many deaths in a row while opening, nothing is tried again by itself: under `panic =
/// "abort"` a damaged store would otherwise kill the process at every start. A kill from outside
/// counts too, since nobody can tell the two apart afterwards; so there are more than it takes to
/// be sure, lest a process that was killed twice while it started be refused.
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
    /// Written by a rebuild a moment ago, and named by `CURRENT`. Damage in it is not for another
    /// rebuild.
    Rebuilt,
}

impl Origin {
    fn is_named(self) -> bool {
        matches!(self, Origin::Named | Origin::Rebuilt)
    }
}

pub struct Opened {
    pub engine: Arc<Engine>,
    pub recovered: Recovered,
    pub generation: String,
    pub moved_aside: Option<PathBuf>,
}

/// Counts the attempt while it is made. Whatever comes of it, this process lives to tell, unless it
/// refused to try.
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

/// Opens the generation in use once more, within the life of a store. `known` is what the store
/// knows of itself, where it found its files damaged: then the generation is rebuilt from what is
/// intact in them.
pub fn reopen(
    config: &Config,
    directory: &Directory,
    generation: &str,
    faults: &Arc<Faults>,
    known: Option<&Summary>,
    alive: &dyn Fn(),
) -> Result<Opened, OpenError> {
    // After a switch that failed it is in doubt which one it names.
    directory.set_current(generation)?;
    counted(directory, |_died| {
        let (name, faults) = (generation.to_owned(), Arc::clone(faults));
        let Some(known) = known else {
            unsynced::repair(&directory.generation(generation), false, alive)?;
            return open_generation(config, directory, name, Origin::Named, faults);
        };
        // A crash while it is rebuilt must not forget what was known.
        directory.write_clean_summary(generation, known)?;
        let rebuilt = repair::replace(directory, generation, Some(known), alive)?;
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
        directory: Arc::new(directory),
        generation,
    };
    let opened = assemble(config, engine, recovered, home, on_durable);
    *opened.0.moved_aside.lock() = moved_aside;
    Ok(opened)
}

/// Opens the store in the host's database, whose directory `config.dir` names.
pub fn open_in(
    db: &Db,
    config: &Config,
    on_durable: OnDurable,
) -> Result<(Arc<Shared>, Committer), OpenError> {
    if let Some(bytes) = config.max_disk_bytes {
        return Err(OpenError::Config(ConfigError {
            field: "max_disk_bytes",
            value: bytes.to_string(),
            rule: "left out for a store in a shared database, whose log is the host's and is never \
                   compacted",
        }));
    }
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

/// Opens the current generation; one that cannot be opened is moved aside whole if the caller chose
/// that.
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
        directory.end_compaction()?;
        directory.tidy(&generation)?;
    }
    let tried = if died > DEATHS_TOLERATED {
        let reason = UnopenableReason::DiedWhileOpening { attempts: died };
        Err(unopenable(&directory.generation(&generation), reason))
    } else {
        let was_clean = directory.clean_summary(&generation)?.is_some();
        unsynced::repair(&directory.generation(&generation), was_clean, &|| {})?;
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
    // A generation that CURRENT never named died in its first open: nothing in it was ever
    // answered.
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
        error = %with_causes(&reason), moved_to = %aside.display(),
        "the store cannot be opened; it was moved aside whole and an empty one is started"
    );
    opened.moved_aside = Some(aside);
    Ok(opened)
}

/// Opens a generation, and once more without sled's snapshot if that is in the way.
fn open_generation(
    config: &Config,
    directory: &Directory,
    generation: String,
    origin: Origin,
    faults: Arc<Faults>,
) -> Result<Opened, OpenError> {
    let path = directory.generation(&generation);
    let (mut opened, was_ahead) = snapshots::or_without(&path, || {
        let (generation, faults) = (generation.clone(), Arc::clone(&faults));
        open_found(config, directory, generation, origin, faults)
    })?;
    if was_ahead {
        let damage = memtable::damage_of(snapshots::AHEAD.to_owned());
        opened.recovered.registry.note_damage(damage);
    }
    Ok(opened)
}

fn open_found(
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
    let tail = match origin {
        Origin::Named if !is_off(Safeguard::LogScan) => LogTail::find(&log).ok(),
        _ => None,
    };
    let tail = tail.filter(|tail| !tail.is_whole);
    let clean = match (&tail, clean) {
        (Some(_), Some(clean)) if repair::is_of_another(&log, &clean)? => None,
        (_, clean) => clean,
    };
    if let (Some(_), None) = (&tail, &clean)
        && let Some(rebuilt) = rebuild_cut_off(directory, &generation)?
    {
        return open_cut_off(config, directory, rebuilt, faults);
    }
    let open_engine = || Engine::open(&path, Arc::clone(&faults));
    let opened = match (tail, &clean) {
        // sled would take damage at the end of the log for its end, and write over what stands
        // behind it.
        (Some(_), Some(_)) => Err(unopenable(
            &path,
            UnopenableReason::Damaged {
                record: "log",
                detail: "its end does not read".to_owned(),
            },
        )),
        // After an unclean stop that is nothing special. But if it does not open, it is to be what
        // it was.
        (Some(tail), None) => tail.while_opening(&log, || {
            guarded_open(config, &path, open_engine, origin.is_named(), None)
        }),
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
            return match try_rebuild(directory, &generation, Some(clean))? {
                Some(rebuilt) => open_rebuilt(config, directory, rebuilt, faults),
                None => Err(error),
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

/// Rebuilds a generation that was not closed if damage ended its log: sled would go on without what
/// was durable behind that, and write over it.
fn rebuild_cut_off(directory: &Directory, generation: &str) -> Result<Option<Rebuilt>, OpenError> {
    let log = directory.generation(generation).join("db");
    // A log that does not read is told of by whoever needs it.
    let Ok(Some(at_bytes)) = behind_end::damaged_at(&log) else {
        return Ok(None);
    };
    tracing::error!(
        generation,
        at_bytes,
        "the log of a store that was not closed is damaged, and what stands behind that was durable"
    );
    try_rebuild(directory, generation, None)
}

/// Rebuilds a generation; `None` if too little is intact. `clean` is what `CLEAN` knows.
fn try_rebuild(
    directory: &Directory,
    generation: &str,
    clean: Option<&Summary>,
) -> Result<Option<Rebuilt>, OpenError> {
    match repair::replace(directory, generation, clean, &|| {}) {
        Ok(rebuilt) => Ok(Some(rebuilt)),
        Err(OpenError::Unopenable { reason, .. }) => {
            tracing::error!(
                error = %with_causes(&reason),
                "too little is intact to rebuild the store"
            );
            Ok(None)
        }
        Err(in_the_way) => Err(in_the_way),
    }
}

/// Opens what was made of one whose end was damaged.
fn open_cut_off(
    config: &Config,
    directory: &Directory,
    rebuilt: Rebuilt,
    faults: Arc<Faults>,
) -> Result<Opened, OpenError> {
    let mut opened = open_rebuilt(config, directory, rebuilt, faults)?;
    let what = "the log of the store, which was not closed, was damaged: it was rebuilt from what \
                is intact, and what came last may be missing";
    let damage = memtable::damage_of(what.to_owned());
    opened.recovered.registry.note_damage(damage);
    Ok(opened)
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
