//! Goal: `hh-relay import` puts each point that an old directory has where it belongs, once, says
//! what it could not read, and changes nothing in the directory.
//!
//! Method: directories of both layouts are imported by the arguments of the program, and the closed
//! store is read.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::Parser;
use hinted_handoff::offline::{ClosedStore, Importer, Selection, verify};
use hinted_handoff_influx::import::{Arguments, ImportFailure};

use crate::{
    old_queue::{FORMS, Form, OldPoint, OldSegment, body, points},
    store::{Lines, Node, pending, relay},
};

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    import: Arguments,
}

pub fn import(arguments: &[&str]) -> Result<bool, ImportFailure> {
    let program = Program::try_parse_from([&["import"], arguments].concat());
    let nodes = [(2, "http://two:8086"), (4, "http://four:8086/")];
    let nodes = nodes.map(|(id, url)| (id, url.to_owned()));
    let code = program.unwrap().import.run(None, &nodes)?;
    Ok(code == ExitCode::SUCCESS)
}

pub const SHARDS: &str = "default = { database = \"rest\" }\n[[shard]]\nid = 7\ndatabase = \
                          \"metrics\"\nretention_policy = \"autogen\"\n";

/// An old directory, a file of shards and a place for a store.
pub struct Place {
    _dir: tempfile::TempDir,
    pub old: PathBuf,
    pub store: PathBuf,
    pub shards: PathBuf,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let (old, store, shards) = (place("hh"), place("hints"), place("shards.toml"));
        fs::write(&shards, SHARDS).unwrap();
        Place {
            _dir: dir,
            old,
            store,
            shards,
        }
    }

    pub fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let text = |path: &'a Path| path.to_str().unwrap();
        let all = ["--store", text(&self.store), "--shards", text(&self.shards)];
        [&[text(&self.old)], all.as_slice(), more].concat()
    }

    pub fn import(&self, more: &[&str]) -> Result<bool, ImportFailure> {
        import(&self.arguments(more))
    }

    /// Both layouts, one node each, four records a segment. Returns what is to be imported.
    fn fill(&self) -> Lines {
        let mut wanted = Lines::new();
        for segment in [1, 2, 10] {
            for (form, shard) in FORMS.into_iter().zip([7, 8]) {
                let record = |at: usize| points(segment * 10 + at, 3);
                let bodies: Vec<_> = (0..4).map(|at| body(form, shard, &record(at))).collect();
                let mut old = OldSegment::of(&bodies);
                let acknowledged = if segment == 1 { 2 } else { 0 };
                (0..acknowledged).for_each(|_| old.advance());
                let (name, node, place) = match form {
                    Form::Lines => (format!("3/{segment}"), 2, "metrics.autogen"),
                    Form::Binary => (format!("5/8/{segment}"), 4, "rest."),
                };
                old.write(&self.old.join(name));
                for point in (acknowledged..4).flat_map(record) {
                    wanted.insert((node, place.to_owned(), point.line()), 1);
                }
            }
        }
        wanted
    }
}

const MAP: [&str; 4] = ["--map", "3=2", "--map", "5=http://four:8086"];

fn files(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => {
                let modified = fs::metadata(&path).unwrap().modified().unwrap();
                found.insert(path.clone(), (fs::read(&path).unwrap(), modified));
            }
        }
    }
    found
}

fn reports(store: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = match store.join("influx-import").exists() {
        true => files(&store.join("influx-import")).into_keys().collect(),
        false => Vec::new(),
    };
    found.retain(|path| path.file_name().unwrap() != "journal");
    found
}

#[test]
fn each_point_is_imported_once_however_often_it_is_run() {
    let place = Place::new();
    let wanted = place.fill();
    let before = files(&place.old);
    for _ in 0..3 {
        assert!(place.import(&MAP).unwrap());
        assert_eq!(pending(&place.store), wanted);
    }
    // One that delivers meanwhile changes nothing.
    let node = Node::default();
    relay(&place.store, &node, 3);
    assert!(place.import(&MAP).unwrap());
    relay(&place.store, &node, usize::MAX);
    assert!(place.import(&MAP).unwrap());
    assert_eq!(node.taken.lock().unwrap().0, wanted);
    assert_eq!(pending(&place.store), Lines::new());
    assert_eq!(files(&place.old), before);
    assert!(verify(&place.store, |_, _| {}).unwrap().is_sound());
}

