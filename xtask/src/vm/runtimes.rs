//! Debian's container runtimes for a guest, with the libraries that they need and the programs that the suite calls.
//!
//! The packages come through apt's index and are unpacked, not installed: of each only programs and libraries are taken.

use std::{
    collections::{BTreeMap, btree_map},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    initramfs::{Content, Entry},
    kernels::Arch,
};
use crate::{apt, paths, process};

/// The release whose packages are taken: the same that most developers have, so that one suite fits both.
const RELEASE: &str = "bookworm";
const PACKAGES: [&str; 4] = ["containerd", "runc", "crun", "busybox-static"];
/// Where packages have their programs.
const PROGRAM_FOLDERS: [&str; 4] = ["bin", "sbin", "usr/bin", "usr/sbin"];
const PROGRAMS: [&str; 6] = ["containerd", "containerd-shim-runc-v2", "ctr", "runc", "crun", "busybox"];
/// What the suite calls, in busybox.
const APPLETS: [&str; 8] = ["sh", "tar", "sha256sum", "mount", "umount", "unshare", "sed", "mkdir"];
/// containerd gives each sandbox the machine's.
const TEXTS: [(&str, &str); 4] = [
    ("etc/hosts", "127.0.0.1 localhost\n"),
    ("etc/hostname", "guest\n"),
    ("etc/resolv.conf", ""),
    ("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
];

/// What a guest needs to run containers.
pub(crate) fn provide(arch: Arch) -> Result<Vec<Entry>> {
    let suite = apt::Suite::open(RELEASE, arch.debian())?;
    let mut entries = Vec::new();
    for package in with_dependencies(&suite)? {
        let folder = unpacked(&suite, &package, arch)?;
        collect(&folder, Path::new(""), &mut entries)?;
    }
    let applets = APPLETS.map(|name| (format!("bin/{name}"), Content::Link("busybox".to_owned())));
    let texts = TEXTS.map(|(path, text)| (path.to_owned(), Content::Text(text)));
    entries.extend(applets.into_iter().chain(texts).map(|(path, content)| Entry { path, content }));
    Ok(entries)
}

/// The packages and all that they depend on.
fn with_dependencies(suite: &apt::Suite) -> Result<Vec<apt::Package>> {
    let mut wanted: Vec<String> = PACKAGES.map(str::to_owned).to_vec();
    let mut found = BTreeMap::new();
    while let Some(name) = wanted.pop() {
        if let btree_map::Entry::Vacant(place) = found.entry(name) {
            let package = suite.newest(place.key())?;
            wanted.extend(package.depends.iter().cloned());
            place.insert(package);
        }
    }
    Ok(found.into_values().collect())
}

/// The folder in the cache that has the files of this version.
fn unpacked(suite: &apt::Suite, package: &apt::Package, arch: Arch) -> Result<PathBuf> {
    let cache = paths::cache("packages")?;
    let folder = cache.join(format!("{}_{}_{arch}", package.name, package.version));
    if !folder.is_dir() {
        let deb = suite.download(package, &cache)?;
        let partial = folder.with_added_extension("partial");
        process::run(Command::new("dpkg-deb").arg("--extract").args([&deb, &partial]))?;
        fs::rename(&partial, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::remove_file(&deb).with_context(|| format!("cannot remove {}", deb.display()))?;
    }
    Ok(folder)
}

/// Adds what is wanted below `folder`, which is in the guest at `place`.
fn collect(folder: &Path, place: &Path, entries: &mut Vec<Entry>) -> Result<()> {
    let listing = || format!("cannot list {}", folder.display());
    for child in fs::read_dir(folder).with_context(listing)? {
        let child = child.with_context(listing)?;
        let (file, place) = (child.path(), place.join(child.file_name()));
        let kind = child.file_type().with_context(listing)?;
        if kind.is_dir() {
            collect(&file, &place, entries)?;
            continue;
        }
        let Some(path) = place.to_str().filter(|path| is_wanted(path)) else { continue };
        let content = if kind.is_symlink() {
            let target = fs::read_link(&file).with_context(|| format!("cannot read {}", file.display()))?;
            Content::Link(target.to_string_lossy().into_owned())
        } else {
            Content::Program(file)
        };
        entries.push(Entry { path: path.to_owned(), content });
    }
    Ok(())
}

/// Programs by name; libraries where the loader looks for them.
fn is_wanted(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    if PROGRAM_FOLDERS.contains(&folder) {
        return PROGRAMS.contains(&name);
    }
    let above = folder.rsplit_once('/').map_or("", |(above, _)| above);
    let is_loaders = folder == "lib64" || folder == "lib" || matches!(above, "lib" | "usr/lib");
    is_loaders && name.split('.').any(|part| part == "so")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_libraries_are_taken_and_nothing_else() {
        for path in
            ["usr/bin/containerd", "bin/busybox", "lib/x86_64-linux-gnu/libc.so.6", "lib64/ld-linux-x86-64.so.2"]
        {
            assert!(is_wanted(path), "{path}");
        }
        for path in [
            "usr/bin/containerd-stress",
            "usr/share/doc/runc/copyright",
            "usr/lib/x86_64-linux-gnu/gconv/UTF-16.so",
            "usr/lib/systemd/system/containerd.service",
        ] {
            assert!(!is_wanted(path), "{path}");
        }
    }
}
