//! What a disk may do to a file.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use fastrand::Rng;

use crate::{
    common::noise,
    template::{Stored, Template},
};

#[derive(Debug, Clone, Copy)]
enum Kind {
    FlipBit { at: u64, bit: u8 },
    SetByte { at: u64, to: u8 },
    Zero { at: u64, bytes: u64 },
    Garbage { at: u64, bytes: u64, seed: u64 },
    Truncate { at: u64 },
    Append { bytes: u64, seed: u64 },
    Delete,
}

/// One act of damage to one file of a store.
#[derive(Debug, Clone)]
pub struct Damage {
    pub file: PathBuf,
    kind: Kind,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.file.display(), self.kind)
    }
}

impl Damage {
    /// Any file, any place, any kind, with weight on where the hints are.
    pub fn random(template: &Template, random: &mut Rng) -> Damage {
        let file = pick(template, random);
        let length = file.bytes.len() as u64;
        let kind = match random.u8(..100) {
            0..4 => Kind::Delete,
            4..10 => Kind::Append {
                bytes: length_of_damage(random),
                seed: random.u64(..),
            },
            // Nothing else can be done to an empty file.
            _ if length == 0 => Kind::Append {
                bytes: 1,
                seed: random.u64(..),
            },
            10..40 => Kind::FlipBit {
                at: place(file, random),
                bit: random.u8(..8),
            },
            40..55 => {
                let at = place(file, random);
                // Another value than the one that is there.
                let to = file.bytes[at as usize].wrapping_add(random.u8(1..));
                Kind::SetByte { at, to }
            }
            55..70 => {
                let at = aligned(place(file, random), random);
                let bytes = length_of_damage(random).min(length - at);
                Kind::Zero { at, bytes }
            }
            70..80 => {
                let at = aligned(place(file, random), random);
                let bytes = length_of_damage(random).min(length - at);
                let seed = random.u64(..);
                Kind::Garbage { at, bytes, seed }
            }
            _ => Kind::Truncate {
                at: aligned(place(file, random), random),
            },
        };
        Damage {
            file: file.path.clone(),
            kind,
        }
    }

    /// Damages the store in `dir`.
    pub fn apply(&self, dir: &Path) -> io::Result<()> {
        let path = dir.join(&self.file);
        if let Kind::Delete = self.kind {
            return fs::remove_file(path);
        }
        let file = File::options().read(true).write(true).open(path)?;
        let garbage = |bytes: u64, seed| noise(bytes as usize, seed);
        match self.kind {
            Kind::FlipBit { at, bit } => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                file.write_all_at(&[byte[0] ^ 1 << bit], at)
            }
            Kind::SetByte { at, to } => file.write_all_at(&[to], at),
            Kind::Zero { at, bytes } => file.write_all_at(&vec![0; bytes as usize], at),
            Kind::Garbage { at, bytes, seed } => file.write_all_at(&garbage(bytes, seed), at),
            Kind::Truncate { at } => file.set_len(at),
            Kind::Append { bytes, seed } => {
                file.write_all_at(&garbage(bytes, seed), file.metadata()?.len())
            }
            Kind::Delete => Ok(()),
        }
    }

    /// How the counts call the file: without its number or folder.
    pub fn file_name(&self) -> &str {
        let name = self.file.file_name().and_then(|name| name.to_str());
        let name = name.unwrap_or("?");
        name.split('.').next().unwrap_or(name)
    }
}

/// Two of three acts hit the log, the others any of the files.
fn pick<'a>(template: &'a Template, random: &mut Rng) -> &'a Stored {
    let files = &template.files;
    let log = files.iter().find(|file| file.path.ends_with("db"));
    match log {
        Some(log) if random.u8(..3) > 0 => log,
        _ => &files[random.usize(..files.len())],
    }
}

/// Mostly a place that holds data; sometimes any.
fn place(file: &Stored, random: &mut Rng) -> u64 {
    let length = file.bytes.len();
    if file.pages.is_empty() || random.u8(..20) == 0 {
        return random.u64(..length as u64);
    }
    let page = file.pages[random.usize(..file.pages.len())];
    random.u64(page as u64..(page + 4096).min(length) as u64)
}

/// Disks damage sectors as often as bytes.
fn aligned(at: u64, random: &mut Rng) -> u64 {
    match random.u8(..3) {
        0 => at / 512 * 512,
        1 => at / 4096 * 4096,
        _ => at,
    }
}

fn length_of_damage(random: &mut Rng) -> u64 {
    match random.u8(..4) {
        0 => random.u64(1..64),
        1 => 512,
        2 => 4096,
        _ => random.u64(1..200_000),
    }
}
