//! A builder image where no registry is in reach: Debian's compiler and C library, the stable Rust of this machine, and the
//! sources of the dependencies beside it.
//!
//! It has what the official `rust` image has as far as Dockerfile.production uses it, at the same places.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::buildah::Buildah;
use crate::{apt, paths, process};

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

/// The name of the builder image, made when the store has none with this compiler.
pub(super) fn provide(buildah: &Buildah, folder: &Path) -> Result<String> {
    let version = process::output(Command::new("rustc").arg("--version"))?;
    let release = version.split_whitespace().nth(1).context("rustc does not say its version")?;
    let image = format!("localhost/oom-watcher-builder:rust-{release}-{SUITE}");
    if !buildah.has(&image)? {
        make(buildah, folder, &image).with_context(|| format!("cannot make the builder image {image}"))?;
    }
    Ok(image)
}

fn make(buildah: &Buildah, folder: &Path, image: &str) -> Result<()> {
    let root = folder.join("builder.tar");
    if !root.is_file() {
        // Under another name until it is whole.
        let partial = folder.join("builder.partial.tar");
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]).arg(&partial);
        process::run(bootstrap.arg(apt::mirror(SUITE)?))?;
        fs::rename(&partial, &root).with_context(|| format!("cannot keep {}", root.display()))?;
    }
    let toolchain = folder.join("toolchain.tar");
    pack_toolchain(&toolchain)?;
    let config = folder.join("config.toml");
    fs::write(&config, CARGO_CONFIG).with_context(|| format!("cannot write {}", config.display()))?;

    let container = process::output(buildah.command().args(["from", "scratch"]))?;
    let container = container.trim_end();
    for (source, destination) in [(&root, "/"), (&toolchain, "/usr/local"), (&config, "/usr/local/cargo/config.toml")] {
        process::run(buildah.command().args(["add", "--quiet", container]).arg(source).arg(destination))?;
    }
    let environment = ["CARGO_HOME=/usr/local/cargo", "PATH=/usr/local/bin:/usr/bin:/bin"];
    let environment = environment.iter().flat_map(|variable| ["--env", variable]);
    process::run(buildah.command().arg("config").args(environment).arg(container))?;
    process::run(buildah.command().args(["commit", "--quiet", "--rm", container, image]))?;
    fs::remove_file(&toolchain).with_context(|| format!("cannot remove {}", toolchain.display()))
}

/// What compiles for this machine, without documentation and further tools.
fn pack_toolchain(archive: &Path) -> Result<()> {
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let host = process::output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(sysroot.trim_end()).arg("-cf").arg(archive);
    tar.args(["bin/cargo", "bin/rustc", &format!("lib/rustlib/{}", host.trim_end())]);
    let libraries = Path::new(sysroot.trim_end()).join("lib");
    let files = fs::read_dir(&libraries).with_context(|| format!("cannot list {}", libraries.display()))?;
    for file in files {
        let name = file.with_context(|| format!("cannot list {}", libraries.display()))?.file_name();
        if name.to_string_lossy().contains(".so") {
            tar.arg(Path::new("lib").join(name));
        }
    }
    process::run(&mut tar)
}
