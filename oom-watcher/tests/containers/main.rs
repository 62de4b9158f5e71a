//! The container suite: real OOM kills in containers of a real containerd, driven over CRI as the kubelet drives it, and
//! what the real agent says of them.
//!
//! It runs as root, for runc and for crun, in pods of its own under `/kubepods`; it has to be the only one who has pods on
//! the machine. Each scenario asserts the exact labels, and that every kill is reported once. Without arguments all
//! scenarios run; arguments are parts of names. Plain `cargo test` does not run it: it needs root and containerd.

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
};

use containerd::{Containerd, HANDLERS};
use scenario::Outcome;
use scenarios::{SCENARIOS, Scenario, Stage};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(reason) = containerd::possible() {
        println!("not possible here: {reason}");
        return ExitCode::FAILURE;
    }
    let (mut passed, mut failed) = (0, Vec::new());
    let containerd = Containerd::start();
    for handler in HANDLERS {
        for scenario in SCENARIOS {
            let name = format!("{}-{handler}", scenario.name);
            if !arguments.is_empty() && !arguments.iter().any(|part| name.contains(part.as_str())) {
                continue;
            }
            let stage = Stage { containerd: &containerd, handler, name };
            let outcome = play(scenario, &stage);
            machine::result(&stage.name, &outcome);
            match outcome {
                Outcome::Passed => passed += 1,
                Outcome::Failed => failed.push(stage.name),
                Outcome::Impossible(reason) => println!("{} is not possible here: {reason}", stage.name),
            }
        }
    }
    // A scenario that has failed may have left kills that nobody looked at.
    match expect::over_all(pods::all_kills().filter(|_| failed.is_empty())) {
        Ok(summary) => println!("over all: {summary}"),
        Err(reason) => {
            println!("over all: FAILED: {reason}");
            failed.push("over all".to_owned());
        }
    }
    drop(containerd);
    print!("{}", expect::measurements());
    let word = if failed.is_empty() && passed > 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {} failed: {}", failed.len(), failed.join(", "));
    if word == "ok" { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play(scenario: &Scenario, stage: &Stage) -> Outcome {
    match (scenario.possible)() {
        Ok(()) => {
            catch_unwind(AssertUnwindSafe(|| (scenario.run)(stage))).map_or(Outcome::Failed, |()| Outcome::Passed)
        }
        Err(reason) => Outcome::Impossible(reason),
    }
}
