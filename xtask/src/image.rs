//! `cargo xtask image`: builds Dockerfile.production as its users do and proves what comes out, without a daemon.
//!
//! This file owns the order of the work. Where the builder image comes from and how buildah is spoken to are its modules;
//! what the image has to do is in `tests/image`.

mod buildah;
mod builder;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use self::buildah::Buildah;
use crate::{apt, paths, process};

const NAME: &str = "localhost/oom-watcher";
/// Podman's and CRI-O's default filter. From this release of Debian on it lets bpf(2) pass with `CAP_BPF` alone, as those of
/// containerd and Docker do; before, only with `CAP_SYS_ADMIN`.
const SECCOMP_SUITE: &str = "trixie";
const SECCOMP_PACKAGE: &str = "golang-github-containers-common";
const SECCOMP_FILE: &str = "./usr/share/containers/seccomp.json";

/// What is built, and whether it is proven.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Image that compiles; without it one is made of Debian's packages and the stable toolchain of this machine
    #[arg(long, value_name = "IMAGE")]
    builder: Option<String>,
    /// Only build
    #[arg(long)]
    build_only: bool,
    /// Write the table of docs/security.md instead of checking it
    #[arg(long)]
    write_docs: bool,
}

/// `cargo xtask image`.
pub(crate) fn run(options: &Options) -> Result<()> {
    for program in ["buildah", "crun", "runc", "ip", "curl"] {
        ensure!(process::found(program), "{program} is not installed: run `cargo xtask deps`");
    }
    ensure!(process::is_root()?, "containers are started with the capabilities of root: run it as root");
    let folder = paths::make(&absolute(paths::target())?.join("image"))?;
    let buildah = Buildah::new(&folder)?;
    let layout = build(&buildah, &folder, options)?;
    println!("the image is in {}", layout.display());
    if options.build_only {
        return Ok(());
    }
    let seccomp = seccomp_profile(&folder)?;
    let mut tests = Command::new(paths::workspace().join("tests/image/run.sh"));
    tests.env("OOM_WATCHER_IMAGE", layout).env("OOM_WATCHER_SECCOMP", seccomp).arg("-s");
    if options.write_docs {
        tests.arg("--write-docs");
    }
    process::run(&mut tests)
}

/// Builds the image and writes it as a registry would give it.
fn build(buildah: &Buildah, folder: &Path, options: &Options) -> Result<PathBuf> {
    let tag = format!("{NAME}:{}", env!("CARGO_PKG_VERSION"));
    let mut command = buildah.command();
    command.args(["build", "--isolation", "chroot", "--pull-never", "--timestamp", "0", "--layers=false"]);
    let image = if let Some(image) = &options.builder {
        image.clone()
    } else {
        command.arg("--volume").arg(format!("{}:{}:ro", builder::vendor(folder)?.display(), builder::VENDOR));
        builder::provide(buildah, folder)?
    };
    for (name, value) in [
        ("BUILDER", image.as_str()),
        ("VERSION", env!("CARGO_PKG_VERSION")),
        ("REVISION", &process::output(git().args(["rev-parse", "HEAD"]))?),
    ] {
        command.args(["--build-arg", &format!("{name}={}", value.trim_end())]);
    }
    command.args(["--tag", &tag, "--file", "Dockerfile.production", "."]).current_dir(paths::workspace());
    process::run(&mut command)?;
    let layout = folder.join("oci");
    if layout.exists() {
        fs::remove_dir_all(&layout).with_context(|| format!("cannot remove {}", layout.display()))?;
    }
    let destination = format!("oci:{}:{}", layout.display(), env!("CARGO_PKG_VERSION"));
    process::run(buildah.command().args(["push", "--quiet", &tag, &destination]))?;
    Ok(layout)
}

/// The filter that `seccompProfile: RuntimeDefault` means.
fn seccomp_profile(folder: &Path) -> Result<PathBuf> {
    let file = folder.join("seccomp.json");
    if file.is_file() {
        return Ok(file);
    }
    let suite = apt::Suite::open(SECCOMP_SUITE, "amd64")?;
    let package = suite.download(&suite.newest(SECCOMP_PACKAGE)?, folder)?;
    let mut unpack = Command::new("tar");
    unpack.args(["-xO", SECCOMP_FILE]);
    let text =
        process::pipe(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&package), &mut unpack, process::output)?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn git() -> Command {
    let mut command = Command::new("git");
    command.current_dir(paths::workspace());
    command
}

fn absolute(folder: PathBuf) -> Result<PathBuf> {
    let here = env::current_dir().context("the working directory is gone")?;
    Ok(here.join(folder))
}
