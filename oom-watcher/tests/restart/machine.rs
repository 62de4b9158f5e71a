//! What this machine is, and what it cannot have.

use std::{process::Command, sync::OnceLock};

use serde_json::Value;

use crate::agent;

/// A guest has nothing but the suite: its clock may be set.
pub(crate) fn in_guest() -> bool {
    std::fs::exists("/suite").unwrap_or(false)
}

/// The reason why a scenario is not for another machine than a guest.
pub(crate) fn not_a_guest() -> Option<&'static str> {
    (!in_guest()).then_some("it is the machine's clock; only in a guest")
}

/// The reason why a cgroup cannot be killed as a group.
pub(crate) fn no_groups() -> Option<&'static str> {
    let v2 = std::fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false);
    (!v2).then_some("memory.oom.group is of cgroup v2")
}

/// The reason why hooks cannot be pinned.
pub(crate) fn unpinnable() -> Option<&'static str> {
    has_unpinnable_probes().then_some("a hook is a probe, which kernels before 5.15 do not pin")
}

/// The reason why all hooks can be pinned.
pub(crate) fn pinnable() -> Option<&'static str> {
    (!has_unpinnable_probes()).then_some("every hook can be pinned; only where one is a probe before Linux 5.15")
}

/// Whether a hook is a kprobe on a kernel in which that is no link (before 5.15).
fn has_unpinnable_probes() -> bool {
    static PROBES: OnceLock<bool> = OnceLock::new();
    *PROBES.get_or_init(|| {
        let output =
            Command::new(agent::binary()).args(["check", "--output", "json"]).output().expect("the agent runs");
        let check: Value = serde_json::from_slice(&output.stdout).expect("check prints JSON");
        let hooks = check["hooks"].as_array().expect("check lists the hooks");
        hooks.iter().any(|hook| hook["attached"] == "kprobe") && kernel() < (5, 15)
    })
}

/// Version and patch level.
fn kernel() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map(|number| number.parse().expect("a version has numbers"));
    (numbers.next().expect("a version"), numbers.next().expect("a patch level"))
}
