//! The command line's verbs: which one runs, and how its end is told.

use std::{error::Error, io, process::ExitCode};

use crate::{
    check,
    cli::{self, Cli, Command},
    config::{self, Config, Surroundings},
    drill,
    error::chain,
    escape::Escaped,
    log, run,
};

/// The exit status for a command line that is none, as most programs have it.
const USAGE: u8 = 2;

/// Runs what the command line asks for; an error goes to standard error with all its causes.
pub fn execute(cli: &Cli) -> ExitCode {
    // What this machine gives is for a person unless asked otherwise, also in a pipe.
    let json = cli.options.output.as_deref() == Some("json");
    let outcome = match &cli.command {
        Some(Command::Completions { shell }) => {
            cli::write_completions(*shell, &mut io::stdout());
            return ExitCode::SUCCESS;
        }
        Some(Command::DrillVictim) => return drill::victim(),
        Some(Command::Check) => configure(cli).and_then(|config| check::check(&config, json).map_err(Into::into)),
        Some(Command::Drill { timeout }) => configure(cli).and_then(|config| {
            let timeout = config::drill_timeout(timeout)?;
            drill::drill(&config, timeout)?;
            Ok(ExitCode::SUCCESS)
        }),
        None => configure(cli).and_then(|config| {
            run::run(&config)?;
            Ok(ExitCode::SUCCESS)
        }),
    };
    outcome.unwrap_or_else(|error| {
        // Paths, names and other programs' words are in it.
        eprintln!("oom-watcher: {}", Escaped(&chain(&*error)));
        ExitCode::FAILURE
    })
}

/// What to do with a command line that is none: help goes to standard output; what is wrong goes to standard error, with
/// nothing of what was typed that a terminal could act on.
pub fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Who reads only its beginning has what was asked for.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    for line in error.render().to_string().lines() {
        eprintln!("{}", Escaped(line));
    }
    ExitCode::from(USAGE)
}

fn configure(cli: &Cli) -> Result<Config, Box<dyn Error>> {
    let config = Config::new(&cli.options, &Surroundings::detect())?;
    let filter = log::filter(&config.log_filter)?;
    log::start(filter);
    Ok(config)
}
