//! `cargo xtask release --dry-run`: everything about a release that can be known before its tag.
//!
//! Cargo.toml is where the version is; every other place is compared with it here. Nothing is published from a developer's
//! machine: the tag's workflow does that, after it ran this.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{paths, process};

/// A file, and the text that has to be in it with the version in place of `{}`.
const PLACES: &[(&str, &str)] = &[
    ("Cargo.toml", "oom-watcher-common = { path = \"oom-watcher-common\", version = \"={}\" }"),
    ("oom-watcher-ebpf/Cargo.toml", "\nversion = \"{}\"\n"),
    ("helm/oom-watcher/Chart.yaml", "\nversion: {}\n"),
    ("helm/oom-watcher/Chart.yaml", "\nappVersion: \"{}\"\n"),
    ("k8s/daemonset.yaml", "image: \"ghcr.io/oom-watcher/oom-watcher:{}\"\n"),
    ("k8s/no-api/daemonset.yaml", "image: \"ghcr.io/oom-watcher/oom-watcher:{}\"\n"),
];
/// Published in this order: the second needs the first.
const PACKAGES: [&str; 2] = ["oom-watcher-common", "oom-watcher"];
/// What a package cannot do without: the program that is loaded, and the terms.
const PACKAGED: &[(&str, &str)] =
    &[("oom-watcher", "bpf/oom-watcher.bpf.o"), ("oom-watcher", "LICENSE-MIT"), ("oom-watcher-common", "LICENSE-MIT")];

/// What is checked.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The only way there is: a release is published by the workflow of its tag
    #[arg(long, required = true)]
    dry_run: bool,
    /// The tag that is to be released: its version has to be that of Cargo.toml, and the changelog has to speak of it
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
}

/// `cargo xtask release`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let mut faults = Vec::new();
    for (file, place) in PLACES {
        let expected = place.replace("{}", version);
        if !read(file)?.contains(&expected) {
            faults.push(format!("{file}: no {:?}", expected.trim()));
        }
    }
    if let Some(tag) = &options.tag {
        faults.extend(tag_faults(tag, version, &read("CHANGELOG.md")?));
    }
    if !faults.is_empty() {
        bail!("Cargo.toml says {version}, but:\n{}", faults.join("\n"));
    }
    println!("version {version} everywhere");
    package()
}

/// What a tag needs beside the version of the sources.
fn tag_faults(tag: &str, version: &str, changelog: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if tag != format!("v{version}") {
        faults.push(format!("the tag is {tag}, not v{version}"));
    }
    if !changelog.lines().any(|line| line.starts_with(&format!("## [{version}] - "))) {
        faults.push(format!("CHANGELOG.md has no section \"## [{version}] - <date>\""));
    }
    faults
}

/// Makes the packages as they would be published, and builds each from its package: the second with the first in place of the
/// registry's.
fn package() -> Result<()> {
    for (package, file) in PACKAGED {
        let list = process::output(cargo().args(["package", "--list", "--allow-dirty", "--package", package]))?;
        ensure!(list.lines().any(|line| line == *file), "the package {package} has no {file}");
    }
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    process::run(cargo().args(["package", "--locked", "--allow-dirty"]).args(packages))?;
    println!("packages: {}", PACKAGES.join(", "));
    Ok(())
}

fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(paths::workspace());
    command
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(paths::workspace().join(file)).with_context(|| format!("cannot read {file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGELOG: &str = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-01\n";

    #[test]
    fn a_tag_is_the_version_and_has_a_section() {
        assert!(tag_faults("v1.2.3", "1.2.3", CHANGELOG).is_empty());
    }

    #[test]
    fn another_tag_or_no_section_is_a_fault() {
        for (tag, version, count) in
            [("v1.2.4", "1.2.3", 1), ("1.2.3", "1.2.3", 1), ("v1.2", "1.2", 1), ("v2", "1.2", 2)]
        {
            assert_eq!(tag_faults(tag, version, CHANGELOG).len(), count, "{tag} of {version}");
        }
    }
}
