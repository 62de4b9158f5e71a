//! The kernel suite: real OOM kills, and what the real watcher says of them.
//!
//! It runs as root, on this machine or as the suite of a test guest, against the agent's binary as a user runs it: kills are
//! made in memory-limited cgroups of its own, events are read from standard output, counters from /metrics. A scenario that
//! a machine cannot have (no cgroup v2, not a guest) is printed with its reason and counted apart, never passed.
//!
//! Without arguments all scenarios run; arguments are parts of names; `--soak SECONDS [FILE]` is
//! one long run under mixed load instead, with its account. Plain `cargo test` does not run it: it needs root.

mod account;
mod cgroup;
mod command;
mod end;
mod hog;
mod hostile;
mod load;
mod machine;
mod memory;
mod nodes;
mod odd;
#[path = "../support/openmetrics.rs"]
mod openmetrics;
mod scenario;
mod session;
mod soak;
mod swap;
mod victims;
mod watcher;
mod world;

use std::{panic::AssertUnwindSafe, process::ExitCode, time::Instant};

use scenario::{Outcome, Scenario};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == hog::WORD) {
        return hog::main(&arguments[1..]);
    }
    if arguments.first().is_some_and(|first| first == hog::NAMESPACED) {
        return hog::become_in_namespace(&arguments[1..]);
    }
    if arguments.first().is_some_and(|first| first == soak::WORD) {
        return soak::main(&arguments[1..]);
    }
    // The end looks back at all before it and stops the watcher that they share; those after it have watchers of their own,
    // and would make kills that the shared one reports to nobody.
    let scenarios: Vec<Scenario> = [
        swap::SCENARIOS,
        victims::SCENARIOS,
        world::SCENARIOS,
        odd::SCENARIOS,
        command::SCENARIOS,
        memory::SCENARIOS,
        hostile::SCENARIOS,
        end::SCENARIOS,
        load::SCENARIOS,
        nodes::SCENARIOS,
    ]
    .concat();
    let chosen: Vec<&Scenario> = scenarios
        .iter()
        .filter(|scenario| arguments.is_empty() || arguments.iter().any(|part| scenario.name.contains(part.as_str())))
        .collect();
    machine::prepare();
    machine::describe();
    let (mut passed, mut failed, mut impossible) = (0, Vec::new(), 0);
    for scenario in chosen {
        let started = Instant::now();
        match run(scenario) {
            Outcome::Passed => {
                passed += 1;
                println!("scenario {}: ok, in {:.1} s", scenario.name, started.elapsed().as_secs_f64());
            }
            Outcome::Impossible(reason) => {
                impossible += 1;
                println!("scenario {} is not possible here: {reason}", scenario.name);
            }
            Outcome::Failed => failed.push(scenario.name),
        }
    }
    session::end();
    println!("{passed} passed, {} failed, {impossible} not possible here", failed.len());
    if failed.is_empty() && passed > 0 {
        ExitCode::SUCCESS
    } else {
        println!("failed: {}", failed.join(", "));
        ExitCode::FAILURE
    }
}

/// Runs one scenario; its panic is its failure.
fn run(scenario: &Scenario) -> Outcome {
    let outcome = match (scenario.possible)() {
        Err(reason) => Outcome::Impossible(reason),
        Ok(()) => match std::panic::catch_unwind(AssertUnwindSafe(scenario.run)) {
            Ok(()) => Outcome::Passed,
            Err(_) => Outcome::Failed,
        },
    };
    machine::result(scenario.name, &outcome);
    outcome
}
