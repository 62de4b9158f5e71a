//! Programs that cargo installs: pinned, and built once into the cache.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{paths, process};

/// The program of crate `name` from the cache, built (a minute or two) when it is not there. Unoptimised: one that runs for
/// seconds is not worth the minutes that optimising it takes.
pub(crate) fn provide(name: &str, version: &str) -> Result<PathBuf> {
    let root = paths::cache(name)?.join(version);
    let program = root.join("bin").join(name);
    if !program.is_file() {
        eprintln!("building {name} {version} into {}", root.display());
        let mut install = Command::new("cargo");
        install.args(["install", name, "--version", version, "--locked", "--debug", "--no-track", "--root"]).arg(&root);
        install.env_remove("CARGO_TARGET_DIR");
        process::run(&mut install).with_context(|| format!("cannot build {name}"))?;
    }
    Ok(program)
}
