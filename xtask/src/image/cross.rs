//! A compiler for another architecture where rustup's servers are out of reach: the pinned nightly, and the standard library
//! that it builds from its source. Together they are what `rustup target add` gives.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::builder::Toolchain;
use crate::{paths, process, toolchain::Nightly, vm::kernels::Arch};

/// A crate of nothing, so that nothing but the standard library is built. A workspace of its own, wherever it lies.
const MANIFEST: &str = "[package]\nname = \"empty\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n[workspace]\n\
                        [profile.release]\npanic = \"abort\"\n";

/// Debian's packages that link for `arch`.
pub(super) fn packages(arch: Arch) -> String {
    format!("gcc-{}-linux-gnu,libc6-dev-{arch}-cross", arch.rust().replace('_', "-"))
}

/// The nightly with a standard library for `arch`.
pub(super) fn toolchain(folder: &Path, arch: Arch) -> Result<Toolchain> {
    let nightly = Nightly::provide()?;
    let further = folder.join(format!("std-{arch}-{}", nightly.name()));
    if !further.is_dir() {
        build(&nightly, folder, arch, &further)?;
    }
    let release = nightly.name().to_owned();
    Ok(Toolchain { sysroot: nightly.sysroot().to_owned(), release, further: Some(further) })
}

/// Builds the library and puts it where a sysroot has it.
fn build(nightly: &Nightly, folder: &Path, arch: Arch, sysroot: &Path) -> Result<()> {
    let source = paths::make(&folder.join("std"))?;
    for (name, text) in [("Cargo.toml", MANIFEST), ("lib.rs", "")] {
        fs::write(source.join(name), text).with_context(|| format!("cannot write below {}", source.display()))?;
    }
    let target = source.join("target");
    let mut cargo = nightly.cargo();
    cargo.args(["build", "--quiet", "--release", "-Z", "build-std=std,panic_abort", "--target", &arch.triple()]);
    // The release profile links with LTO, which wants what cargo leaves out of a library that is built without. And no path of
    // this machine goes into programs, as none is in the library that rustup gives.
    let hidden = [nightly.sysroot().to_owned(), paths::cargo_home()?];
    let remapped = hidden.iter().map(|path| format!("--remap-path-prefix={}=/rustc", path.display()));
    let flags: Vec<_> = ["-C embed-bitcode=yes".to_owned()].into_iter().chain(remapped).collect();
    cargo.env("RUSTFLAGS", flags.join(" "));
    cargo.arg("--target-dir").arg(&target).current_dir(&source);
    process::run(&mut cargo)?;
    // Under another name until it is whole.
    let partial = sysroot.with_added_extension("partial");
    let libraries = paths::make(&partial.join(format!("lib/rustlib/{}/lib", arch.triple())))?;
    for file in built(&target.join(arch.triple()).join("release/deps"))? {
        let name = file.file_name().context("a file without a name")?;
        fs::copy(&file, libraries.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    fs::rename(&partial, sysroot).with_context(|| format!("cannot make {}", sysroot.display()))
}

/// The library's crates.
fn built(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = || format!("cannot list {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(listing)? {
        let file = entry.with_context(listing)?.path();
        let is_own = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libempty"));
        if !is_own && file.extension().is_some_and(|extension| extension == "rlib") {
            files.push(file);
        }
    }
    Ok(files)
}
