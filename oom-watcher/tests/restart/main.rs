//! The restart suite: what becomes of kills when the watcher ends, dies, is replaced, starved, stopped or confined.
//!
//! As the kernel suite it runs as root against the agent's binary, with real kills in cgroups of its own; and in a mount
//! namespace of its own, with a BPF file system and small disks that nobody else sees. Unexpected system calls end the agent
//! here (`--seccomp kill`). Arguments are parts of names of scenarios; plain `cargo test` does not run it.

mod agent;
#[expect(dead_code, reason = "shared with the kernel suite, which uses all of it")]
#[path = "../kernel/cgroup.rs"]
mod cgroup;
mod faults;
mod foreign;
#[expect(dead_code, reason = "shared with the kernel suite, which uses all of it")]
#[path = "../kernel/hog.rs"]
mod hog;
mod kills;
mod machine;
mod own;
mod pinned;
mod power;
mod state;
mod told;
mod tracer;
mod update;
mod world;

use std::{panic::AssertUnwindSafe, process::ExitCode};

/// One thing that can happen to a watcher; a panic is a failure.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    /// Why this machine cannot have it.
    impossible: fn() -> Option<&'static str>,
    run: fn(),
}

/// A scenario that any machine can have.
const fn anywhere(name: &'static str, run: fn()) -> Scenario {
    Scenario { name, impossible: || None, run }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(hog::WORD) => return hog::main(&arguments[1..]),
        Some(power::WORD) => return power::main(&arguments[1..]),
        _ => {}
    }
    world::enter();
    let scenarios: Vec<Scenario> = [
        state::SCENARIOS,
        pinned::SCENARIOS,
        update::SCENARIOS,
        told::SCENARIOS,
        power::SCENARIOS,
        faults::SCENARIOS,
        own::SCENARIOS,
    ]
    .concat();
    let chosen = |name: &str| arguments.is_empty() || arguments.iter().any(|part| name.contains(part.as_str()));
    let (mut passed, mut failed, mut not_here) = (0, Vec::new(), 0);
    for Scenario { name, impossible, run } in scenarios.into_iter().filter(|scenario| chosen(scenario.name)) {
        if let Some(reason) = impossible() {
            println!("{name}: not possible here: {reason}");
            not_here += 1;
            continue;
        }
        let started = std::time::Instant::now();
        let ended = std::panic::catch_unwind(AssertUnwindSafe(run));
        println!(
            "{name}: {} in {:.1} s",
            if ended.is_ok() { "passed" } else { "FAILED" },
            started.elapsed().as_secs_f32()
        );
        match ended {
            Ok(()) => passed += 1,
            Err(_) => failed.push(name),
        }
    }
    println!("{passed} passed, {} failed, {not_here} not possible here", failed.len());
    if failed.is_empty() && passed > 0 {
        ExitCode::SUCCESS
    } else {
        println!("failed: {}", failed.join(", "));
        ExitCode::FAILURE
    }
}