#[test]
fn points_of_a_series_come_in_the_order_of_the_old_queue() {
    let place = Place::new();
    for segment in [9, 10, 11] {
        let of = |at: i64| OldPoint::new("cpu,host=a", "v=1", segment * 10 + at);
        let bodies: Vec<_> = (0..5).map(|at| body(Form::Lines, 7, &[of(at)])).collect();
        OldSegment::of(&bodies).write(&place.old.join(format!("3/{segment}")));
    }
    place.import(&["--map", "3=2"]).unwrap();
    let node = Node::default();
    let closed = ClosedStore::open(&place.store).unwrap();
    let times: Vec<u64> = closed
        .hints(&Selection::default())
        .map(|hint| {
            let text = String::from_utf8_lossy(&hint.unwrap().payload).into_owned();
            text.trim_end().rsplit_once(' ').unwrap().1.parse().unwrap()
        })
        .collect();
    let wanted: Vec<u64> = (9..12)
        .flat_map(|it| (0..5).map(move |at| it * 10 + at))
        .collect();
    assert_eq!(times, wanted);
    drop((closed, node));
}

#[test]
fn a_hint_is_as_old_as_its_file_and_so_is_a_point_that_has_no_time() {
    let place = Place::new();
    let path = place.old.join("3/1");
    let text = [&7_u64.to_be_bytes(), b"cpu v=1\ncpu v=2 5\n".as_slice()].concat();
    OldSegment::of(&[text]).write(&path);
    let modified = SystemTime::UNIX_EPOCH + Duration::new(1_400_000_000, 123_000_000);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    assert!(place.import(&["--map", "3=2"]).unwrap());
    let lines: Vec<String> = pending(&place.store).into_keys().map(|it| it.2).collect();
    assert_eq!(lines, ["cpu v=1 1400000000123000000\n", "cpu v=2 5\n"]);
    let closed = ClosedStore::open(&place.store).unwrap();
    let hint = closed.hints(&Selection::default()).next().unwrap().unwrap();
    assert_eq!(hint.enqueued_unix_ms, 1_400_000_000_123);
}

