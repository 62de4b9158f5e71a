//! `cargo xtask deny`: licences, sources and bans of the dependencies always, advisories where their database is in reach.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{cargo_tool, paths, process};

const VERSION: &str = "0.20.2";
/// Each has its own lock file.
const WORKSPACES: [&str; 2] = ["Cargo.toml", "oom-watcher-ebpf/Cargo.toml"];

/// Checks every workspace against deny.toml.
pub(crate) fn run() -> Result<()> {
    let program = cargo_tool::provide("cargo-deny", VERSION)?;
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
