//! `cargo xtask deny`: licences, sources and bans of the dependencies always, advisories where their database is in reach, or
//! where they must be.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{cargo_tool, paths, process, test::NOT_CHECKED};

const VERSION: &str = "0.20.2";
/// Each has its own lock file.
const WORKSPACES: [&str; 3] = ["Cargo.toml", "oom-watcher-ebpf/Cargo.toml", "fuzz/Cargo.toml"];
/// With `required` in it, advisories that cannot be checked are a failure: set where the database is in reach for sure.
const ADVISORIES: &str = "OOM_WATCHER_ADVISORIES";

/// Checks every workspace against deny.toml.
pub(crate) fn run() -> Result<()> {
    let program = cargo_tool::provide("cargo-deny", VERSION)?;
    let with_advisories = match process::output(deny(&program, WORKSPACES[0]).args(["fetch", "db"])) {
        Ok(_) => true,
        Err(error) if required() => {
            return Err(error).with_context(|| format!("advisories cannot be checked, and {ADVISORIES} requires it"));
        }
        Err(error) => {
            let error = error.to_string();
            println!("{NOT_CHECKED}advisories: {}", error.lines().last().unwrap_or_default().trim());
            false
        }
    };
    for workspace in WORKSPACES {
        let mut check = deny(&program, workspace);
        // What one workspace has to skip or to except, the others do not have.
        check.args(["check", "--hide-inclusion-graph", "--allow", "unmatched-skip"]);
        check.args(["--allow", "license-exception-not-encountered", "licenses", "bans", "sources"]);
        if with_advisories {
            check.arg("advisories");
        }
        process::run(&mut check)?;
    }
    Ok(())
}

fn required() -> bool {
    env::var(ADVISORIES).is_ok_and(|value| value == "required")
}

fn deny(program: &PathBuf, workspace: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(paths::workspace()).args(["--all-features", "--manifest-path", workspace]);
    command
}
