//! `cargo xtask release`: everything about a release that can be known before its tag, and the files that it consists of.
//!
//! Cargo.toml is where the version is; every other place is compared with it here. Nothing is published from a developer's
//! machine: the tag's workflow does that, after it ran this.

mod dist;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

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
    ("docs/install.md", "\nversion={}\n"),
    ("tests/chart/fixtures/agent-before.txt", "oom_watcher_build_info{version=\"{}\""),
    ("tests/chart/fixtures/agent-after.txt", "oom_watcher_build_info{version=\"{}\""),
    ("tests/chart/fixtures/agent-trouble-before.txt", "oom_watcher_build_info{version=\"{}\""),
    ("tests/chart/fixtures/agent-trouble-after.txt", "oom_watcher_build_info{version=\"{}\""),
];
/// Pages for users.
const DOCUMENTS: [&str; 2] = ["README.md", "docs"];
/// A number that stands behind one of these is a version of ours.
const OURS: [&str; 4] = ["oom-watcher:", "oom-watcher-", "oom-watcher@", "image.tag="];
/// What the line that names the builder image ends with.
const BUILDER: &str = " AS pinned";
/// Published in this order: the second needs the first.
const PACKAGES: [&str; 2] = ["oom-watcher-common", "oom-watcher"];
/// What a package cannot do without: the program that is loaded, and the terms.
const PACKAGED: &[(&str, &str)] =
    &[("oom-watcher", "bpf/oom-watcher.bpf.o"), ("oom-watcher", "LICENSE-MIT"), ("oom-watcher-common", "LICENSE-MIT")];

/// What is checked.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Check versions and packages, and rehearse the files with an unoptimised binary; a release is published by its tag's workflow
    #[arg(long, required_unless_present = "dist")]
    dry_run: bool,
    /// Write the release's files into this folder, and its notes beside it
    #[arg(long, value_name = "DIR")]
    dist: Option<PathBuf>,
    /// A static binary that is there already, and its target; without one, this machine's is built
    #[arg(long, value_name = "TARGET=FILE", requires = "dist", conflicts_with = "sums_only")]
    binary: Vec<dist::Binary>,
    /// Add nothing to the folder but the sums of what is in it
    #[arg(long, requires = "dist")]
    sums_only: bool,
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
    faults.extend(document_faults(version)?);
    let changelog = read("CHANGELOG.md")?;
    if let Some(tag) = &options.tag {
        faults.extend(tag_faults(tag, version, &changelog));
        faults.extend(builder_fault(&read("Dockerfile.production")?));
    }
    if !faults.is_empty() {
        bail!("Cargo.toml says {version}, but:\n{}", faults.join("\n"));
    }
    println!("version {version} everywhere");
    if options.dry_run {
        package()?;
    }
    match &options.dist {
        Some(folder) if options.sums_only => dist::close(folder, version, &changelog),
        Some(folder) if options.binary.is_empty() => {
            dist::write(folder, version, &[dist::Binary::build()?], &changelog)
        }
        Some(folder) => dist::write(folder, version, &options.binary, &changelog),
        None => {
            let (binary, folder) = (dist::Binary::stand_in()?, paths::target().join("dist"));
            // Files of an earlier rehearsal would be in the sums.
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
            }
            dist::write(&folder, version, &[binary], &changelog)
        }
    }
}

/// Versions of ours in the users' pages that are of another release.
fn document_faults(version: &str) -> Result<Vec<String>> {
    let mut list = Command::new("git");
    list.args(["ls-files", "--"]).args(DOCUMENTS);
    let files = process::output(list.current_dir(paths::workspace()))?;
    let mut faults = Vec::new();
    for file in files.lines().filter(|file| Path::new(file).extension() == Some("md".as_ref())) {
        let others = foreign_versions(&read(file)?, version);
        faults.extend(others.into_iter().map(|other| format!("{file}: {other}")));
    }
    Ok(faults)
}

