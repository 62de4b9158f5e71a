//! `cargo xtask soak`: the kernel suite's long runs, on the release build that users have.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{paths, process};

/// Where the suite takes the length of its crash loop from.
const CRASH_LOOP_SECONDS: &str = "OOM_WATCHER_CRASH_LOOP_SECONDS";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long; an hour, or five minutes of a crash loop
    #[arg(long)]
    minutes: Option<u32>,
    /// How long, in seconds instead
    #[arg(long, conflicts_with = "minutes")]
    seconds: Option<u32>,
    /// A crash loop instead of mixed load: 50 kills a second in four containers; it fails where the machine makes fewer
    #[arg(long)]
    crash_loop: bool,
}

/// Runs it, as root; it fails when the account does not close.
pub(crate) fn run(options: &Options) -> Result<()> {
    let minutes = options.minutes.unwrap_or(if options.crash_loop { 5 } else { 60 });
    let seconds = options.seconds.unwrap_or(minutes * 60);
    if options.crash_loop {
        return process::run(suite().env(CRASH_LOOP_SECONDS, seconds.to_string()).arg("crash-loop"));
    }
    let file = paths::make(&paths::target())?.join("soak.md");
    // What a run before has left must not pass for this one's.
    if file.exists() {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    let ran = process::run(suite().arg("--soak").arg(seconds.to_string()).arg(&file));
    println!("the account is in {}", file.display());
    ran
}

fn suite() -> Command {
    let mut command = process::cargo();
    command.current_dir(paths::workspace());
    // A system call that the agent's filter should allow, and does not, must not go unseen.
    command.env("SECCOMP", "kill");
    command.args(["test", "--release", "--package", "oom-watcher", "--test", "kernel", "--"]);
    command
}
