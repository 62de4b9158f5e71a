//! The linker of the kernel program, built from source against the pinned compiler's own LLVM.
//!
//! Any other LLVM could read the compiler's bitcode differently, and a released binary would bring another one.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{paths, process, toolchain::Nightly};

const VERSION: &str = "0.13.0";
/// The feature that names the LLVM of the pinned compiler.
const LLVM_FEATURE: &str = "llvm-22";

/// The path of the linker; builds it (about a minute) when the cache has none that runs.
pub(crate) fn provide(nightly: &Nightly) -> Result<PathBuf> {
    let root = paths::cache("bpf-linker")?.join(format!("{VERSION}-{}", nightly.name()));
    let linker = root.join("bin/bpf-linker");
    // It stops running when the compiler whose LLVM it was linked to is gone.
    if linker.is_file() && process::output(Command::new(&linker).arg("--version")).is_ok() {
        return Ok(linker);
    }
    eprintln!("building bpf-linker {VERSION} into {}", root.display());
    let prefix = root.join("llvm");
    let link = paths::make(&prefix.join("lib"))?.join("libLLVM.so");
    if fs::symlink_metadata(&link).is_ok() {
        fs::remove_file(&link).with_context(|| format!("cannot remove {}", link.display()))?;
    }
    symlink(compiler_llvm(&nightly.lib())?, &link).with_context(|| format!("cannot make {}", link.display()))?;
    let mut install = nightly.cargo();
    install.args(["install", "bpf-linker", "--version", VERSION, "--locked", "--no-default-features"]);
    install.args(["--features", LLVM_FEATURE, "--no-track", "--force", "--root"]).arg(&root);
    install.env("LLVM_PREFIX", &prefix).env_remove("CARGO_TARGET_DIR");
    install.env("RUSTFLAGS", format!("-C link-arg=-Wl,-rpath,{}", nightly.lib().display()));
    process::run(&mut install).context("cannot build bpf-linker")?;
    Ok(linker)
}

fn compiler_llvm(lib: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(lib).with_context(|| format!("cannot list {}", lib.display()))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM.so.")))
        .with_context(|| format!("no libLLVM.so.* in {}", lib.display()))
}
