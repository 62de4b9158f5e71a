//! Running other programs: every command is shown before it runs, and a failure names the command.
//!
//! Knows nothing of what the commands are for.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

/// What cargo says of this package to this program. A build script that looks at it (ring's does) would make each build from
/// here another one than those from a shell, and all that depends on it.
pub(crate) const OF_THIS_PACKAGE: [&str; 7] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
];

/// The cargo that started this program, as a shell would start it.
pub(crate) fn cargo() -> Command {
    of_no_package(Command::new(cargo_program()))
}

/// The same cargo, which waits for everybody else's work.
pub(crate) fn cargo_after_others() -> Command {
    let mut command = of_no_package(Command::new("nice"));
    command.args(["-n", "19"]).arg(cargo_program());
    command
}

fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn of_no_package(mut command: Command) -> Command {
    for name in OF_THIS_PACKAGE {
        command.env_remove(name);
    }
    command
}

/// The command as a person would type it, without its environment.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs `command` with this program's own output, and fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Standard output of `command`; its standard error is part of the error when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}\n{}", shown(command), String::from_utf8_lossy(&stderr).trim_end());
    }
    String::from_utf8(stdout).with_context(|| format!("`{}` wrote something that is not UTF-8", shown(command)))
}

/// Runs `producer | consumer`, the consumer by one of the functions above.
pub(crate) fn pipe<T>(
    producer: &mut Command,
    consumer: &mut Command,
    consume: fn(&mut Command) -> Result<T>,
) -> Result<T> {
    let spawned = producer.stdout(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("cannot start `{}`", shown(producer)))?;
    let stdout = child.stdout.take().context("the producer has no standard output")?;
    let result = consume(consumer.stdin(stdout));
    let status = child.wait().with_context(|| format!("cannot wait for `{}`", shown(producer)))?;
    let result = result?;
    ensure!(status.success(), "`{}` failed: {status}", shown(producer));
    Ok(result)
}

/// Whether `program` is on the search path.
pub(crate) fn found(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// SHA-256 of a file in hexadecimal, by coreutils.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let text = output(Command::new("sha256sum").arg("--").arg(file))?;
    let sum = text.split_whitespace().next().with_context(|| format!("no sum for {}", file.display()))?;
    Ok(sum.to_owned())
}

/// Whether this program runs as root.
pub(crate) fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim_end() == "0")
}
