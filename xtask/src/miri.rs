//! What watches the agent's memory while its tests run: Miri where nothing but the code matters, the address sanitizer where the
//! kernel is needed.
//!
//! The agent's own `unsafe` is in its module `kernel`, and each block of it is a system call or memory that the kernel shares:
//! no interpreter has those. Miri holds what stands around them, and all code that bytes from outside go through; the sanitizer
//! holds the blocks themselves, in an agent that loads its programs and reports kills.

use std::{env, process::Command};

use anyhow::{Context as _, Result};

use crate::{paths, process, toolchain::Nightly};

/// Modules that take bytes or text and give values, without a file, a clock or a thread.
const PURE: &[&str] = &["cgroup::", "decode::", "escape::", "incident::", "kernel::btf::", "scope::"];
/// Cases of each property: an interpreter takes a thousand times as long as a processor.
const CASES: &str = "8";
/// Scenarios that go through every block of `unsafe`: kills, counters, requests, an orderly end, where leaks would show. Those that
/// weigh a victim are not among them, for the victims have the sanitizer too.
const SCENARIOS: &[&str] =
    &["ten-at-once", "memory-is-shared", "two-watchers", "no-secret-in-the-log", "nothing-was-missed"];

/// `cargo xtask miri`: unit tests of the pure modules in Miri, of the pinned nightly.
pub(crate) fn miri() -> Result<()> {
    let nightly = Nightly::provide()?;
    if !has_miri(&nightly) {
        let add = ["component", "add", "miri", "--toolchain", nightly.name()];
        process::run(Command::new("rustup").args(add)).with_context(|| {
            format!(
                "Miri is a component of {} that only rustup's servers have, and they are out of reach",
                nightly.name()
            )
        })?;
    }
    let mut command = nightly.cargo();
    command.current_dir(paths::workspace()).env("CARGO_TARGET_DIR", paths::target().join("miri"));
    // Fixtures are files, and proptest asks where it is.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", CASES);
    command.args(["miri", "test", "--package", "oom-watcher", "--lib", "--"]).args(PURE);
    process::run(&mut command)
}

fn has_miri(nightly: &Nightly) -> bool {
    ["cargo-miri", "miri"].iter().all(|program| nightly.sysroot().join("bin").join(program).is_file())
}

/// `cargo xtask asan`: all unit tests, and as root some real kills, with the address sanitizer.
pub(crate) fn asan() -> Result<()> {
    let nightly = Nightly::provide()?;
    process::run(sanitized(&nightly).args(["--lib"]))?;
    if process::is_root()? {
        let mut suite = sanitized(&nightly);
        // The sanitizer has system calls of its own.
        suite.env("SECCOMP", "off").args(["--test", "kernel", "--"]).args(SCENARIOS);
        process::run(&mut suite)?;
    } else {
        println!("{}the agent with its programs loaded: it needs root", crate::test::NOT_CHECKED);
    }
    Ok(())
}

fn sanitized(nightly: &Nightly) -> Command {
    // Named, though it is this machine's own: build scripts and macros are then built without the sanitizer.
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut command = nightly.cargo();
    command.current_dir(paths::workspace()).env("CARGO_TARGET_DIR", paths::target().join("asan"));
    command.env("RUSTFLAGS", "-Zsanitizer=address");
    command.args(["test", "--package", "oom-watcher", "--target", &target]);
    command
}
