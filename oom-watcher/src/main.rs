//! The command `oom-watcher`.

use std::process::ExitCode;

use clap::Parser as _;
use oom_watcher::{cli::Cli, command};

fn main() -> ExitCode {
    command::execute(&Cli::parse())
}
