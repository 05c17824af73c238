//! A power cut: a file system in an image on a loop device, shut down without flushing its log.
//!
//! The shutdown drops everything that was not fsynced, as a power cut does. Needs root, `mkfs.ext4`
//! or `mkfs.xfs`, `mount` and `xfs_io` (from xfsprogs; its shutdown works on ext4 too).

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use super::crash_loop::Stop;

/// A mounted image; unmounted when dropped.
#[derive(Debug)]
pub struct PowerCut {
    image: PathBuf,
    mounted: PathBuf,
}

pub(super) fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!(
        "{program} failed with {}: {said}",
        output.status
    )))
}

impl PowerCut {
    /// Makes an image of `megabytes` in `dir`, with ext4 in it, and mounts it at `dir/mnt`. The
    /// environment variable `HH_FILE_SYSTEM` names another file system: `xfs`, for which it takes
    /// 300 megabytes at least.
    ///
    /// # Errors
    /// What is missing for it: root, a program, a loop device.
    pub fn new(dir: &Path, megabytes: u64) -> io::Result<Self> {
        let (image, mounted) = (dir.join("disk.img"), dir.join("mnt"));
        fs::File::create(&image)?.set_len(megabytes << 20)?;
        let (mkfs, arguments) = match std::env::var("HH_FILE_SYSTEM").as_deref() {
            Ok("xfs") => ("mkfs.xfs", ["-q", "-f", "-bsize=4096"]),
            _ => ("mkfs.ext4", ["-q", "-F", "-b4096"]),
        };
        let mut arguments: Vec<_> = arguments.map(AsRef::as_ref).into();
        arguments.push(image.as_ref());
        run(mkfs, &arguments)?;
        run("xfs_io", &["-V".as_ref()])?;
        fs::create_dir(&mounted)?;
        let disk = PowerCut { image, mounted };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    fn mount(&self) -> io::Result<()> {
        let arguments = [
            "-o".as_ref(),
            "loop".as_ref(),
            self.image.as_os_str(),
            self.mounted.as_os_str(),
        ];
        run("mount", &arguments)
    }

    /// Shuts the file system down; what was not fsynced is gone.
    pub(super) fn cut(&self) -> io::Result<()> {
        let shutdown = [
            "-x".as_ref(),
            "-c".as_ref(),
            "shutdown".as_ref(),
            self.mounted.as_os_str(),
        ];
        run("xfs_io", &shutdown)
    }

    fn unmount(&self) -> io::Result<()> {
        run("umount", &[self.mounted.as_os_str()])
    }
}

impl Stop for PowerCut {
    fn stop(&mut self, child: &mut Child) -> io::Result<()> {
        let cut = self.cut();
        // The power is off: the process sees nothing but errors from here on.
        child.kill()?;
        cut
    }

    fn last_words_count(&self) -> bool {
        false
    }

    fn recover(&mut self) -> io::Result<()> {
        self.unmount()?;
        self.mount()
    }
}

impl Drop for PowerCut {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("{} stays mounted: {error}", self.mounted.display());
        }
    }
}
