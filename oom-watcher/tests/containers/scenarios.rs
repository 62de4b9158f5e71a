//! The table of scenarios, and what they have in common. Each makes kills and asserts what the agent must say of them; the
//! account of all kills is settled after it.

mod cgroups;
mod limits;
mod moments;
mod names;
mod ordinary;

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    account::Watch,
    cgroup,
    containerd::Containerd,
    kubelet::{Kubelet, Spec},
    machine,
    scenario::anywhere,
    watcher::Watcher,
};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 20 * MIB;
/// Takes memory until it is killed, at once.
const HOG: &str = "exec tail /dev/zero";
/// The same, when it has long had its link.
const LATER: &str = "sleep 0.5; exec tail /dev/zero";
/// The same, when the suite says so.
const ON_SIGNAL: &str = "read go < /shared/gate; exec tail /dev/zero";
const IDLE: &str = "exec sleep 1000";

/// One scenario, for each runtime.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Whether this machine can have it; the reason why not.
    pub(crate) possible: fn() -> Result<(), String>,
    /// Its agent comes back, and the account with it.
    pub(crate) run: fn(&Stage) -> Watch,
}

/// Where a scenario plays.
pub(crate) struct Stage<'a> {
    pub(crate) containerd: &'a Containerd,
    pub(crate) handler: &'static str,
    /// The scenario's name with the runtime's.
    pub(crate) name: String,
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "one-container", possible: anywhere, run: ordinary::one_container },
    Scenario { name: "guaranteed", possible: anywhere, run: ordinary::guaranteed },
    Scenario { name: "a-child-only", possible: anywhere, run: ordinary::a_child_only },
    Scenario { name: "a-whole-container", possible: cgroup::v2, run: ordinary::a_whole_container },
    Scenario { name: "init-and-ephemeral", possible: anywhere, run: ordinary::init_and_ephemeral },
    Scenario { name: "thirty-at-once", possible: anywhere, run: ordinary::thirty_at_once },
    Scenario { name: "at-the-start", possible: anywhere, run: moments::at_the_start },
    Scenario { name: "before-the-link", possible: anywhere, run: moments::before_the_link },
    Scenario { name: "in-the-sandbox", possible: anywhere, run: moments::in_the_sandbox },
    Scenario { name: "restart-loop", possible: anywhere, run: moments::restart_loop },
    Scenario { name: "pod-removed-at-once", possible: anywhere, run: moments::pod_removed_at_once },
    Scenario { name: "the-clock-is-set", possible: machine_whose_clock_may_be_set, run: moments::the_clock_is_set },
    Scenario { name: "the-pods-limit", possible: anywhere, run: limits::the_pods },
    Scenario { name: "the-qos-levels-limit", possible: anywhere, run: limits::the_qos_levels },
    Scenario { name: "the-limit-of-all-pods", possible: anywhere, run: limits::of_all_pods },
    Scenario { name: "the-workloads-own-limit", possible: anywhere, run: limits::the_workloads_own },
    Scenario { name: "a-static-pod", possible: anywhere, run: cgroups::a_static_pod },
    Scenario { name: "systemd-driver", possible: anywhere, run: cgroups::systemd_driver },
    Scenario { name: "mismatched-drivers", possible: anywhere, run: cgroups::mismatched_drivers },
    Scenario { name: "outside-of-pods", possible: anywhere, run: cgroups::outside_of_pods },
    Scenario { name: "a-long-name", possible: anywhere, run: names::a_long_name },
    Scenario { name: "nobody-knows-it", possible: anywhere, run: names::nobody_knows_it },
    Scenario { name: "a-sibling-is-known", possible: anywhere, run: names::a_sibling_is_known },
    Scenario { name: "the-runtime-knows-it", possible: anywhere, run: names::the_runtime_knows_it },
    Scenario { name: "an-unruly-directory", possible: anywhere, run: names::an_unruly_directory },
    Scenario { name: "zero-series", possible: anywhere, run: names::zero_series },
];

fn machine_whose_clock_may_be_set() -> Result<(), String> {
    if machine::in_guest() { Ok(()) } else { Err("the clock of a machine in use is not set".to_owned()) }
}

impl Stage<'_> {
    fn kubelet(&self) -> Kubelet<'_> {
        Kubelet::new(self.containerd, self.handler)
    }

    #[track_caller]
    fn kills(&self, watch: &Watch, count: usize) -> Vec<Value> {
        watch.kills(&self.name, count)
    }

    #[track_caller]
    fn kill(&self, watch: &Watch) -> Value {
        self.kills(watch, 1).remove(0)
    }
}

/// An agent that has the links, as by default.
#[track_caller]
fn watch(kubelet: &Kubelet) -> Watch {
    watch_with(kubelet, &[])
}

#[track_caller]
fn watch_with(kubelet: &Kubelet, arguments: &[&str]) -> Watch {
    let links = kubelet.links();
    let links = links.to_str().expect("the suite's own paths are text");
    Watch::new(Watcher::start_with(&[&["--container-log-dir", links], arguments].concat()))
}

fn spec<'a>(name: &'a str, script: &'a str) -> Spec<'a> {
    Spec { name, script, limit: Some(LIMIT) }
}

/// How often something is tried that takes seconds in an emulated machine.
fn rounds(here: u32, in_a_guest: u32) -> u32 {
    if machine::in_guest() { in_a_guest } else { here }
}

/// Waits for what must come to be; how long it may take is that of a machine with far more work than CPUs.
#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never comes to be: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Median and maximum, in words.
fn spread(what: &str, mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    match values[..] {
        [] => format!("{what}: never"),
        [shortest, ..] => {
            let (median, longest) = (values[values.len() / 2], values[values.len() - 1]);
            format!("{what}: {median:.0} ms in the median of {}, {shortest:.0} to {longest:.0}", values.len())
        }
    }
}
