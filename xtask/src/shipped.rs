//! The static program of this machine's architecture, compiled as Dockerfile.production compiles it: what is measured and what a
//! release carries are the same.

use std::path::PathBuf;

use anyhow::Result;

use crate::{paths, process, toolchain::STATIC, vm::kernels::Arch};

/// Builds the program of a package, on its own: another package beside it could switch on features that ship in none.
pub(crate) fn build(package: &str) -> Result<PathBuf> {
    let target = Arch::own().triple();
    let mut cargo = process::cargo();
    cargo.args(["build", "--release", "--locked", "--package", package, "--target", &target]);
    process::run(cargo.env("RUSTFLAGS", flags()?).current_dir(paths::workspace()))?;
    Ok(paths::target().join(target).join("release").join(package))
}

/// Static, and without the paths of this machine: those of cargo's registry are part of the program's size.
fn flags() -> Result<String> {
    let home = paths::cargo_home()?;
    let cut = [home.as_path(), paths::workspace()].map(|path| format!("--remap-path-prefix={}=", path.display()));
    Ok(format!("{STATIC} {}", cut.join(" ")))
}
