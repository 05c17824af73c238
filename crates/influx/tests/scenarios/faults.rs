//! A disk that is full.

use std::{path::PathBuf, process::Command};

use rustix::process::getuid;

use crate::influxd::Influxd;

/// The log of a server's writes on a file system of its own, of which it is a small one.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Gives a server a disk of so many KiB. `None` without the right to mount.
    pub fn for_server(server: &mut Influxd, kib: u64) -> Option<SmallDisk> {
        if !getuid().is_root() {
            let is_ci = std::env::var("CI").is_ok_and(|it| it == "true");
            assert!(!is_ci, "only root may mount");
            println!("SKIPPED: only root may mount");
            return None;
        }
        server.kill();
        let disk = SmallDisk {
            at: server.dir().join("wal"),
        };
        std::fs::create_dir_all(&disk.at).unwrap();
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &format!("size={kib}k"),
                "tmpfs",
                &disk.path(),
            ],
        );
        assert!(server.restart());
        Some(disk)
    }

    /// Frees space: the disk is larger from now on.
    pub fn grow(&self, kib: u64) {
        run(
            "mount",
            &["-o", &format!("remount,size={kib}k"), &self.path()],
        );
    }

    fn path(&self) -> String {
        self.at.to_str().unwrap().to_owned()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server may still have files there.
        let _ = Command::new("umount").args(["-l", &self.path()]).status();
    }
}

fn run(command: &str, arguments: &[&str]) {
    let status = Command::new(command).args(arguments).status().unwrap();
    assert!(status.success(), "{command} {arguments:?}");
}
