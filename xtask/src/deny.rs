//! `cargo xtask deny`: licences, sources and bans of the dependencies always, advisories where their database is in reach.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{paths, process};

const VERSION: &str = "0.20.2";
/// Each has its own lock file.
const WORKSPACES: [&str; 2] = ["Cargo.toml", "oom-watcher-ebpf/Cargo.toml"];

/// Checks every workspace against deny.toml.
pub(crate) fn run() -> Result<()> {
    let program = provide()?;
    let with_advisories = match process::output(deny(&program, WORKSPACES[0]).args(["fetch", "db"])) {
        Ok(_) => true,
        Err(error) => {
            let error = error.to_string();
            println!("ADVISORIES ARE NOT CHECKED: {}", error.lines().last().unwrap_or_default());
            false
        }
    };
    for workspace in WORKSPACES {
        let mut check = deny(&program, workspace);
        // What one workspace has to skip, the other does not have.
        check.args(["check", "--hide-inclusion-graph", "--allow", "unmatched-skip", "licenses", "bans", "sources"]);
        if with_advisories {
            check.arg("advisories");
        }
        process::run(&mut check)?;
    }
    Ok(())
}

fn deny(program: &PathBuf, workspace: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(paths::workspace()).args(["--all-features", "--manifest-path", workspace]);
    command
}

/// The program from the cache, built (some minutes) when it is not there.
fn provide() -> Result<PathBuf> {
    let root = paths::cache("cargo-deny")?.join(VERSION);
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        eprintln!("building cargo-deny {VERSION} into {}", root.display());
        let mut install = Command::new("cargo");
        install.args(["install", "cargo-deny", "--version", VERSION, "--locked", "--no-track", "--root"]).arg(&root);
        install.env_remove("CARGO_TARGET_DIR");
        process::run(&mut install).context("cannot build cargo-deny")?;
    }
    Ok(program)
}
