//! Makes the store of schema 1: `HH_OUT=<folder> cargo test --features testkit --test make_schema1
//! -- --ignored --nocapture`.
mod common;

use std::{fmt::Write as _, fs, io::Write as _, path::Path, process::Command};

use common::*;
use hinted_handoff::{NodeId, internals::{Leave, Peek, Reader}};

fn burst(store: &hinted_handoff::internals::Store, node: u64, numbers: std::ops::RangeInclusive<u64>) {
    let hints = numbers.map(|it| hint(node * 10 + it % 3, format!("node={node} hint={it} {}", "x".repeat(it as usize * 7))));
    for result in try_append(store, node, hints.collect()) {
        result.unwrap();
    }
}

fn ack(store: &hinted_handoff::internals::Store, node: u64, index: usize) {
    let mark = hints(store, node)[index].mark;
    store.ack(NodeId(node), mark, Leave::Delivered).unwrap();
    sync(store);
}

fn life(dir: &Path, which: &str) {
    let store = open(dir);
    match which {
        "first" => {
            for numbers in [1..=4, 5..=8, 9..=12] {
                burst(&store, 1, numbers);
            }
            for number in 1..=3 {
                burst(&store, 2, number..=number);
            }
            burst(&store, 3, 1..=2);
            burst(&store, 4, 1..=1);
            ack(&store, 1, 5);
            let (tell, told) = std::sync::mpsc::channel();
            store.remove_node(NodeId(3), move |result| tell.send(result).unwrap());
            told.recv().unwrap().unwrap();
            ack(&store, 4, 0);
            for _ in 0..5 { sync(&store); append(&store, 2, "node=2 again"); }
            sync(&store);
            std::process::abort();
        }
        _ => {
            burst(&store, 1, 13..=14);
            burst(&store, 2, 9..=9);
            append(&store, 2, noise(17_000, 1));
            ack(&store, 2, 1);
            for _ in 0..5 { sync(&store); append(&store, 5, "node=5"); }
            sync(&store);
            if which == "killed" {
                std::process::abort();
            }
            store.close().unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let into = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &into),
            false => { fs::copy(entry.path(), into).unwrap(); }
        }
    }
}

fn pack(root: &Path, dir: &Path, out: &mut Vec<u8>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|it| it.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            pack(root, &path, out);
            continue;
        }
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let content = fs::read(&path).unwrap();
        println!("{name} {}", content.len());
        out.write_all(&(name.len() as u32).to_be_bytes()).unwrap();
        out.write_all(name.as_bytes()).unwrap();
        out.write_all(&(content.len() as u32).to_be_bytes()).unwrap();
        out.write_all(&content).unwrap();
    }
}

#[test]
#[ignore]
fn make() {
    if let (Ok(dir), Ok(which)) = (std::env::var("HH_LIFE_DIR"), std::env::var("HH_LIFE")) {
        return life(Path::new(&dir), &which);
    }
    let out = std::env::var("HH_OUT").unwrap();
    for variant in ["clean", "killed"] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("store");
        for life in ["first", variant] {
            let _ = Command::new(std::env::current_exe().unwrap())
                .args(["make", "--ignored", "--exact"])
                .env("HH_LIFE_DIR", &dir).env("HH_LIFE", life)
                .status().unwrap();
        }
        let mut packed = Vec::new();
        pack(&dir, &dir, &mut packed);
        let packed = zstd::bulk::compress(&packed, 19).unwrap();
        println!("{variant}: {} bytes", packed.len());
        fs::write(Path::new(&out).join(format!("schema1_{variant}.store.zst")), packed).unwrap();

        // What the code of then reads in it.
        let other = temp.path().join("copy");
        copy(&dir, &other);
        let store = open(&other);
        let mut text = format!("store {}\n", store.id());
        assert_eq!(store.stats().damage, []);
        for (node, queues) in store.nodes() {
            let pending = queues.pending();
            writeln!(text, "node {} pending {} {}", node.0, pending.hints, pending.bytes).unwrap();
            let mut reader = Reader::default();
            // A batch ends with its queue.
            loop {
                match store.peek(&mut reader, node, EVERYTHING).unwrap() {
                    Peek::Empty => break,
                    Peek::Damaged(queue) => panic!("{queue:?}"),
                    Peek::Hints(hints) => {
                        for it in &hints {
                            let payload = &it.hint.payload;
                            writeln!(text, "hint {} {} {} {} {} {} {:08x}",
                                node.0, it.mark.queue.queue.0, it.mark.sequence.0, it.hint.shard.0,
                                it.hint.enqueued_unix_ms, payload.len(), crc32c::crc32c(payload)).unwrap();
                        }
                        store.ack(node, hints.last().unwrap().mark, Leave::Delivered).unwrap();
                    }
                }
            }
        }
        fs::write(Path::new(&out).join(format!("schema1_{variant}.txt")), text).unwrap();
    }
}
