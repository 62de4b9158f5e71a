//! Cgroup paths of every shape: static pods, the kubelet's systemd driver, drivers that do not agree, docker, podman, systemd.

use serde_json::Value;

use super::{HOG, LATER, LIMIT, Stage, spec, watch};
use crate::{
    account::Watch,
    expect::{assert_counted, assert_linked, assert_scope, counted_as},
    kubelet::{Driver, Kubelet},
    plain::{self, NameFiles, Unit},
    pods::Qos,
    watcher::{Watcher, text},
};

/// Its UID is a hash of 32 digits and its name ends with the node's.
pub(super) fn a_static_pod(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_static_pod("etcd", Qos::Burstable, Some(LIMIT));
    let container = pod.run_container(spec("etcd", LATER), 0);
    let kill = stage.kill(&watch);
    assert_linked(&kill, &container);
    assert_scope(&kill, "container");
    assert_eq!(text(&kill, "/kubernetes/pod"), "etcd-test-node");
    assert_eq!(text(&kill, "/kubernetes/pod_uid").len(), 32);
    assert_counted(&watch, &container, 1);
    watch
}

/// Slices and scopes, without a systemd: the runtime is told to make what systemd would. With crun, v2 has one level more.
pub(super) fn systemd_driver(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet().with(Driver::Systemd);
    let (kill, watch) = kill_with_driver(stage, &kubelet);
    let path = text(&kill, "/cgroup/path");
    let slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod";
    assert!(path.starts_with(slice) && path.contains(".slice/cri-containerd-") && path.contains(".scope"), "{path}");
    assert_eq!(text(&kill, "/kubernetes/runtime"), "containerd");
    watch
}

/// One directory for pod and container, and none of the kubelet's above it: runc puts it below containerd's own.
pub(super) fn mismatched_drivers(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet().with(Driver::Mismatched).killing_single_processes();
    let (kill, watch) = kill_with_driver(stage, &kubelet);
    let path = text(&kill, "/cgroup/path");
    assert!(path.contains("/kubepods-burstable-pod") && path.contains(".slice:cri-containerd:"), "{path}");
    assert_eq!(text(&kill, "/kubernetes/runtime"), "containerd");
    watch
}

fn kill_with_driver(stage: &Stage, kubelet: &Kubelet) -> (Value, Watch) {
    let watch = watch(kubelet);
    let pod = kubelet.run_pod("web-0", Qos::Burstable, Some(LIMIT));
    let container = pod.run_container(spec("app", LATER), 0);
    let kill = stage.kill(&watch);
    assert_linked(&kill, &container);
    assert_scope(&kill, "container");
    assert_counted(&watch, &container, 1);
    println!("the kernel names {}", text(&kill, "/cgroup/path"));
    (kill, watch)
}

/// docker's and podman's containers have their id, and their name where a file gives it; a service has its unit.
pub(super) fn outside_of_pods(stage: &Stage) -> Watch {
    let names = NameFiles::new();
    let program = ["unshare", "--mount", "sh", "-c", &names.shown()];
    let watch = Watch::new(Watcher::start_by(&program, &["--container-log-dir", "/nonexistent"], &[]));

    let id = plain::new_id();
    names.add_docker(&id, "billing");
    let kill = kill_in(stage, &watch, &id, &format!("/docker/{id}"));
    assert_plain(&kill, &watch, &id, "docker", "billing");

    let id = plain::new_id();
    names.add_podman(&id, "mailer");
    let below = if stage.handler == "crun" { "/container" } else { "" };
    let kill = kill_in(stage, &watch, &id, &format!("/machine.slice/libpod-{id}.scope{below}"));
    assert_plain(&kill, &watch, &id, "podman", "mailer");

    let unit = "oom-watcher-test.service";
    let mut service = Unit::start(&format!("/system.slice/{unit}"), LIMIT, "exec busybox tail /dev/zero");
    service.go();
    let kill = stage.kill(&watch);
    assert_eq!(text(&kill, "/systemd_unit"), unit, "{kill:#}");
    assert_eq!(text(&kill, "/attribution/result"), "host");
    assert_scope(&kill, "cgroup");
    assert_eq!(counted_as(&watch, ["", "", ""]), Some(1));
    watch
}

#[track_caller]
fn kill_in(stage: &Stage, watch: &Watch, id: &str, cgroup: &str) -> Value {
    plain::run(stage.handler, id, cgroup, LIMIT, HOG);
    let kill = stage.kill(watch);
    assert_eq!(text(&kill, "/cgroup/path"), cgroup);
    kill
}

#[track_caller]
fn assert_plain(kill: &Value, watch: &Watch, id: &str, runtime: &str, name: &str) {
    let attribution = (text(kill, "/attribution/result"), text(kill, "/attribution/source"));
    assert_eq!(attribution, ("host", "runtime_file"), "{kill:#}");
    let container = ["id", "runtime", "name"].map(|field| text(kill, &format!("/container/{field}")));
    assert_eq!(container, [id, runtime, name]);
    assert!(kill.get("kubernetes").is_none(), "it is in no pod: {kill:#}");
    assert_scope(kill, "container");
    assert_eq!(counted_as(watch, ["", "", name]), Some(1));
}
