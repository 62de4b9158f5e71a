//! The root file system of a guest: an archive in the kernel's own format, of nothing but static programs.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context as _, Result};
use cpio::newc::{self, Builder, ModeFileType};

use super::guest::Program;
use crate::paths;

/// Folders that programs or mounts expect.
const FOLDERS: [&str; 7] = ["bin", "dev", "proc", "suite", "sys", "tmp", "run"];

/// Writes an archive with `programs` to `archive`.
pub(crate) fn write(archive: &Path, programs: &[Program]) -> Result<()> {
    paths::make(archive.parent().context("the archive has no folder")?)?;
    let out = File::create(archive).with_context(|| format!("cannot make {}", archive.display()))?;
    let mut out = BufWriter::new(out);
    fill(&mut out, programs).with_context(|| format!("cannot write {}", archive.display()))?;
    newc::trailer(&mut out).and_then(Write::flush).with_context(|| format!("cannot end {}", archive.display()))
}

fn fill(out: &mut impl Write, programs: &[Program]) -> Result<()> {
    // Inode numbers only have to differ: equal ones would be links of one file.
    let mut inode = 0;
    let mut entry = |path: &str, kind: ModeFileType, mode: u32| {
        inode += 1;
        Builder::new(path).ino(inode).mode(mode).set_mode_file_type(kind)
    };
    for folder in FOLDERS {
        entry(folder, ModeFileType::Directory, 0o755).write(&mut *out, 0).finish()?;
    }
    // The kernel opens it for the first process, before anything is mounted.
    entry("dev/console", ModeFileType::Char, 0o600).rdev_major(5).rdev_minor(1).write(&mut *out, 0).finish()?;
    for program in programs {
        let bytes = fs::read(&program.file).with_context(|| format!("cannot read {}", program.file.display()))?;
        let length = u32::try_from(bytes.len()).context("the format ends at 4 GiB")?;
        let mut data = entry(program.path, ModeFileType::Regular, 0o755).write(&mut *out, length);
        data.write_all(&bytes)?;
        data.finish()?;
    }
    Ok(())
}
