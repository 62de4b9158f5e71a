//! Several nodes on one machine, as kind and k3d make them: each agent sees the kills of all and counts those of its own.

use crate::{
    cgroup::Cgroup,
    hog::{self, Hog},
    scenario::{Scenario, anywhere},
    watcher::Watcher,
};

const LIMIT: u64 = 8 << 20;
/// More than the limit allows.
const TOO_MUCH: &str = "33554432";
const AGENTS_POD: &str = "0a5a1b6e-9d1f-4a9b-8f0e-0c6d2f7f9a11";
const OTHER_POD: &str = "6f1f6f0e-5b43-4c53-8a57-1f2a6c1f0b22";

/// They have watchers of their own.
pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario { name: "a-node-among-others", possible: anywhere, run: a_node_among_others }];

/// The agent is in a cgroup namespace, where its own path says nothing of the node; its pod's UID and the kernel's tree do.
fn a_node_among_others() {
    // Inner ones go before outer ones.
    let machine = Cgroup::new("machine");
    let (service, docker) = (machine.child("some.service"), machine.child("docker"));
    let [here, there] = ["1", "2"].map(|digit| docker.child(digit.repeat(64)));
    let [own_pods, their_pods] = [&here, &there].map(|node| node.child("kubepods"));
    let [own_class, their_class] = [&own_pods, &their_pods].map(|pods| pods.child("burstable"));
    let own_pod = own_class.child(format!("pod{AGENTS_POD}"));
    let own = own_pod.child("a".repeat(64));
    let neighbours = [&own_class, &their_class].map(|class| class.child(format!("pod{OTHER_POD}")));
    let [neighbour, stranger] = [&neighbours[0], &neighbours[1]].map(|pod| pod.child("b".repeat(64)));
    let directory = own.directory().to_str().expect("a path of text");
    let namespaced = ["/proc/self/exe", hog::NAMESPACED, directory];
    let watcher = Watcher::start_by(&namespaced, &[], &[("POD_UID", AGENTS_POD)]);
    kill_in(&neighbour);
    let event = watcher.event();
    assert_eq!(event["attribution"]["result"], "id", "{event:#}");
    assert_eq!(event["kubernetes"]["pod_uid"], OTHER_POD);
    kill_in(&stranger);
    let event = watcher.event();
    assert_eq!(event["attribution"]["result"], "foreign", "{event:#}");
    assert!(event.get("kubernetes").is_none(), "another node's pod is not this node's to name");
    kill_in(&service);
    assert_eq!(watcher.event()["attribution"]["result"], "foreign", "the machine below the nodes");
    assert_eq!(watcher.metric(r#"oom_kills_per_node_total{node="test-node"}"#) as u64, 1, "each node counts its own");
    let foreign = r#"oom_watcher_attributions_total{result="foreign",source="path"}"#;
    assert_eq!(watcher.metric(foreign) as u64, 2);
}

fn kill_in(cgroup: &Cgroup) {
    cgroup.limit(LIMIT);
    let mut hog = Hog::start(cgroup, &["anon", TOO_MUCH]);
    hog.go();
    hog.must_be_killed();
}
