//! `cargo xtask docs`: the pages that a machine writes, so that they cannot say what the code does not.
//!
//! The generators live beside what they describe, in the agent's library, and a test of theirs compares the committed pages
//! with what they give; this command runs that test, or has it write. The chart's pages are its own tool's
//! (`cargo xtask chart readme`), and `docs/kernel-support.md` is written from guests' results (`cargo xtask kernel-support`).

use anyhow::{Context as _, Result, bail};

use crate::{paths, process};

/// Whether the files are written or compared.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fail when a file is not what would be written, instead of writing it
    #[arg(long)]
    check: bool,
}

/// `cargo xtask docs`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut command = process::cargo();
    command.args(["test", "--quiet", "--package", "oom-watcher", "--lib", "docs::"]);
    command.current_dir(paths::workspace());
    if options.check {
        command.env_remove("UPDATE_DOCS");
    } else {
        command.env("UPDATE_DOCS", "1");
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the generated pages are not what the code says; run `cargo xtask docs` and commit the result");
    }
    Ok(())
}
