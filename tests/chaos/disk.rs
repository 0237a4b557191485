//! A small filesystem that can be filled, and the preloaded library that makes fsync slow.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// Room for a node's data, and little more.
const SIZE: &str = "size=192m";

/// A mounted filesystem in memory; unmounted when dropped.
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one.
    ///
    /// # Errors
    /// Where that is not allowed.
    pub fn mount(dir: &Path) -> anyhow::Result<SmallDisk> {
        fs::create_dir_all(dir)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(dir);
        let output = mount.output().context("mount")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mount: {}", said.trim());
        Ok(SmallDisk { dir: dir.to_owned() })
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("filler")
    }

    /// Takes all the space that is left.
    ///
    /// # Errors
    /// Those of the system but for the one that is meant.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.filler())?;
        let mut chunk = vec![0; 1 << 20];
        while !chunk.is_empty() {
            match filler.write(&chunk) {
                Ok(_) => {}
                // Then with smaller pieces, to the last one.
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    chunk.truncate(chunk.len() / 16);
                }
                Err(error) => bail!("filling the disk: {error}"),
            }
        }
        Ok(())
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// Those of the system.
    pub fn free(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(&self.dir).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.dir.display());
        }
    }
}

/// Builds the library that makes fsync slow, or hang.
pub(crate) fn build_slow_fsync(dir: &Path) -> anyhow::Result<PathBuf> {
    build(dir, "slow_fsync", include_str!("slow_fsync.c"))
}

/// Builds the library that makes a disk small.
pub(crate) fn build_small_disk(dir: &Path) -> anyhow::Result<PathBuf> {
    build(dir, "small_disk", include_str!("small_disk.c"))
}

fn build(dir: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let (source, library) = (dir.join(format!("{name}.c")), dir.join(format!("{name}.so")));
    fs::write(&source, text)?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
    let output = cc.output().context("cc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cc: {}", said.trim());
    Ok(library)
}
