//! The files of a release: the static binary in an archive, its bill of materials, the sums of all, and the notes.
//!
//! The workflow of a tag calls this on a machine of each architecture, and once more for the sums over what all of them made.
//! Two runs over the same commit and binary give the same bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    cargo_tool,
    paths::{self, make, workspace},
    process, shipped,
    vm::kernels::Arch,
};

const CYCLONEDX: (&str, &str) = ("cargo-cyclonedx", "0.5.9");
const BINARY: &str = "oom-watcher";
/// What a binary alone would lack.
const DOCUMENTS: [&str; 2] = ["LICENSE-MIT", "README.md"];
const SUMS: &str = "SHA256SUMS";

/// A static binary, and what it was compiled for.
#[derive(Clone, Debug)]
pub(crate) struct Binary {
    target: String,
    file: PathBuf,
}

impl std::str::FromStr for Binary {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (target, file) = text.split_once('=').ok_or_else(|| format!("{text:?} is not TARGET=FILE"))?;
        Ok(Self { target: target.to_owned(), file: file.into() })
    }
}

impl Binary {
    /// The static one of this machine's architecture.
    pub(super) fn build() -> Result<Self> {
        Ok(Self { target: Arch::own().triple(), file: shipped::build(BINARY)? })
    }

    /// One that is cheap to have, where the files around it matter.
    pub(super) fn stand_in() -> Result<Self> {
        process::run(process::cargo().args(["build", "--package", BINARY]).current_dir(workspace()))?;
        Ok(Self { target: Arch::own().triple(), file: paths::target().join("debug").join(BINARY) })
    }
}

/// Writes archive and bill of materials of each binary, the sums and the notes.
pub(super) fn write(folder: &Path, version: &str, binaries: &[Binary], changelog: &str) -> Result<()> {
    make(folder)?;
    let time = commit_time()?;
    for binary in binaries {
        let name = format!("{BINARY}-{version}-{}", binary.target);
        archive(binary, &folder.join(format!("{name}.tar.gz")), &time)?;
        bill_of_materials(&binary.target, &folder.join(format!("{name}.cdx.json")), &time)?;
    }
    close(folder, version, changelog)
}

/// Sums over all that is in the folder, and beside it the notes: what the changelog says of this version.
pub(super) fn close(folder: &Path, version: &str, changelog: &str) -> Result<()> {
    let listing = || format!("cannot list {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(listing)? {
        let name = entry.with_context(listing)?.file_name().to_string_lossy().into_owned();
        // Neither itself, nor what signs it.
        if !name.starts_with(SUMS) {
            names.push(name);
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "{} is empty", folder.display());
    let mut sums = String::new();
    for name in &names {
        sums.extend([&process::sha256(&folder.join(name))?, "  ", name, "\n"]);
    }
    save(&folder.join(SUMS), &sums)?;
    let notes = section(changelog, version).or_else(|| section(changelog, "Unreleased"));
    save(&folder.with_extension("md"), notes.context("CHANGELOG.md has nothing to say of this version")?)?;
    println!("{}: {}, {SUMS}", folder.display(), names.join(", "));
    Ok(())
}

/// What a changelog says below the heading of a version, without the links at its end.
fn section<'a>(changelog: &'a str, version: &str) -> Option<&'a str> {
    let (_, rest) = changelog.split_once(&format!("\n## [{version}]"))?;
    let (_, text) = rest.split_once('\n')?;
    let end = text.find("\n## [").unwrap_or_else(|| text.find("\n[").unwrap_or(text.len()));
    let text = text[..end].trim_matches('\n');
    (!text.is_empty()).then_some(text)
}

/// A tar of nothing but the files: neither who packed it nor when.
fn archive(binary: &Binary, archive: &Path, time: &str) -> Result<()> {
    let folder = binary.file.parent().context("a binary is in a folder")?;
    let name = binary.file.file_name().context("a binary has a name")?;
    ensure!(binary.file.is_file(), "{} is not there", binary.file.display());
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--owner=0", "--group=0", "--numeric-owner", "--mode=go=rX"]);
    tar.arg(format!("--mtime=@{time}")).arg("--file").arg(archive).arg("-C").arg(folder).arg(name);
    process::run(tar.arg("-C").arg(workspace()).args(DOCUMENTS))
}

/// Every crate in the binary. The tool writes one for each program of the workspace, beside its manifest.
fn bill_of_materials(target: &str, file: &Path, time: &str) -> Result<()> {
    let (name, version) = CYCLONEDX;
    let mut tool = Command::new(cargo_tool::provide(name, version)?);
    tool.args(["cyclonedx", "--format", "json", "--spec-version", "1.5", "--describe", "binaries", "-q"]);
    tool.args(["--manifest-path", &format!("{BINARY}/Cargo.toml"), "--target", target]);
    process::run(tool.env("SOURCE_DATE_EPOCH", time).current_dir(workspace()))?;
    let mut text = None;
    for member in ["benches", BINARY, "vm-init", "xtask"] {
        let written = workspace().join(member).join(format!("{member}_bin.cdx.json"));
        let bill = fs::read_to_string(&written).with_context(|| format!("cannot read {}", written.display()))?;
        fs::remove_file(&written).with_context(|| format!("cannot remove {}", written.display()))?;
        text = text.or((member == BINARY).then_some(bill));
    }
    save(file, &text.context("the program has no bill")?)
}

/// When HEAD was committed, in seconds since 1970.
fn commit_time() -> Result<String> {
    let mut git = Command::new("git");
    Ok(process::output(git.args(["log", "-1", "--format=%ct"]).current_dir(workspace()))?.trim_end().to_owned())
}

fn save(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGELOG: &str = "# Changelog\n\nWords.\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-01\n\n### Added\n\n- A thing.\n\n\
                             ## [1.2.2] - 2025-12-01\n\n- Older, see [there](x).\n\n[1.2.3]: https://example.com\n";

    #[test]
    fn notes_are_the_section_of_the_version() {
        assert_eq!(section(CHANGELOG, "1.2.3"), Some("### Added\n\n- A thing."));
        assert_eq!(section(CHANGELOG, "1.2.2"), Some("- Older, see [there](x)."));
        assert_eq!(section(CHANGELOG, "Unreleased"), None);
        assert_eq!(section(CHANGELOG, "1.2"), None);
    }

    #[test]
    fn sums_are_over_everything_but_themselves() {
        let folder = std::env::temp_dir().join(format!("oom-watcher-dist-{}", std::process::id()));
        make(&folder).unwrap();
        for (name, text) in [("b.tar.gz", "b"), ("a.json", "a"), ("SHA256SUMS.sigstore.json", "signature")] {
            save(&folder.join(name), text).unwrap();
        }
        close(&folder, "1.2.3", CHANGELOG).unwrap();
        close(&folder, "1.2.3", CHANGELOG).unwrap();
        let mut check = Command::new("sha256sum");
        let checked = process::output(check.args(["--check", SUMS]).current_dir(&folder)).unwrap();
        let notes = fs::read_to_string(folder.with_extension("md")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        fs::remove_file(folder.with_extension("md")).unwrap();
        assert_eq!(checked, "a.json: OK\nb.tar.gz: OK\n");
        assert_eq!(notes, "### Added\n\n- A thing.");
    }

    #[test]
    fn a_binary_names_its_target() {
        let binary: Binary = "aarch64-unknown-linux-gnu=./oom-watcher".parse().unwrap();
        assert_eq!((&*binary.target, binary.file), ("aarch64-unknown-linux-gnu", PathBuf::from("./oom-watcher")));
        assert!("oom-watcher".parse::<Binary>().is_err());
    }
}
