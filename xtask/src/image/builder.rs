//! A builder image where no registry is in reach: Debian's compiler and C library, a Rust of this machine, and the sources of
//! the dependencies beside it. The Rust is the stable one; to compile across, one that has the other architecture's library.
//!
//! It has what the official `rust` image has as far as Dockerfile.production uses it, at the same places.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{buildah::Buildah, cross};
use crate::{apt, paths, process, vm::kernels::Arch};

/// Where the builder looks for the sources of dependencies.
pub(super) const VENDOR: &str = "/usr/local/vendor";
const SUITE: &str = "bookworm";
const PACKAGES: &str = "gcc,libc6-dev";
const CARGO_CONFIG: &str = r#"[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "/usr/local/vendor"
[net]
offline = true
"#;

/// The sources of every dependency in Cargo.lock, checked against it by cargo.
pub(super) fn vendor(folder: &Path) -> Result<PathBuf> {
    let vendor = folder.join("vendor");
    let mut command = Command::new("cargo");
    process::output(command.args(["vendor", "--locked", "--quiet"]).arg(&vendor).current_dir(paths::workspace()))?;
    Ok(vendor)
}

/// The compiler that a builder image is made of.
pub(super) struct Toolchain {
    /// Where `rustc --print sysroot` says it is.
    pub(super) sysroot: PathBuf,
    /// As it calls itself.
    pub(super) release: String,
    /// A folder in the form of a sysroot with what it lacks to compile for the other architecture.
    pub(super) further: Option<PathBuf>,
}

impl Toolchain {
    /// The one in use.
    fn own() -> Result<Self> {
        let version = process::output(Command::new("rustc").arg("--version"))?;
        let release = version.split_whitespace().nth(1).context("rustc does not say its version")?.to_owned();
        let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
        Ok(Self { sysroot: sysroot.trim_end().into(), release, further: None })
    }
}

/// The name of the builder image of programs for `arch`, made when the store has none with this compiler.
pub(super) fn provide(buildah: &Buildah, folder: &Path, arch: Arch) -> Result<String> {
    let is_cross = arch != Arch::own();
    let toolchain = if is_cross { cross::toolchain(folder, arch)? } else { Toolchain::own()? };
    let image = format!("localhost/oom-watcher-builder-{arch}:rust-{}-{SUITE}", toolchain.release);
    if !buildah.has(&image)? {
        let packages = if is_cross { format!("{PACKAGES},{}", cross::packages(arch)) } else { PACKAGES.to_owned() };
        let root = root(folder, arch, &packages)?;
        make(buildah, folder, &image, &root, &toolchain)
            .with_context(|| format!("cannot make the builder image {image}"))?;
    }
    Ok(image)
}

/// A small Debian with these packages.
fn root(folder: &Path, arch: Arch, packages: &str) -> Result<PathBuf> {
    let root = folder.join(format!("builder-{arch}.tar"));
    if !root.is_file() {
        // Under another name until it is whole.
        let partial = folder.join("builder.partial.tar");
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(["--variant=minbase", &format!("--include={packages}"), SUITE]).arg(&partial);
        process::run(bootstrap.arg(apt::mirror(SUITE)?))?;
        fs::rename(&partial, &root).with_context(|| format!("cannot keep {}", root.display()))?;
    }
    Ok(root)
}

fn make(buildah: &Buildah, folder: &Path, image: &str, root: &Path, rust: &Toolchain) -> Result<()> {
    let toolchain = folder.join("toolchain.tar");
    pack_toolchain(&toolchain, rust)?;
    let config = folder.join("config.toml");
    fs::write(&config, CARGO_CONFIG).with_context(|| format!("cannot write {}", config.display()))?;

    let container = process::output(buildah.command().args(["from", "scratch"]))?;
    let container = container.trim_end();
    for (source, destination) in [(root, "/"), (&*toolchain, "/usr/local"), (&*config, "/usr/local/cargo/config.toml")]
    {
        process::run(buildah.command().args(["add", "--quiet", container]).arg(source).arg(destination))?;
    }
    let environment = ["CARGO_HOME=/usr/local/cargo", "PATH=/usr/local/bin:/usr/bin:/bin"];
    let environment = environment.iter().flat_map(|variable| ["--env", variable]);
    process::run(buildah.command().arg("config").args(environment).arg(container))?;
    process::run(buildah.command().args(["commit", "--quiet", "--rm", container, image]))?;
    fs::remove_file(&toolchain).with_context(|| format!("cannot remove {}", toolchain.display()))
}

/// What compiles, without documentation and further tools.
fn pack_toolchain(archive: &Path, rust: &Toolchain) -> Result<()> {
    let host = format!("lib/rustlib/{}", Arch::own().triple());
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(archive).arg("-C").arg(&rust.sysroot).args(["bin/cargo", "bin/rustc", &host]);
    let libraries = rust.sysroot.join("lib");
    let files = fs::read_dir(&libraries).with_context(|| format!("cannot list {}", libraries.display()))?;
    for file in files {
        let name = file.with_context(|| format!("cannot list {}", libraries.display()))?.file_name();
        if name.to_string_lossy().contains(".so") {
            tar.arg(Path::new("lib").join(name));
        }
    }
    if let Some(further) = &rust.further {
        tar.arg("-C").arg(further).arg("lib");
    }
    process::run(&mut tar)
}
