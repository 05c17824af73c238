//! An import into a host that runs: piece by piece, each durable before the next is sent.

use std::{
    fs::File,
    io::{BufWriter, Write},
    mem,
    path::{Path, PathBuf},
};

use hinted_handoff::{HintId, offline::ImportTally};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Ended, lines::Lines, note};
use crate::{
    client::{Client, Host, LONG_WORK},
    failure::Failure,
};

/// Bytes of lines that are sent at a time, but for one that is longer by itself.
const PIECE_BYTES: usize = 4 * 1024 * 1024;
/// Hints of a piece.
const PIECE_HINTS: usize = 10_000;

/// What the host says of a piece.
#[derive(Debug, Deserialize)]
struct Imported {
    ids: Vec<HintId>,
}

/// A hint that is sent.
struct Sent {
    tally: ImportTally,
    old: Option<HintId>,
}

pub struct HostImport {
    client: Client,
    /// Where new ids are written.
    ids: Option<(PathBuf, BufWriter<File>)>,
    piece: Vec<Value>,
    piece_bytes: usize,
    sent: Vec<Sent>,
    tally: ImportTally,
}

impl HostImport {
    pub fn new(host: &Host, ids: Option<&Path>) -> Result<HostImport, Failure> {
        let ids = ids.map(|path| {
            let file = File::create(path);
            let file = file.map_err(|source| Failure::file("write", path, source))?;
            Ok::<_, Failure>((path.to_owned(), BufWriter::new(file)))
        });
        Ok(HostImport {
            client: Client::new(host)?,
            ids: ids.transpose()?,
            piece: Vec::new(),
            piece_bytes: 0,
            sent: Vec::new(),
            tally: ImportTally::default(),
        })
    }

    pub fn run(mut self, mut lines: Lines) -> Result<Ended, Failure> {
        let ended = self.all(&mut lines);
        // What was read before the input failed is stored, as it is in a directory. Of a piece that
        // the host refused nothing is left to be sent.
        let ended = self.send().and(ended);
        if let Some((path, mut file)) = self.ids.take() {
            let flushed = file.flush();
            flushed.map_err(|source| Failure::file("write", path, source))?;
        }
        Ok((self.tally, ended))
    }

    fn all(&mut self, lines: &mut Lines) -> Result<(), Failure> {
        while let Some((record, bytes)) = lines.next()? {
            let is_full = self.piece.len() >= PIECE_HINTS || self.piece_bytes + bytes > PIECE_BYTES;
            if is_full {
                self.send()?;
            }
            let line = serde_json::to_value(&record);
            let line = line.map_err(|error| lines.wrong(error.to_string()))?;
            let old = record.id;
            let import = record.into_import().map_err(|why| lines.wrong(why))?;
            let mut tally = ImportTally::default();
            note(&mut tally, &import);
            self.sent.push(Sent { tally, old });
            self.piece.push(line);
            self.piece_bytes += bytes;
        }
        Ok(())
    }

    /// Has the host store what was read and is not sent yet.
    fn send(&mut self) -> Result<(), Failure> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let hints = mem::take(&mut self.piece);
        self.piece_bytes = 0;
        let sent = mem::take(&mut self.sent);
        let body = json!({ "hints": hints });
        let answer: Result<Imported, _> = self.client.post_and_wait("/v1/import", body, LONG_WORK);
        match answer {
            Ok(imported) => self.stored(&sent, &imported.ids),
            Err(failure) => {
                if let Failure::Refused { stored, .. } = &failure {
                    self.stored(&sent, stored)?;
                }
                Err(failure)
            }
        }
    }

    /// The first of them are stored under these ids.
    fn stored(&mut self, sent: &[Sent], ids: &[HintId]) -> Result<(), Failure> {
        for (Sent { tally, old }, new) in sent.iter().zip(ids) {
            self.tally.hints += tally.hints;
            self.tally.dead_letters += tally.dead_letters;
            self.tally.bytes += tally.bytes;
            if let (Some((path, file)), Some(old)) = (&mut self.ids, old) {
                let written = writeln!(file, "{old}\t{new}");
                written.map_err(|source| Failure::file("write", &*path, source))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, BufRead, BufReader, Read},
        os::unix::net::UnixListener,
        thread,
        time::Duration,
    };

    use super::*;
    use crate::client::Patience;

    /// A disk that fails behind what was read.
    struct Failing;

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is broken"))
        }
    }

    #[test]
    fn what_was_read_before_the_input_failed_is_stored() {
        const ID: &str = "000102030405060708090a0b0c0d0e0f/1/2";
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("hh.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let host = Host {
            socket,
            patience: Patience {
                answer_within: Duration::from_secs(10).into(),
            },
        };
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut to = connection.unwrap();
                let mut lines = BufReader::new(to.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| line.unwrap() != "") {}
                let ids = json!({ "ids": [ID] }).to_string();
                let length = ids.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                to.write_all((head + &ids).as_bytes()).unwrap();
            }
        });
        let hint = json!({
            "kind": "hint", "node": 5, "meant_for": 5, "shard": 7, "id": ID, "queue": 1,
            "sequence": 2, "format": 0, "enqueued_unix_ms": 1, "payload_bytes": 3,
            "payload_base64": "YWJj",
        });
        let input = io::Cursor::new(format!("{hint}\n")).chain(Failing);
        let lines = Lines::reading(Path::new("export"), Box::new(input));
        let (tally, ended) = HostImport::new(&host, None).unwrap().run(lines).unwrap();
        let failure = ended.unwrap_err().text();
        assert!(failure.contains("the disk is broken"), "{failure}");
        assert_eq!(tally.hints, 1);
    }
}