/// The places of a text where our name has another version.
fn foreign_versions(text: &str, version: &str) -> Vec<String> {
    let is_part = |one: char| one.is_ascii_digit() || one == '.';
    let places = OURS.iter().flat_map(|ours| text.match_indices(ours).map(move |(at, _)| (at, at + ours.len())));
    let named = places.filter_map(|(at, end)| {
        let number = text[end..].split(|one| !is_part(one)).next()?.trim_end_matches('.');
        (number.matches('.').count() == 2 && number != version).then(|| format!("{}{number}", &text[at..end]))
    });
    named.collect()
}

/// The compiler of a release is named by its bytes, not by a tag that can move.
fn builder_fault(dockerfile: &str) -> Option<String> {
    let line = dockerfile.lines().find_map(|line| line.strip_suffix(BUILDER)).unwrap_or_default();
    let builder = line.rsplit(' ').next().unwrap_or_default();
    let digest = builder.split_once("@sha256:").map(|(_, digest)| digest).unwrap_or_default();
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    (!is_digest).then(|| {
        format!("Dockerfile.production: the builder image {builder:?} has no digest; RELEASE.md says how to find it")
    })
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
    forget_unpacked(&paths::cargo_home()?.join("registry/src"), env!("CARGO_PKG_VERSION"))?;
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    process::run(cargo().args(["package", "--locked", "--allow-dirty"]).args(packages))?;
    println!("packages: {}", PACKAGES.join(", "));
    Ok(())
}

/// Cargo unpacks the first package into its home, under a name made of the checkout's path, and never again where that name is
/// there: the second would be built with the first as it was when this checkout, or another at its path, was packaged before.
fn forget_unpacked(sources: &Path, version: &str) -> Result<()> {
    let listing = || format!("cannot list {}", sources.display());
    let registries = match fs::read_dir(sources) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.with_context(listing)?,
    };
    for registry in registries {
        let registry = registry.with_context(listing)?.path();
        for package in PACKAGES {
            let unpacked = registry.join(format!("{package}-{version}"));
            if unpacked.exists() {
                fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))?;
            }
        }
    }
    Ok(())
}

fn cargo() -> Command {
    let mut command = process::cargo();
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
    fn only_this_version_of_ours_is_forgotten() {
        let sources = std::env::temp_dir().join(format!("oom-watcher-unpacked-{}", std::process::id()));
        forget_unpacked(&sources, "1.2.3").unwrap();
        let [ours, older, another] = ["oom-watcher-common-1.2.3", "oom-watcher-common-1.2.2", "libc-1.2.3"]
            .map(|name| sources.join("-0123").join(name));
        for package in [&ours, &older, &another] {
            paths::make(&package.join("src")).unwrap();
        }
        forget_unpacked(&sources, "1.2.3").unwrap();
        let left = [&ours, &older, &another].map(|package| package.exists());
        fs::remove_dir_all(&sources).unwrap();
        assert_eq!(left, [false, true, true]);
    }

    #[test]
    fn a_builder_has_a_digest() {
        let digest = "0123456789abcdef".repeat(4);
        let pinned = |image: &str| format!("FROM x\nFROM --platform=$BUILDPLATFORM {image} AS pinned\nFROM scratch\n");
        assert_eq!(builder_fault(&pinned(&format!("docker.io/library/rust:1@sha256:{digest}"))), None);
        for builder in ["rust:1", "rust:1@sha256:0123", &format!("rust:1@sha256:{}", "x".repeat(64))] {
            assert!(builder_fault(&pinned(builder)).is_some(), "{builder}");
        }
        assert!(builder_fault("FROM scratch\n").is_some());
    }

    #[test]
    fn a_page_that_names_another_release_is_a_fault() {
        let page = "oom-watcher:1.2.3 and --set image.tag=1.2.2, oom-watcher-1.2.1-x86_64.tar.gz; runc 1.1.5, oom-watcher-ebpf.";
        assert_eq!(foreign_versions(page, "1.2.3"), ["oom-watcher-1.2.1", "image.tag=1.2.2"]);
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
