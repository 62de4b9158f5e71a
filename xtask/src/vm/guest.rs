//! The programs of a guest, built static so that a guest needs no library.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::kernels::Arch;
use crate::{process, toolchain::Nightly};

/// Between development (slow under emulation) and release (slow to build).
const PROFILE: &str = "guest";

/// A program and its place in the guest.
pub(crate) struct Program {
    /// Without the leading slash.
    pub(crate) path: &'static str,
    pub(crate) file: PathBuf,
}

/// Builds the first process of a guest of `arch`.
pub(crate) fn init(arch: Arch) -> Result<Program> {
    let built = artifacts(arch, &["build", "--package", "vm-init"])?;
    Ok(Program { path: "init", file: executable(&built, "vm-init", "bin")? })
}

/// Builds what a guest of `arch` consists of: the first process, the agent, and the agent's integration test of the kernel.
pub(crate) fn build(arch: Arch) -> Result<Vec<Program>> {
    // It builds the agent too, as for every integration test.
    let suite = artifacts(arch, &["test", "--no-run", "--package", "oom-watcher", "--test", "kernel"])?;
    Ok(vec![
        init(arch)?,
        Program { path: "bin/oom-watcher", file: executable(&suite, "oom-watcher", "bin")? },
        Program { path: "suite/kernel", file: executable(&suite, "kernel", "test")? },
    ])
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
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    if arch.rust() != env::consts::ARCH {
        let variable = format!("CARGO_TARGET_{}_LINKER", arch.triple().to_uppercase().replace('-', "_"));
        command.env(variable, format!("{}-linux-gnu-gcc", arch.rust()));
    }
    Ok(command)
}

fn has_std(arch: Arch) -> Result<bool> {
    let folder = process::output(Command::new("rustc").args(["--print", "target-libdir", "--target", &arch.triple()]))?;
    Ok(Path::new(folder.trim_end()).is_dir())
}
