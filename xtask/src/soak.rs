//! `cargo xtask soak`: the kernel suite's long run, on the release build that users have.

use std::process::Command;

use anyhow::Result;

use crate::{paths, process};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long
    #[arg(long, default_value_t = 60)]
    minutes: u32,
}

/// Runs it, as root; it fails when the account does not close.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(paths::workspace());
    command.args(["test", "--release", "--package", "oom-watcher", "--test", "kernel", "--", "--soak"]);
    process::run(command.arg(options.minutes.to_string()))
}
