//! What the agent takes of the machine while it starts: a limit that holds in guests as on a node, whatever their speed.

use std::fs;

use crate::{machine, scenario::Scenario, watcher::Watcher};

/// The most that starting may take: half of the chart's limit. Parsing the whole of the kernel's BTF into a tree takes more.
/// The guests' build, on kernels with 5 MB of BTF, comes to 25 MB.
const PEAK_MAX_KB: u64 = 32 << 10;

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario { name: "the-start-is-small", possible: optimised, run: the_start_is_small }];

/// Guests have the agent as the compiler makes it for them; beside the suite on a developer's machine it is as quick to build as
/// can be, and its unoptimised code alone takes 9 MiB more.
fn optimised() -> Result<(), String> {
    if machine::in_guest() { Ok(()) } else { Err("the agent is not optimised here; only in a guest".to_owned()) }
}

/// The peak of memory is that of our own reading of BTF, and no file limit is left behind by the loading.
fn the_start_is_small() {
    let watcher = Watcher::start();
    let peak: u64 = line_of(&watcher, "status", "VmHWM:").trim_end_matches(" kB").trim().parse().expect("a number");
    println!("peak of resident memory: {peak} kB");
    assert!(peak <= PEAK_MAX_KB, "the start took {peak} kB");
    let limit = line_of(&watcher, "limits", "Max open files");
    let soft = limit.split_whitespace().next().expect("a soft limit");
    assert_ne!(soft, "0", "{limit}");
}

/// What a line of a file of its `/proc` directory says.
#[track_caller]
fn line_of(watcher: &Watcher, file: &str, name: &str) -> String {
    let path = format!("/proc/{}/{file}", watcher.pid());
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{path} has no {name}:\n{text}")).trim().to_owned()
}
