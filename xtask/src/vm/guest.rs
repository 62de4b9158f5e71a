//! What a guest runs: its first process, the agent and one suite, all of them static.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    initramfs::{Content, Entry},
    kernels::Arch,
    runtimes,
};
use crate::{
    process,
    toolchain::{Nightly, STATIC, linker_variable},
};

/// Between development (slow under emulation) and release (slow to build).
const PROFILE: &str = "guest";

/// The tests that a guest runs.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suite {
    /// Kills in cgroups of the suite's own
    Kernel,
    /// A watcher that ends, is replaced, starved, stopped or confined
    Restart,
    /// Kills in containers of Debian's containerd, runc and crun
    Containers,
}

impl Suite {
    /// The agent's integration test.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Restart => "restart",
            Self::Containers => "containers",
        }
    }

    /// The guests that it is run in, each with arguments of its own: the container suite lasts long under emulation, and its
    /// runtimes have nothing to do with one another.
    pub(crate) const fn parts(self) -> &'static [Part] {
        match self {
            Self::Kernel | Self::Restart => &[Part { name: "", arguments: &[] }],
            Self::Containers => &[
                Part { name: "-runc", arguments: &["--handler", "runc"] },
                Part { name: "-crun", arguments: &["--handler", "crun"] },
            ],
        }
    }

    /// What its guest's machine has, in MiB. The kernel suite's hundred cgroups have 400 together, and a process of each as much
    /// again in the kernel. containerd and what it starts lie in memory, and so does the image.
    pub(crate) const fn memory(self) -> u32 {
        match self {
            Self::Kernel | Self::Restart => 1024,
            Self::Containers => 2048,
        }
    }
}

/// What one guest runs of a suite.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// Told apart by this in names of files.
    pub(crate) name: &'static str,
    pub(crate) arguments: &'static [&'static str],
}

/// Builds the first process of a guest of `arch`.
pub(crate) fn init(arch: Arch) -> Result<Entry> {
    let built = artifacts(arch, &["build", "--package", "vm-init"])?;
    Ok(Entry { path: "init".to_owned(), content: Content::Program(executable(&built, "vm-init", "bin")?) })
}

/// Builds or gets what the root file system of a guest of `arch` holds.
pub(crate) fn build(arch: Arch, suite: Suite) -> Result<Vec<Entry>> {
    // It builds the agent too, as for every integration test.
    let test = artifacts(arch, &["test", "--no-run", "--package", "oom-watcher", "--test", suite.name()])?;
    let programs = [
        ("bin/oom-watcher".to_owned(), executable(&test, "oom-watcher", "bin")?),
        (format!("suite/{}", suite.name()), executable(&test, suite.name(), "test")?),
    ];
    let mut entries = vec![init(arch)?];
    entries.extend(programs.map(|(path, file)| Entry { path, content: Content::Program(file) }));
    if suite == Suite::Containers {
        entries.extend(runtimes::provide(arch)?);
    }
    Ok(entries)
}

/// Runs cargo and gives its messages.
fn artifacts(arch: Arch, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = cargo(arch)?;
    command.args(arguments);
    command.args(["--profile", PROFILE, "--target", &arch.triple(), "--message-format", "json-render-diagnostics"]);
    if !has_std(arch)? {
        command.args(["-Z", "build-std=std"]);
    }
    let text = process::output(command.stderr(Stdio::inherit()))?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("cargo wrote {line:?}"))).collect()
}

fn executable(messages: &[Value], name: &str, kind: &str) -> Result<PathBuf> {
    let is_wanted = |message: &&Value| message["target"]["name"] == name && message["target"]["kind"][0] == kind;
    let file = messages.iter().filter(is_wanted).find_map(|message| message["executable"].as_str());
    Ok(file.with_context(|| format!("cargo built no {kind} {name}"))?.into())
}

/// Cargo of the toolchain in use where it has a standard library for `arch`, else of the pinned nightly, which builds one.
fn cargo(arch: Arch) -> Result<Command> {
    let mut command = if has_std(arch)? {
        Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    } else {
        Nightly::provide()?.cargo()
    };
    command.env("RUSTFLAGS", STATIC);
    if arch.rust() != env::consts::ARCH {
        command.env(linker_variable(&arch.triple()), format!("{}-linux-gnu-gcc", arch.rust()));
    }
    Ok(command)
}

fn has_std(arch: Arch) -> Result<bool> {
    let folder = process::output(Command::new("rustc").args(["--print", "target-libdir", "--target", &arch.triple()]))?;
    Ok(Path::new(folder.trim_end()).is_dir())
}
