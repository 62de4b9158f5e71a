//! Cgroups of pods, as the kubelet's cgroupfs driver makes them: `/kubepods/<QoS class>/pod<UID>`, with the pod's limit.
//!
//! containerd makes the same directories in the other hierarchies of v1; all of them are removed here.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::cgroup::{Hierarchy, hierarchy};

/// Says that `/kubepods` is the suite's, also to the next run.
const MARKER: &str = "/run/oom-watcher-containers.kubepods";

/// QoS class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
}

impl Qos {
    /// As Kubernetes writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "guaranteed",
            Self::Burstable => "burstable",
        }
    }
}

/// A kubelet's own pods are none of ours.
pub(crate) fn possible() -> Result<(), String> {
    if hierarchy().mount.join("kubepods").exists() && !Path::new(MARKER).exists() {
        return Err("this machine has pods of its own".to_owned());
    }
    Ok(())
}

/// The cgroup of a pod: its path as the kernel has it.
pub(crate) fn path(qos: Qos, uid: &str) -> String {
    match qos {
        Qos::Guaranteed => format!("/kubepods/pod{uid}"),
        Qos::Burstable => format!("/kubepods/burstable/pod{uid}"),
    }
}

/// Makes the cgroup of a pod.
#[track_caller]
pub(crate) fn make(path: &str, limit: Option<u64>) {
    fs::write(MARKER, "").expect("/run can be written");
    let Hierarchy { mount, v2 } = hierarchy();
    let mut directory = mount;
    for segment in path.split('/').skip(1) {
        if v2 {
            fs::write(directory.join("cgroup.subtree_control"), "+memory").expect("memory can be delegated");
        }
        directory.push(segment);
        // The levels above are shared by the pods.
        if !directory.exists() {
            fs::create_dir(&directory).expect("cgroups can be made");
        }
    }
    if let Some(limit) = limit {
        let file = directory.join(if v2 { "memory.max" } else { "memory.limit_in_bytes" });
        fs::write(file, limit.to_string()).expect("a limit can be set");
    }
}

/// Kills that the kernel counts for a cgroup itself; none when it is gone.
pub(crate) fn oom_kills(path: &str) -> Option<u64> {
    let Hierarchy { mount, v2 } = hierarchy();
    let file = mount.join(&path[1..]).join(if v2 { "memory.events.local" } else { "memory.oom_control" });
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// Processes that were killed in all of the suite's pods, those that are gone too. Only v2 counts them at the level above, and
/// counts the first victim of a group twice.
pub(crate) fn all_kills() -> Option<u64> {
    let Hierarchy { mount, v2 } = hierarchy();
    let text = fs::read_to_string(mount.join("kubepods/memory.events")).ok().filter(|_| v2)?;
    let count = |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    // Kernels before 5.17 do not count groups.
    Some(count("oom_kill ")? - count("oom_group_kill ")?)
}

/// Memory that a cgroup has; 0 when it is gone.
pub(crate) fn usage(path: &str) -> u64 {
    let Hierarchy { mount, v2 } = hierarchy();
    let file = mount.join(&path[1..]).join(if v2 { "memory.current" } else { "memory.usage_in_bytes" });
    fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Processes in the suite's pods.
pub(crate) fn pids() -> Vec<u32> {
    if !Path::new(MARKER).exists() {
        return Vec::new();
    }
    let cgroups = below(&hierarchy().mount.join("kubepods"));
    let lists = cgroups.iter().filter_map(|cgroup| fs::read_to_string(cgroup.join("cgroup.procs")).ok());
    lists.flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Removes the cgroup of a pod in every hierarchy.
pub(crate) fn remove(path: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    for mount in mounts() {
        remove_tree(&mount.join(&path[1..]), deadline);
    }
}

/// Removes all that the suite has made.
pub(crate) fn remove_all(deadline: Instant) {
    if Path::new(MARKER).exists() && mounts().iter().all(|mount| remove_tree(&mount.join("kubepods"), deadline)) {
        let _ = fs::remove_file(MARKER);
    }
}

fn mounts() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts are listed");
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|mount| mount[2].starts_with("cgroup")).map(|mount| PathBuf::from(mount[1])).collect()
}

fn remove_tree(root: &Path, deadline: Instant) -> bool {
    while root.exists() {
        for cgroup in below(root) {
            // Busy for as long as a process is on its way out.
            let _ = fs::remove_dir(cgroup);
        }
        if Instant::now() > deadline {
            println!("cannot remove {}", root.display());
            return false;
        }
        if root.exists() {
            thread::sleep(Duration::from_millis(20));
        }
    }
    true
}

/// A cgroup and all below it, the innermost first.
fn below(root: &Path) -> Vec<PathBuf> {
    let children = fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    let directories = children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut all: Vec<PathBuf> = directories.flat_map(|directory| below(&directory.path())).collect();
    if root.exists() {
        all.push(root.to_owned());
    }
    all
}