#[test]
fn nothing_is_written_before_all_is_mapped() {
    let place = Place::new();
    place.fill();
    for (arguments, told) in [
        (&["--map", "3=2"][..], "\n  node 5: 30 points"),
        (
            &["--map", "3=9"],
            "it has 2 (http://two:8086), 4 (http://four:8086/)",
        ),
        (&["--map", "3=2", "--map", "3=4"], "node 3 twice"),
    ] {
        let error = place.import(arguments).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    fs::write(&place.shards, "[[shard]]\nid = 7\ndatabase = \"metrics\"").unwrap();
    let error = place.import(&MAP).unwrap_err();
    let told = "\n  shard 7, to metrics: 10 records, 30 points\n  shard 8, to no database: 10 \
                records, 30 points";
    assert!(error.to_string().ends_with(told), "{error}");
    assert!(!place.store.exists());
    // Who leaves it out needs not say where it goes.
    assert!(place.import(&["--map", "3=2", "--skip", "5"]).unwrap());
    assert_eq!(pending(&place.store).len(), 30);
}

#[test]
fn a_dry_run_needs_no_map_and_writes_nothing() {
    let place = Place::new();
    place.fill();
    assert!(import(&[place.old.to_str().unwrap(), "--dry-run"]).unwrap());
    assert!(
        place
            .import(&["--dry-run", "--json", "--map", "3=2", "--map", "5=4"])
            .unwrap()
    );
    let error = place.import(&["--dry-run", "--map", "3=2"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(!place.store.exists());
}

#[test]
fn a_store_that_somebody_has_open_is_left_alone() {
    let place = Place::new();
    place.fill();
    let open = Importer::open(&place.store).unwrap();
    let error = place.import(&MAP).unwrap_err();
    assert!(
        error.to_string().contains("is in use: stop the relay"),
        "{error}"
    );
    assert_eq!(error.exit_code(), 4);
    drop(open);
    assert!(place.import(&MAP).unwrap());
}

#[test]
fn what_could_not_be_read_is_said_and_kept() {
    let place = Place::new();
    let good = points(1, 2);
    let bad = [
        body(Form::Lines, 7, &good).as_slice(),
        b"no point\ncpu v=3 3\n",
    ]
    .concat();
    let mut segment = OldSegment::of(std::slice::from_ref(&bad));
    let torn = segment.appended(&body(Form::Lines, 7, &points(2, 2)));
    segment.append_cut(&torn[..70]);
    segment.write(&place.old.join("3/4"));
    fs::write(place.old.join("3/5"), [1, 2, 3]).unwrap();
    for _ in 0..2 {
        assert!(!place.import(&["--map", "3=2"]).unwrap());
        let lines: Vec<String> = pending(&place.store).into_keys().map(|it| it.2).collect();
        let whole = [good[0].line(), good[1].line(), points(2, 1)[0].line()];
        let mut wanted = whole.to_vec();
        wanted.push("cpu v=3 3\n".to_owned());
        wanted.sort();
        assert_eq!(lines, wanted);
    }
    let reports = reports(&place.store);
    let texts = reports.iter().filter(|path| path.ends_with("report.jsonl"));
    assert_eq!(texts.clone().count(), 2);
    for report in texts {
        let lines = fs::read_to_string(report).unwrap();
        let lines: Vec<serde_json::Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let mut kept = Vec::new();
        for line in &lines {
            let offset = line["offset"].as_u64().unwrap() as usize;
            let bytes = line["bytes"].as_u64().unwrap() as usize;
            let file = fs::read(line["file"].as_str().unwrap()).unwrap();
            let place = report
                .parent()
                .unwrap()
                .join(line["kept"].as_str().unwrap());
            assert_eq!(fs::read(place).unwrap(), file[offset..offset + bytes]);
            kept.push((offset, bytes));
        }
        let whole = body(Form::Lines, 7, &points(2, 1)).len() + 16 + bad.len();
        let end = segment.bytes.len();
        assert_eq!(kept, [(whole, end - whole), (0, 8 + bad.len()), (0, 3)]);
        assert!(
            lines[1]["lines"][0]
                .as_str()
                .unwrap()
                .starts_with("line 3: ")
        );
    }
}

#[test]
fn what_an_old_server_added_since_is_imported_and_the_rest_is_not_again() {
    let place = Place::new();
    let path = place.old.join("3/1");
    let of = |at: usize| body(Form::Lines, 7, &points(at, 2));
    let mut segment = OldSegment::of(&[of(1), of(2)]);
    segment.write(&path);
    assert!(place.import(&["--map", "3=2"]).unwrap());
    let before = pending(&place.store);
    segment.advance();
    segment.append(&of(3));
    segment.write(&path);
    assert!(place.import(&["--map", "3=2"]).unwrap());
    let all = pending(&place.store);
    assert_eq!((before.len(), all.len()), (4, 6));
    assert!(all.values().all(|times| *times == 1));
}

#[test]
fn segments_of_one_name_of_two_servers_are_two() {
    let place = Place::new();
    let of = |at: usize| OldSegment::of(&[body(Form::Lines, 7, &points(at, 2))]);
    of(1).write(&place.old.join("3/1"));
    assert!(place.import(&["--map", "3=2"]).unwrap());
    of(2).write(&place.old.join("3/1"));
    assert!(place.import(&["--map", "3=2"]).unwrap());
    assert_eq!(pending(&place.store).len(), 4);
    // The database was wrong: the right one has not got them.
    fs::write(&place.shards, "default = { database = \"other\" }").unwrap();
    assert!(place.import(&["--map", "3=2"]).unwrap());
    assert_eq!(pending(&place.store).len(), 6);
}

#[test]
fn a_journal_of_another_store_counts_for_nothing() {
    let place = Place::new();
    let wanted = place.fill();
    assert!(place.import(&MAP).unwrap());
    let journal = fs::read(place.store.join("influx-import/journal")).unwrap();
    fs::remove_dir_all(&place.store).unwrap();
    Importer::open(&place.store).unwrap().finish().unwrap();
    fs::create_dir(place.store.join("influx-import")).unwrap();
    fs::write(place.store.join("influx-import/journal"), &journal).unwrap();
    assert!(place.import(&MAP).unwrap());
    assert_eq!(pending(&place.store), wanted);
    // Half a line is what a crash leaves, a whole one that does not read is damage.
    let path = place.store.join("influx-import/journal");
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"begin\":");
    fs::write(&path, &text).unwrap();
    assert!(place.import(&MAP).unwrap());
    assert_eq!(pending(&place.store), wanted);
    text.push(b'\n');
    fs::write(&path, &text).unwrap();
    let error = place.import(&MAP).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("journal does not read"), "{told}");
    assert_eq!(error.exit_code(), 3);
}
