//! The container suite: real OOM kills in containers of a real containerd, driven over CRI as the kubelet drives it, and
//! what the real agent says of them.
//!
//! It runs as root, for runc and for crun, in cgroups of its own under `/kubepods` and beside it; it has to be the only one who
//! has pods on the machine. Each scenario asserts the exact labels, and that the kernel, the lines and the metrics count the same
//! kills. Without arguments all scenarios run; arguments are parts of names, after `--handler NAME` only those of one runtime.
//! Plain `cargo test` does not run it: it needs root and containerd.

mod account;
#[path = "../kernel/cgroup.rs"]
#[expect(dead_code, reason = "the kernel suite makes cgroups too, this one only looks at them")]
mod cgroup;
mod containerd;
mod cri;
mod expect;
mod image;
mod kubelet;
#[path = "../kernel/machine.rs"]
#[expect(dead_code, reason = "the kernel suite asks more of the machine")]
mod machine;
mod plain;
mod pods;
#[path = "../kernel/scenario.rs"]
#[expect(dead_code, reason = "scenarios here have a stage")]
mod scenario;
mod scenarios;
#[path = "../kernel/watcher.rs"]
#[expect(dead_code, reason = "the kernel suite watches for more")]
mod watcher;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use account::Watch;
use containerd::{Containerd, HANDLERS};
use scenario::Outcome;
use scenarios::{SCENARIOS, Scenario, Stage};
use watcher::Watcher;

fn main() -> ExitCode {
    let mut parts: Vec<String> = std::env::args().skip(1).collect();
    let mut handlers: Vec<&str> = HANDLERS.to_vec();
    if let [flag, handler, ..] = &parts[..]
        && flag == "--handler"
    {
        handlers.retain(|known| known == handler);
        parts.drain(..2);
    }
    if let Err(reason) = containerd::possible() {
        println!("not possible here: {reason}");
        return ExitCode::FAILURE;
    }
    let containerd = Containerd::start();
    // One agent sees everything; what it says of names is not looked at.
    let all = Watch::new(Watcher::start());
    let (mut passed, mut failed) = (0, Vec::new());
    for handler in handlers {
        for scenario in SCENARIOS {
            let name = format!("{}-{handler}", scenario.name);
            if !parts.is_empty() && !parts.iter().any(|part| name.contains(part.as_str())) {
                continue;
            }
            let started = Instant::now();
            let stage = Stage { containerd: &containerd, handler, name };
            let outcome = play(scenario, &stage);
            machine::result(&stage.name, &outcome);
            match outcome {
                Outcome::Passed => {
                    passed += 1;
                    println!("{}: ok, in {:.1} s", stage.name, started.elapsed().as_secs_f64());
                }
                Outcome::Failed => failed.push(stage.name),
                Outcome::Impossible(reason) => println!("{} is not possible here: {reason}", stage.name),
            }
        }
    }
    failed.extend(over_all(all, parts.is_empty()));
    drop(containerd);
    print!("{}", expect::measurements());
    let word = if failed.is_empty() && passed > 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {} failed: {}", failed.len(), failed.join(", "));
    if word == "ok" { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A scenario, and the account of its kills when all that it made is gone.
fn play(scenario: &Scenario, stage: &Stage) -> Outcome {
    match (scenario.possible)() {
        Ok(()) => catch_unwind(AssertUnwindSafe(|| (scenario.run)(stage).settle()))
            .map_or(Outcome::Failed, |()| Outcome::Passed),
        Err(reason) => Outcome::Impossible(reason),
    }
}

/// What must hold over the whole run, by names of what does not.
fn over_all(all: Watch, everything: bool) -> Vec<String> {
    let mut failed = Vec::new();
    match expect::all_linked(everything) {
        Ok(summary) => println!("over all: {summary}"),
        Err(reason) => {
            println!("over all: FAILED: {reason}");
            failed.push("names over all".to_owned());
        }
    }
    match catch_unwind(AssertUnwindSafe(|| all.settle_all())) {
        Ok(summary) => println!("over all: {summary}"),
        Err(_) => failed.push("the account over all".to_owned()),
    }
    failed
}
