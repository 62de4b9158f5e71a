//! `cargo xtask fuzz`: each fuzz target for a while, on the inputs that are kept in `fuzz/corpus` and in the fixtures.
//!
//! An input that breaks a target stays in `fuzz/artifacts`, and its name is the last thing printed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{cargo_tool, paths, process, toolchain::Nightly};

const VERSION: &str = "0.13.2";
/// Longest input of a target, where libFuzzer's own 4 KiB are too few: two of the largest records; an excerpt of BTF.
const LONG_INPUTS: [(&str, u32); 2] = [("record", 20_480), ("btf", 131_072)];
/// Inputs that tests have anyway: one target starts from them.
const FIXTURES: (&str, &str) = ("btf", "oom-watcher/tests/fixtures/btf");

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

/// Runs the targets one after another.
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
    for target in chosen {
        fuzzer.fuzz(target, options.seconds)?;
        if options.keep {
            fuzzer.keep(target)?;
        }
    }
    println!("{} passed, 0 failed", chosen.len());
    Ok(())
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
    fn fuzz(&self, target: &str, seconds: u32) -> Result<()> {
        let found = Self::found(target);
        paths::make(&found)?;
        let mut command = self.command(target);
        command.arg(&found).arg(self.folder.join("corpus").join(target));
        if target == FIXTURES.0 {
            command.arg(paths::workspace().join(FIXTURES.1));
        }
        command.args(["--", &format!("-max_total_time={seconds}"), "-timeout=10", "-print_final_stats=1"]);
        if let Some((_, length)) = LONG_INPUTS.iter().find(|(name, _)| *name == target) {
            command.arg(format!("-max_len={length}"));
        }
        process::run(&mut command)
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
