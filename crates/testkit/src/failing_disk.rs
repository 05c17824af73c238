//! A disk that fails for a while and then works again: a file system on a loop device whose image
//! has no room to grow.
//!
//! The image lies in a tmpfs. While that is full, what the file system writes to blocks that it
//! never used fails, the fsync says so, and Linux keeps the pages and marks them clean: they read
//! well, and nothing writes them again. That is what a thin volume without room does, and a disk
//! that failed and came back. Blocks that are in use can still be written, the journal's too, so
//! only data fails. A power cut then shows what really is on the disk. Needs what [`PowerCut`]
//! needs, and `fstrim`.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Child,
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::{
    crash_loop::Stop,
    power_cut::{PowerCut, run},
};

/// Room for the image and what breaks the disk.
const ROOM_MEGABYTES: u64 = 16;

/// The mounted file system; unmounted when dropped, with the tmpfs behind it.
#[derive(Debug)]
pub struct FailingDisk {
    /// Dropped, and so unmounted, before the tmpfs is.
    file_system: Option<PowerCut>,
    backing: PathBuf,
    image: PathBuf,
}

impl FailingDisk {
    /// A disk of `megabytes`, which takes as much memory at most, mounted below `dir`.
    ///
    /// # Errors
    /// What is missing for it: root, a program, a loop device, memory.
    pub fn new(dir: &Path, megabytes: u64) -> io::Result<Self> {
        let backing = dir.join("backing");
        fs::create_dir(&backing)?;
        let size = format!("size={}m", megabytes + ROOM_MEGABYTES);
        let arguments = [
            "-t".as_ref(),
            "tmpfs".as_ref(),
            "-o".as_ref(),
            size.as_ref(),
            "tmpfs".as_ref(),
            backing.as_os_str(),
        ];
        run("mount", &arguments)?;
        let mut disk = FailingDisk {
            file_system: None,
            image: backing.join("disk.img"),
            backing,
        };
        disk.file_system = Some(PowerCut::new(&disk.backing, megabytes)?);
        // The journal and all else of the file system's own has room for good.
        let image = File::options().write(true).open(&disk.image)?;
        fallocate(&image, FallocateFlags::empty(), 0, megabytes << 20)?;
        disk.write_pages_one_by_one()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.file_system
            .as_ref()
            .map_or(self.backing.as_path(), PowerCut::path)
    }

    /// The loop driver takes a write of which only the first pages had room for one that succeeded:
    /// a disk that lies, which is not what this is about.
    fn write_pages_one_by_one(&self) -> io::Result<()> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut mounts = mounts.lines().map(str::split_whitespace);
        let device = mounts.find_map(|mut fields| {
            let device = fields.next()?.strip_prefix("/dev/")?;
            (Path::new(fields.next()?) == self.path()).then_some(device)
        });
        let device = device.ok_or_else(|| io::Error::other("its loop device is not listed"))?;
        let largest = format!("/sys/block/{device}/queue/max_sectors_kb");
        fs::write(largest, "4")
    }

    /// From now on blocks that were never used cannot be written.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn fail(&self) -> io::Result<()> {
        // What was used and is free again has no room either.
        run("fstrim", &[self.path().as_os_str()])?;
        let file = File::create(self.backing.join("ballast"))?;
        let mut length = 0;
        loop {
            let space = statvfs(&self.backing)?;
            let free = space.f_bavail * space.f_frsize;
            if free == 0 {
                return Ok(());
            }
            // Whatever takes some of it meanwhile does this file's work.
            match fallocate(&file, FallocateFlags::empty(), length, free) {
                Ok(()) => length += free,
                Err(rustix::io::Errno::NOSPC) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// From now on all can be written.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn work_again(&self) -> io::Result<()> {
        match fs::remove_file(self.backing.join("ballast")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Cuts the power: what is not on the disk is gone, and every file of it gives errors until
    /// [`recover`](Stop::recover).
    ///
    /// # Errors
    /// What the operating system says.
    pub fn cut_power(&self) -> io::Result<()> {
        self.file_system.as_ref().map_or(Ok(()), PowerCut::cut)
    }
}

impl Stop for FailingDisk {
    fn stop(&mut self, child: &mut Child) -> io::Result<()> {
        let cut = self.cut_power();
        child.kill()?;
        cut
    }

    fn last_words_count(&self) -> bool {
        false
    }

    /// The disk works, and every file of it must be closed.
    fn recover(&mut self) -> io::Result<()> {
        self.work_again()?;
        self.file_system
            .as_mut()
            .map_or(Ok(()), PowerCut::recover)?;
        self.write_pages_one_by_one()
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        let _ = self.work_again();
        drop(self.file_system.take());
        if let Err(error) = run("umount", &[self.backing.as_os_str()]) {
            eprintln!("{} stays mounted: {error}", self.backing.display());
        }
    }
}
