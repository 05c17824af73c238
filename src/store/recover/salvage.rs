//! Making a store of what is intact in one that was moved aside.

use std::path::Path;

use crate::{
    error::{DirectoryProblem, OpenError},
    store::{
        format::{
            file_names::{CLEAN, HOST_CLEAN},
            shutdown_summary,
        },
        home::directory::Directory,
        recover::repair,
    },
};

/// Makes a new store in `into` of what is still intact in a store that cannot be opened.
///
/// `from` is the folder that [`StoreStats::moved_aside`](crate::StoreStats::moved_aside) or
/// [`OpenError::Unopenable`] named, the one with the file `db` in it, or that of a database which
/// the host shares; it is only read. Open what is made like any store, let it deliver, and delete
/// it: it has the identity of the old one, so receivers that know what they have applied apply
/// nothing twice.
///
/// The log is read record by record, past what is damaged. If the store had been shut down cleanly,
/// what is missing is reported as lost when replay comes to it. Otherwise the end of a queue may be
/// missing without a word, and hints may come once more that were delivered before, or whose node
/// was removed.
///
/// ```no_run
/// # type Error = Box<dyn std::error::Error>;
/// # async fn salvage<W>(writer: W) -> Result<(), Error>
/// # where
/// #     W: hinted_handoff::ShardWriter<bytes::Bytes>,
/// # {
/// use hinted_handoff::{Config, HintedHandoff, salvage};
///
/// salvage("data/hints/aside-1763856000000-gen-000001", "data/salvaged")?;
/// let salvaged = HintedHandoff::<bytes::Bytes>::open(Config::new("data/salvaged"), writer).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `into` holds a store already or is no place for one; the records that say which store it was are
/// damaged; the disk.
pub fn salvage(from: impl AsRef<Path>, into: impl AsRef<Path>) -> Result<(), OpenError> {
    let (from, into) = (from.as_ref(), into.as_ref());
    let directory = Directory::lock(into)?;
    if let Some((found, _)) = directory.current()? {
        return Err(OpenError::Directory {
            path: into.to_owned(),
            problem: DirectoryProblem::Occupied { found },
        });
    }
    // Without one that reads, whatever is not known to be done with is taken.
    let summary = [CLEAN, HOST_CLEAN].iter().find_map(|name| {
        let bytes = std::fs::read(from.join(name)).ok()?;
        shutdown_summary::decode(&bytes).ok()
    });
    let summary = match summary {
        Some(summary) if repair::is_of_another(&from.join("db"), &summary)? => None,
        summary => summary,
    };
    let building = directory.start_building()?;
    repair::write(from, summary.as_ref(), &building, &|| {})?;
    let generation = directory.finish_building(summary.as_ref())?;
    directory.set_current(&generation)
}
