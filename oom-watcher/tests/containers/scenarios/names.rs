//! Where the names come from: links that are cut, missing, late or among rubbish, and the sources behind them.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
    thread,
    time::Duration,
};

use super::{IDLE, LATER, LIMIT, ON_SIGNAL, Stage, eventually, spec, watch, watch_with};
use crate::{
    account::Watch,
    containerd,
    expect::{
        assert_counted, assert_full, assert_identifiers, assert_linked, assert_pod, assert_scope, counted, counted_as,
    },
    kubelet::{Kubelet, Pod},
    pods::Qos,
    watcher::text,
};

/// More than any node has.
const LINKS: u32 = 10_000;

/// The link's name ends before the container's id does.
pub(super) fn a_long_name(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod(&format!("long-{}", "x".repeat(195)), Qos::Burstable, Some(LIMIT));
    let container = pod.run_container(spec("app", LATER), 0);
    let link = container.link_name();
    assert!(link.len() == 255 && !link.contains(&container.id), "{link}");
    let kill = stage.kill(&watch);
    assert_linked(&kill, &container);
    assert_scope(&kill, "container");
    assert_counted(&watch, &container, 1);
    watch
}

/// No link, no log directory, no runtime: the identifiers are the labels.
pub(super) fn nobody_knows_it(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod("nameless", Qos::Burstable, Some(LIMIT));
    let container = pod.create(spec("app", LATER), 0);
    container.start();
    let kill = stage.kill(&watch);
    let attribution = (text(&kill, "/attribution/result"), text(&kill, "/attribution/source"));
    assert_eq!(attribution, ("id", "path"), "{kill:#}");
    assert_identifiers(&kill, &pod);
    assert_eq!(text(&kill, "/kubernetes/container_id"), container.id);
    assert_scope(&kill, "container");
    assert_eq!(counted_as(&watch, ["", &pod.uid, &container.id]), Some(1));
    watch
}

/// Another container of the pod has a link: the pod is known, the container is not.
pub(super) fn a_sibling_is_known(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod("pair", Qos::Burstable, Some(2 * LIMIT));
    let _sibling = pod.run_container(spec("known", IDLE), 0);
    let container = pod.create(spec("app", LATER), 0);
    container.start();
    let kill = stage.kill(&watch);
    let attribution = (text(&kill, "/attribution/result"), text(&kill, "/attribution/source"));
    assert_eq!(attribution, ("pod", "sibling"), "{kill:#}");
    assert_pod(&kill, &pod);
    assert_eq!(text(&kill, "/kubernetes/container_id"), container.id);
    assert_eq!(counted(&watch, &pod.name, &container.id), Some(1));
    watch
}

/// Nothing but the runtime has the name.
pub(super) fn the_runtime_knows_it(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let socket = containerd::socket();
    let watch = watch_with(&kubelet, &["--cri-socket", socket.to_str().expect("text")]);
    let pod = kubelet.run_pod("unlinked", Qos::Burstable, Some(LIMIT));
    let container = pod.create(spec("app", LATER), 2);
    container.start();
    let kill = stage.kill(&watch);
    assert_full(&kill, &container, "cri");
    assert_scope(&kill, "container");
    assert_counted(&watch, &container, 1);
    let answered = watch.metric("oom_watcher_cri_requests_total{result=\"answered\"}");
    assert!((answered - 1.0).abs() < 0.1, "{answered} questions");
    watch
}

/// The directory of links is not there at the start, comes with ten thousand entries and rubbish in it, and is replaced while it
/// is watched. Each time the agent says so, and knows the next container all the same.
pub(super) fn an_unruly_directory(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let links = kubelet.links();
    fs::remove_dir(&links).expect("it is empty");
    let watch = watch(&kubelet);
    let is_missing = || watch.metric("oom_watcher_names_degraded{reason=\"missing\"}") > 0.5;
    eventually("the agent says that the directory is missing", is_missing);
    let pod = kubelet.run_pod("patient", Qos::Burstable, Some(LIMIT));

    fill(&links);
    assert_next_kill(stage, &watch, &kubelet, &pod, 0);
    eventually("the directory is watched again", || !is_missing());
    let known = watch.metric("oom_watcher_names{state=\"live\"}");
    assert!(known > f64::from(LINKS), "{known} names are known");

    fs::rename(&links, links.with_extension("old")).expect("the directory is ours");
    fs::create_dir(&links).expect("the directory is ours");
    assert_next_kill(stage, &watch, &kubelet, &pod, 1);

    fs::rename(&links, links.with_extension("older")).expect("the directory is ours");
    eventually("the agent says that the directory is missing", is_missing);
    fs::create_dir(&links).expect("the directory is ours");
    assert_next_kill(stage, &watch, &kubelet, &pod, 2);
    eventually("the directory is watched again", || !is_missing());
    watch
}

#[track_caller]
fn assert_next_kill(stage: &Stage, watch: &Watch, kubelet: &Kubelet, pod: &Pod, attempt: u32) {
    let container = pod.run_container(spec("app", ON_SIGNAL), attempt);
    let _open = kubelet.open_gate();
    let kill = stage.kill(watch);
    assert_linked(&kill, &container);
    assert_counted(watch, &container, u64::from(attempt) + 1);
    container.wait_for_exit();
}

/// Links of containers that nobody runs, and what no kubelet makes.
#[track_caller]
fn fill(links: &Path) {
    fs::create_dir(links).expect("the directory is ours");
    for number in 0..LINKS {
        let log = format!("/var/log/pods/other_pod-{number}_uid-{number}/app/0.log");
        symlink(log, links.join(format!("pod-{number}_other_app-{number:064x}.log"))).expect("the directory is ours");
    }
    let id = "f".repeat(64);
    for name in ["README", "a_b_c-0.log", "new\nline_n_c-.log", "ünïcode.log", &"x".repeat(255)] {
        fs::write(links.join(name), "").expect("the directory is ours");
    }
    fs::write(links.join(OsStr::from_bytes(b"\xff\xfe.log")), "").expect("the directory is ours");
    fs::create_dir(links.join(format!("p_n_directory-{id}.log"))).expect("the directory is ours");
    symlink("/", links.join(format!("../_n_c-{id}.log").replace('/', "%2f"))).expect("the directory is ours");
    let itself = format!("loop_n_c-{}.log", "e".repeat(64));
    symlink(&itself, links.join(&itself)).expect("the directory is ours");
}

/// Series are there before the first kill, and a restart changes nothing.
pub(super) fn zero_series(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let pod = kubelet.run_pod("quiet", Qos::Burstable, Some(LIMIT));
    let first = pod.run_container(spec("app", "exec sleep 1"), 0);
    let watch = watch(&kubelet);
    // Series follow the index every ten seconds.
    eventually("the first container has a series", || counted(&watch, &pod.name, &first.name) == Some(0));
    first.wait_for_exit();
    let second = pod.run_container(spec("app", ON_SIGNAL), 1);
    first.unlink();
    // One more look at the changes of the index.
    thread::sleep(Duration::from_secs(11));
    assert_counted(&watch, &second, 0);
    let _open = kubelet.open_gate();
    let kill = stage.kill(&watch);
    assert_linked(&kill, &second);
    assert_counted(&watch, &second, 1);
    watch
}
