//! The old directory: which segments there are.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::error::ImportFailure;

/// A server's segment is 10 MiB and a footer. What is longer than this is none, and is not read.
pub const SEGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A segment of a queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentFile {
    /// The node, as the old servers counted.
    pub node: u64,
    /// The shard, where queues are of one.
    pub shard: Option<u64>,
    /// Its number.
    pub segment: u64,
    /// Where it is.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// When it was changed the last time.
    pub modified: SystemTime,
}

impl SegmentFile {
    /// All of it; `None` if it is longer than a segment can be.
    pub fn read(&self) -> Result<Option<Vec<u8>>, ImportFailure> {
        if self.bytes > SEGMENT_BYTES_MAX {
            return Ok(None);
        }
        let bytes = fs::read(&self.path).map_err(ImportFailure::file("read", &self.path))?;
        Ok((bytes.len() as u64 <= SEGMENT_BYTES_MAX).then_some(bytes))
    }

    /// Its place below the old directory, in one word.
    pub fn name(&self) -> String {
        match self.shard {
            Some(shard) => format!("{}-{shard}-{}", self.node, self.segment),
            None => format!("{}-{}", self.node, self.segment),
        }
    }
}

/// What is in an old directory.
#[derive(Debug, Default)]
pub struct Source {
    /// By node, shard and number.
    pub segments: Vec<SegmentFile>,
    /// What is no part of a queue.
    pub ignored: Vec<PathBuf>,
}

impl Source {
    /// Lists it: `<node>/<segment>` and `<node>/<shard>/<segment>`, names in decimal digits.
    pub fn list(dir: &Path) -> Result<Source, ImportFailure> {
        let mut source = Source::default();
        for (node, at) in source.numbered(dir, Kind::Directory)? {
            let shards = source.in_node(node, &at)?;
            for (shard, at) in shards {
                for (segment, at) in source.numbered(&at, Kind::File)? {
                    source.add(node, Some(shard), segment, at)?;
                }
            }
        }
        source.segments.sort();
        source.ignored.sort();
        Ok(source)
    }

    /// Takes a node's segments, and returns its folders of shards.
    fn in_node(&mut self, node: u64, dir: &Path) -> Result<Vec<(u64, PathBuf)>, ImportFailure> {
        let mut shards = Vec::new();
        for (number, at) in self.numbered(dir, Kind::Any)? {
            match at.is_dir() {
                true => shards.push((number, at)),
                false => self.add(node, None, number, at)?,
            }
        }
        Ok(shards)
    }

    fn add(
        &mut self,
        node: u64,
        shard: Option<u64>,
        segment: u64,
        path: PathBuf,
    ) -> Result<(), ImportFailure> {
        let about = fs::metadata(&path).map_err(ImportFailure::file("look at", &path))?;
        let modified = about.modified();
        self.segments.push(SegmentFile {
            node,
            shard,
            segment,
            bytes: about.len(),
            modified: modified.map_err(ImportFailure::file("look at", &path))?,
            path,
        });
        Ok(())
    }

    /// The entries of a directory whose names are numbers.
    fn numbered(&mut self, dir: &Path, wanted: Kind) -> Result<Vec<(u64, PathBuf)>, ImportFailure> {
        let mut numbered = Vec::new();
        for entry in fs::read_dir(dir).map_err(ImportFailure::file("list", dir))? {
            let entry = entry.map_err(ImportFailure::file("list", dir))?;
            let path = entry.path();
            let name = entry.file_name();
            match name.to_str().and_then(number) {
                Some(number) if wanted.is(&path) => numbered.push((number, path)),
                _ => self.ignored.push(path),
            }
        }
        Ok(numbered)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Directory,
    File,
    Any,
}

impl Kind {
    fn is(self, path: &Path) -> bool {
        match self {
            Kind::Directory => path.is_dir(),
            Kind::File => path.is_file(),
            Kind::Any => path.is_dir() || path.is_file(),
        }
    }
}

/// As the servers read names: digits alone.
fn number(name: &str) -> Option<u64> {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    name.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_come_in_the_order_of_their_numbers_and_other_names_are_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"12345678").unwrap();
        };
        for name in [
            "3/10", "3/9", "3/1", "4/7/2", "4/7/11", "4/6/5", "3/+2", "3/2.bak", "meta", "5x/1",
            "4/7/8/1",
        ] {
            put(name);
        }
        let source = Source::list(dir.path()).unwrap();
        let names: Vec<String> = source.segments.iter().map(SegmentFile::name).collect();
        assert_eq!(names, ["3-1", "3-9", "3-10", "4-6-5", "4-7-2", "4-7-11"]);
        let ignored: Vec<_> = source
            .ignored
            .iter()
            .map(|it| it.strip_prefix(dir.path()).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(ignored, ["3/+2", "3/2.bak", "4/7/8", "5x", "meta"]);
    }
}
