//! The root file system of a guest: an archive in the kernel's own format.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use cpio::newc::{self, Builder, ModeFileType};

use crate::paths;

/// Folders that programs or mounts expect.
const FOLDERS: [&str; 8] = ["bin", "dev", "proc", "root", "suite", "sys", "tmp", "run"];

/// A file of the guest.
pub(crate) struct Entry {
    /// Without the leading slash.
    pub(crate) path: String,
    pub(crate) content: Content,
}

/// What is in it.
pub(crate) enum Content {
    /// This file's bytes, which can be run.
    Program(PathBuf),
    Text(&'static str),
    /// A symbolic link, and where it leads.
    Link(String),
}

/// Writes an archive with `entries` to `archive`.
pub(crate) fn write(archive: &Path, entries: &[Entry]) -> Result<()> {
    paths::make(archive.parent().context("the archive has no folder")?)?;
    let out = File::create(archive).with_context(|| format!("cannot make {}", archive.display()))?;
    let mut out = BufWriter::new(out);
    fill(&mut out, entries).with_context(|| format!("cannot write {}", archive.display()))?;
    newc::trailer(&mut out).and_then(Write::flush).with_context(|| format!("cannot end {}", archive.display()))
}

fn fill(out: &mut impl Write, entries: &[Entry]) -> Result<()> {
    // Inode numbers only have to differ: equal ones would be links of one file.
    let mut inode = 0;
    let mut header = |path: &str, kind: ModeFileType, mode: u32| {
        inode += 1;
        Builder::new(path).ino(inode).mode(mode).set_mode_file_type(kind)
    };
    for folder in folders(entries) {
        header(folder, ModeFileType::Directory, 0o755).write(&mut *out, 0).finish()?;
    }
    // The kernel opens it for the first process, before anything is mounted.
    header("dev/console", ModeFileType::Char, 0o600).rdev_major(5).rdev_minor(1).write(&mut *out, 0).finish()?;
    for Entry { path, content } in entries {
        let (kind, mode, bytes) = match content {
            Content::Program(file) => {
                let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
                (ModeFileType::Regular, 0o755, bytes)
            }
            Content::Text(text) => (ModeFileType::Regular, 0o644, text.as_bytes().to_vec()),
            Content::Link(target) => (ModeFileType::Symlink, 0o777, target.as_bytes().to_vec()),
        };
        let length = u32::try_from(bytes.len()).context("the format ends at 4 GiB")?;
        let mut data = header(path, kind, mode).write(&mut *out, length);
        data.write_all(&bytes)?;
        data.finish()?;
    }
    Ok(())
}

/// Every folder, each after the one that it is in.
fn folders(entries: &[Entry]) -> BTreeSet<&str> {
    let above = entries.iter().flat_map(|entry| Path::new(&entry.path).ancestors().skip(1));
    let above = above.filter_map(Path::to_str).filter(|folder| !folder.is_empty());
    FOLDERS.into_iter().chain(above).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_after_those_that_they_are_in() {
        let entries = [Entry { path: "usr/lib/a/b.so".to_owned(), content: Content::Text("") }];
        let folders: Vec<&str> = folders(&entries).into_iter().collect();
        let place = |wanted| folders.iter().position(|folder| *folder == wanted).unwrap();
        assert!(place("usr") < place("usr/lib") && place("usr/lib") < place("usr/lib/a"), "{folders:?}");
        assert_eq!(folders.len(), FOLDERS.len() + 3);
    }
}
