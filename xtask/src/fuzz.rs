//! `cargo xtask fuzz`: each fuzz target for a while, on the inputs that are kept in `fuzz/corpus`.
//!
//! An input that breaks a target stays in `fuzz/artifacts`, and its name is the last thing printed.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cargo_tool, paths, process, toolchain::Nightly};

const VERSION: &str = "0.13.2";
/// Longest input of a target, where libFuzzer's own 4 KiB are too few: more than one of the largest records.
const LONG_INPUTS: [(&str, u32); 1] = [("record", 20_480)];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Keep what was found to be new in `fuzz/corpus`, cut down to what adds something
    #[arg(long)]
    keep: bool,
    /// Build without optimisation: sooner ready, but slower, for a short run
    #[arg(long)]
    dev: bool,
    /// The targets; none means all
    targets: Vec<String>,
}

/// Runs the targets one after another, and says at the end how often each ran. One that breaks stops no other.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = paths::workspace().join("fuzz");
    let all = targets(&folder.join("fuzz_targets"))?;
    let chosen = if options.targets.is_empty() { &all } else { &options.targets };
    for target in chosen {
        ensure!(all.contains(target), "there is no fuzz target {target}; there are {}", all.join(", "));
    }
    let fuzzer = Fuzzer {
        program: cargo_tool::provide("cargo-fuzz", VERSION)?,
        nightly: Nightly::provide()?,
        folder,
        dev: options.dev,
    };
    let mut table = format!("{:<12} {:>11} {:>8} {:>11}  outcome\n", "target", "runs", "seconds", "runs/second");
    let mut failed = 0;
    for target in chosen {
        let run = fuzzer.fuzz(target, options.seconds).and_then(|runs| {
            if options.keep {
                fuzzer.keep(target)?;
            }
            Ok(runs)
        });
        let (runs, seconds, per_second, outcome) = match run {
            Ok(Stats { runs, seconds, per_second }) => (runs, seconds, per_second, "clean".to_owned()),
            Err(error) => {
                failed += 1;
                (0, 0, 0, format!("FAILED: {error:#}"))
            }
        };
        writeln!(table, "{target:<12} {runs:>11} {seconds:>8} {per_second:>11}  {outcome}")?;
    }
    print!("{table}");
    println!("{} passed, {failed} failed", chosen.len() - failed);
    ensure!(failed == 0, "{failed} targets failed; their inputs are in fuzz/artifacts");
    Ok(())
}

/// What libFuzzer says at its end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stats {
    runs: u64,
    seconds: u64,
    per_second: u64,
}

impl Stats {
    /// Runs `command`, shows what it says, and takes its statistics out of it.
    fn of(command: &mut Command) -> Result<Self> {
        let shown = process::shown(command);
        eprintln!("$ {shown}");
        let mut child = command.stderr(Stdio::piped()).spawn().with_context(|| format!("cannot start `{shown}`"))?;
        let stderr = child.stderr.take().context("its standard error is piped")?;
        let mut stats = Self::default();
        for line in BufReader::new(stderr).lines() {
            let line = line.with_context(|| format!("cannot read what `{shown}` says"))?;
            eprintln!("{line}");
            stats.take(&line);
        }
        let ended = child.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
        if !ended.success() {
            bail!("`{shown}` failed: {ended}");
        }
        Ok(stats)
    }

    fn take(&mut self, line: &str) {
        let number = |name: &str| line.strip_prefix(name)?.trim().parse::<u64>().ok();
        self.runs = number("stat::number_of_executed_units:").unwrap_or(self.runs);
        self.per_second = number("stat::average_exec_per_sec:").unwrap_or(self.per_second);
        // "Done 524288 runs in 61 second(s)"
        let seconds = line.strip_prefix("Done ").and_then(|line| line.split(' ').nth(3)?.parse().ok());
        self.seconds = seconds.unwrap_or(self.seconds);
    }
}

/// The targets by the names of their files.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort_unstable();
    Ok(names)
}

struct Fuzzer {
    program: PathBuf,
    nightly: Nightly,
    folder: PathBuf,
    dev: bool,
}

impl Fuzzer {
    fn command(&self, target: &str) -> Command {
        let mut command = self.nightly.run(&self.program);
        command.current_dir(&self.folder).env("CARGO_TARGET_DIR", paths::target().join("fuzz")).args(["run", target]);
        // The fuzzed code has no `unsafe` but in aya, which it does not call: the address sanitizer would find nothing.
        command.args(["--sanitizer", "none"]);
        if self.dev {
            command.arg("--dev");
        }
        command
    }

    /// What is found goes beside the build; the kept corpus is read only.
    fn fuzz(&self, target: &str, seconds: u32) -> Result<Stats> {
        let found = Self::found(target);
        paths::make(&found)?;
        let mut command = self.command(target);
        command.arg(&found).arg(self.folder.join("corpus").join(target));
        command.args(["--", &format!("-max_total_time={seconds}"), "-timeout=10", "-print_final_stats=1"]);
        if let Some((_, length)) = LONG_INPUTS.iter().find(|(name, _)| *name == target) {
            command.arg(format!("-max_len={length}"));
        }
        let stats = Stats::of(&mut command)?;
        ensure!(stats.runs > 0, "libFuzzer did not say that it ran anything");
        Ok(stats)
    }

    /// Takes over what covers something that the kept inputs do not.
    fn keep(&self, target: &str) -> Result<()> {
        let kept = self.folder.join("corpus").join(target);
        paths::make(&kept)?;
        let mut command = self.command(target);
        command.arg(&kept).arg(Self::found(target)).args(["--", "-merge=1"]);
        if let Some((_, length)) = LONG_INPUTS.iter().find(|(name, _)| *name == target) {
            command.arg(format!("-max_len={length}"));
        }
        process::run(&mut command)
    }

    fn found(target: &str) -> PathBuf {
        paths::target().join("fuzz-corpus").join(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_taken_from_what_the_fuzzer_says() {
        let mut stats = Stats::default();
        for line in [
            "#2 INITED cov: 1",
            "Done 524288 runs in 61 second(s)",
            "stat::number_of_executed_units: 524288",
            "stat::average_exec_per_sec:     8595",
        ] {
            stats.take(line);
        }
        assert_eq!(stats, Stats { runs: 524_288, seconds: 61, per_second: 8595 });
    }
}
