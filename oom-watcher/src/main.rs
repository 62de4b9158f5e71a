//! The command `oom-watcher`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use oom_watcher::{cli::Cli, command};

fn main() -> ExitCode {
    Cli::try_parse().map_or_else(|error| command::refuse(&error), |cli| command::execute(&cli))
}
