//! The first process of a test guest: mounts what a Linux machine has, runs every file of `/suite` with its own arguments,
//! says one verdict and powers off.
//!
//! The harness reads the verdict from the console and nothing else, so it is one line, printed exactly once. This program
//! knows nothing of what a suite tests.

#![forbid(unsafe_code)]

mod machine;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    process::{Pid, WaitOptions, WaitStatus},
    system::RebootCommand,
};

const SUITES: &str = "/suite";
/// What every suite is started with. A system call that the agent's filter should allow, and does not, ends the agent: with an
/// error number it might go unseen.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", "/usr/sbin:/usr/bin:/bin"),
    ("HOME", "/"),
    ("TMPDIR", "/tmp"),
    ("RUST_BACKTRACE", "1"),
    ("SECCOMP", "kill"),
];

fn main() -> Result<()> {
    ensure!(rustix::process::getpid().is_init(), "vm-init is the first process of a test guest and nothing else");
    // On a line of its own: the kernel may have printed before.
    println!("\nvm-init started");
    let verdict = match run() {
        Ok(()) => "success".to_owned(),
        Err(error) => {
            machine::print_kernel_log();
            format!("failure: {error:#}")
        }
    };
    // On a line of its own, whatever the suite ended with.
    println!("\nvm-init: {verdict}");
    // The power goes before the serial line is done otherwise.
    let _ = rustix::termios::tcdrain(io::stdout());
    rustix::system::reboot(RebootCommand::PowerOff).context("cannot power off")
}

fn run() -> Result<()> {
    machine::prepare()?;
    let suites = suites()?;
    ensure!(!suites.is_empty(), "{SUITES} is empty");
    let mut failures = Vec::new();
    for suite in &suites {
        if let Err(error) = run_suite(suite) {
            failures.push(format!("{error:#}"));
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("; "));
    }
    Ok(())
}

fn suites() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(SUITES).with_context(|| format!("cannot list {SUITES}"))?;
    let files: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut files = files.with_context(|| format!("cannot list {SUITES}"))?;
    files.sort();
    Ok(files)
}

/// Runs one suite; the kernel passes on the arguments that follow `--` on its command line.
fn run_suite(suite: &Path) -> Result<()> {
    let mut command = Command::new(suite);
    command.args(std::env::args_os().skip(1));
    command.envs(ENVIRONMENT);
    let child = command.spawn().with_context(|| format!("cannot start {}", suite.display()))?;
    let status = wait_for(Pid::from_child(&child))?;
    if status.exit_status() != Some(0) {
        let name = suite.display();
        match status.terminating_signal() {
            Some(signal) => bail!("{name} was killed by signal {signal}"),
            None => bail!("{name} exited with status {}", status.exit_status().unwrap_or(-1)),
        }
    }
    Ok(())
}

/// Waits for `wanted` and meanwhile for every orphan: nobody else can, and a zombie would stay in what a test counts.
fn wait_for(wanted: Pid) -> Result<WaitStatus> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == wanted => return Ok(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the suite"),
        }
    }
}
