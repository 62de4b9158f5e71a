//! `cargo xtask image`: builds Dockerfile.production as its users do and proves what comes out, without a daemon.
//!
//! This file owns the order of the work. Where the builder image comes from, what the proofs are given, how a guest runs them
//! and which page they write are each one of its modules; what the image has to do is in `tests/image`.

mod buildah;
mod builder;
mod cross;
mod guest;
mod pages;
mod privileges;
mod proof;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use self::{buildah::Buildah, privileges::Page, proof::Proof};
use crate::{paths, process, vm::kernels::Arch};

const NAME: &str = "localhost/oom-watcher";

/// What is built, and where it is proven.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Architecture of the image; another than this machine's is compiled across and proven in guests only
    #[arg(long, value_enum, default_value_t = Arch::own())]
    arch: Arch,
    /// Image that compiles; without it one is made of Debian's packages and a toolchain of this machine
    #[arg(long, value_name = "IMAGE")]
    builder: Option<String>,
    /// Prove it in guests with these kernels of `cargo xtask vm --list`, separated by commas, instead of on this machine
    #[arg(long, value_name = "KERNEL", value_delimiter = ',')]
    guest: Vec<String>,
    /// Only build
    #[arg(long)]
    build_only: bool,
    /// Take the image as the last build left it
    #[arg(long, conflicts_with_all = ["builder", "build_only"])]
    no_build: bool,
    /// Build a second time, and compare what came out
    #[arg(long, conflicts_with = "no_build")]
    twice: bool,
    /// Write the tables of docs/security.md instead of checking them
    #[arg(long)]
    write_docs: bool,
    /// Run only the tests that pytest's -k finds by one of these words, separated by commas, and compare no table
    #[arg(long, value_name = "WORD", requires = "guest", value_delimiter = ',')]
    filter: Vec<String>,
    /// Keep the agent's pages of the guest, on which alerts and dashboard are tested, instead of comparing them
    #[arg(long, requires = "guest")]
    write_pages: bool,
}

/// `cargo xtask image`.
pub(crate) fn run(options: &Options) -> Result<()> {
    for program in ["buildah", "mmdebstrap", "crun", "runc", "ip", "openssl"] {
        ensure!(process::found(program), "{program} is not installed: run `cargo xtask deps`");
    }
    ensure!(process::is_root()?, "containers are started with the capabilities of root: run it as root");
    let folder = paths::make(&absolute(paths::target())?.join("image"))?;
    let proof = Proof::at(&folder, options.arch)?;
    if !options.no_build {
        let buildah = Buildah::new(&folder)?;
        build(&buildah, &folder, &proof.layout(), options)?;
        if options.twice {
            let second = folder.join("second");
            build(&buildah, &folder, &second, options)?;
            reproducible(&proof.layout(), &second)?;
        }
    }
    println!("the image is in {}", proof.layout().display());
    if options.build_only {
        return Ok(());
    }
    proof.complete(&revision()?)?;
    let page = Page { write: options.write_docs };
    if !options.guest.is_empty() {
        return guest::run_all(options, &proof, &folder, &page);
    }
    ensure!(options.arch == Arch::own(), "an image for {} is proven in a guest: --guest KERNEL", options.arch);
    prove_here(&proof, &folder, &page)
}

/// Runs the proofs on this machine.
fn prove_here(proof: &Proof, folder: &Path, page: &Page) -> Result<()> {
    let results = folder.join("results.jsonl");
    fs::write(&results, "").with_context(|| format!("cannot write {}", results.display()))?;
    let mut tests = Command::new(paths::workspace().join("tests/image/run.sh"));
    tests.env("OOM_WATCHER_PROOF", proof.folder()).env("OOM_WATCHER_RESULTS", &results);
    process::run(tests.arg("-s"))?;
    page.settle_machine(&results)
}

/// Builds the image and writes it as a registry would give it.
fn build(buildah: &Buildah, folder: &Path, layout: &Path, options: &Options) -> Result<()> {
    let tag = format!("{NAME}:{}-{}", env!("CARGO_PKG_VERSION"), options.arch);
    let mut command = buildah.command();
    command.args(["build", "--isolation", "chroot", "--pull-never", "--timestamp", "0", "--layers=false"]);
    command.args(["--platform", &format!("linux/{}", options.arch)]);
    let image = if let Some(image) = &options.builder {
        image.clone()
    } else {
        command.arg("--volume").arg(format!("{}:{}:ro", builder::vendor(folder)?.display(), builder::VENDOR));
        builder::provide(buildah, folder, options.arch)?
    };
    for (name, value) in [
        ("BUILDER", image.as_str()),
        // BuildKit says these by itself.
        ("BUILDPLATFORM", &format!("linux/{}", Arch::own())),
        ("BUILDARCH", Arch::own().debian()),
        ("VERSION", env!("CARGO_PKG_VERSION")),
        ("REVISION", &revision()?),
    ] {
        command.args(["--build-arg", &format!("{name}={value}")]);
    }
    command.args(["--tag", &tag, "--file", "Dockerfile.production", "."]).current_dir(paths::workspace());
    process::run(&mut command)?;
    if layout.exists() {
        fs::remove_dir_all(layout).with_context(|| format!("cannot remove {}", layout.display()))?;
    }
    let destination = format!("oci:{}:{}", layout.display(), env!("CARGO_PKG_VERSION"));
    process::run(buildah.command().args(["push", "--quiet", &tag, &destination]))
}

/// Compares two layouts of one image: its manifest names configuration and layers by their bytes.
fn reproducible(first: &Path, second: &Path) -> Result<()> {
    let manifest = |layout: &Path| -> Result<(String, String)> {
        let index: Value = read_json(&layout.join("index.json"))?;
        let digest = index["manifests"][0]["digest"].as_str().context("the index names no manifest")?;
        let blob = layout.join("blobs").join(digest.replace(':', "/"));
        Ok((digest.to_owned(), read_json(&blob)?.to_string()))
    };
    let (one, other) = (manifest(first)?, manifest(second)?);
    ensure!(one == other, "two builds of the same sources differ:\n{}\n{}", one.1, other.1);
    println!("reproducible: two builds gave {}", one.0);
    Ok(())
}

fn read_json(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot understand {}", file.display()))
}

/// The commit that is checked out.
pub(crate) fn revision() -> Result<String> {
    let mut git = Command::new("git");
    let revision = process::output(git.args(["rev-parse", "HEAD"]).current_dir(paths::workspace()))?;
    Ok(revision.trim_end().to_owned())
}

/// The day of the commit that is checked out.
fn revision_date() -> Result<String> {
    let mut git = Command::new("git");
    git.args(["show", "--no-patch", "--format=%cs", "HEAD"]).current_dir(paths::workspace());
    Ok(process::output(&mut git)?.trim_end().to_owned())
}

fn absolute(folder: PathBuf) -> Result<PathBuf> {
    let here = env::current_dir().context("the working directory is gone")?;
    Ok(here.join(folder))
}
