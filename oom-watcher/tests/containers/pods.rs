//! Cgroups that the suite makes, above all those of pods, as the kubelet makes them: `/kubepods/<QoS class>/pod<UID>`, or the
//! slices of its systemd driver, with the pod's limit.
//!
//! containerd makes the same directories in the other hierarchies of v1; all of them are removed here. What is the suite's
//! stands in a file, so that a later run can remove what a killed one has left, and touches nothing else.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::cgroup::{Hierarchy, hierarchy};

/// The outermost cgroups that the suite has made, one a line.
const CLAIMS: &str = "/run/oom-watcher-containers.cgroups";
/// Roots of pods under either driver of the kubelet.
const KUBEPODS: [&str; 2] = ["/kubepods", "/kubepods.slice"];

/// Of the suite's containerd, on v1.
const CONTAINERD: &str = "/system.slice/oom-watcher-containerd.service";

/// QoS class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    /// As Kubernetes writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "guaranteed",
            Self::Burstable => "burstable",
            Self::BestEffort => "besteffort",
        }
    }

    /// The path of its pods under the cgroupfs driver.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Guaranteed => "/kubepods",
            Self::Burstable => "/kubepods/burstable",
            Self::BestEffort => "/kubepods/besteffort",
        }
    }

    /// What the kubelet gives to its processes for the OOM killer; of a burstable pod's the most that it gives.
    pub(crate) fn oom_score_adj(self) -> i64 {
        match self {
            // -997 wants a capability that not every machine gives.
            Self::Guaranteed => 0,
            Self::Burstable => 999,
            Self::BestEffort => 1000,
        }
    }
}

/// A kubelet's own pods are none of ours.
pub(crate) fn possible() -> Result<(), String> {
    let (mount, claims) = (hierarchy().mount, claims());
    match KUBEPODS.iter().find(|root| mount.join(&root[1..]).exists() && !claims.contains(**root)) {
        Some(root) => Err(format!("this machine has pods of its own, in {root}")),
        None => Ok(()),
    }
}

/// Whether a path is that of a cgroup of the suite's.
pub(crate) fn is_own(path: &str) -> bool {
    claims().iter().any(|claim| path.strip_prefix(claim).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// The cgroup of a pod: its path as the kernel has it.
pub(crate) fn path(qos: Qos, uid: &str) -> String {
    format!("{}/pod{uid}", qos.path())
}

/// The same under the kubelet's systemd driver, whose slices each repeat the names of those above.
pub(crate) fn slice(qos: Qos, uid: &str) -> String {
    let uid = uid.replace('-', "_");
    match qos {
        Qos::Guaranteed => format!("/kubepods.slice/kubepods-pod{uid}.slice"),
        Qos::Burstable | Qos::BestEffort => {
            let above = format!("kubepods-{}", qos.as_str());
            format!("/kubepods.slice/{above}.slice/{above}-pod{uid}.slice")
        }
    }
}

/// Makes a cgroup, and what is missing above it.
#[track_caller]
pub(crate) fn make(path: &str, limit: Option<u64>) {
    let Hierarchy { mount, v2 } = hierarchy();
    let (mut directory, mut made) = (mount.clone(), false);
    for segment in path.split('/').skip(1) {
        if v2 {
            fs::write(directory.join("cgroup.subtree_control"), "+memory").expect("memory can be delegated");
        }
        directory.push(segment);
        // The levels above are shared by the pods.
        if !directory.exists() {
            if !made {
                let outermost = directory.strip_prefix(&mount).expect("it is below");
                claim(&format!("/{}", outermost.display()));
                made = true;
            }
            fs::create_dir(&directory).expect("cgroups can be made");
        }
    }
    if let Some(limit) = limit {
        set_limit(path, limit);
    }
}

/// A cgroup that a runtime is going to make, outside of what [`make`] has made, is the suite's too.
#[track_caller]
pub(crate) fn claim(path: &str) {
    if !is_own(path) {
        let file = File::options().create(true).append(true).open(CLAIMS);
        file.and_then(|mut file| writeln!(file, "{path}")).expect("/run can be written");
    }
}

fn claims() -> BTreeSet<String> {
    fs::read_to_string(CLAIMS).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn file(path: &str, v1: &str, v2: &str) -> PathBuf {
    let hierarchy = hierarchy();
    hierarchy.mount.join(&path[1..]).join(if hierarchy.v2 { v2 } else { v1 })
}

/// Limits the memory of a cgroup.
#[track_caller]
pub(crate) fn set_limit(path: &str, bytes: u64) {
    fs::write(file(path, "memory.limit_in_bytes", "memory.max"), bytes.to_string()).expect("a limit can be set");
}

/// A limit of a cgroup that other scenarios use without one; taken away when dropped.
pub(crate) struct PassingLimit<'a>(&'a str);

impl<'a> PassingLimit<'a> {
    /// Leaves the cgroup `room` beyond what it uses; the limit is the second value.
    #[track_caller]
    pub(crate) fn set(path: &'a str, room: u64) -> (Self, u64) {
        // The kernel counts in pages, of 4 or 64 KiB.
        let bytes = (usage(path) + room).next_multiple_of(64 << 10);
        set_limit(path, bytes);
        (Self(path), bytes)
    }
}

impl Drop for PassingLimit<'_> {
    fn drop(&mut self) {
        let none = if hierarchy().v2 { "max" } else { "-1" };
        let _ = fs::write(file(self.0, "memory.limit_in_bytes", "memory.max"), none);
    }
}

/// Makes a cgroup inside of a container's and moves the container's processes there, as a workload with a cgroup manager of its
/// own does.
#[track_caller]
pub(crate) fn make_inside(container: &str, name: &str, limit: u64) -> String {
    let Hierarchy { mount, v2 } = hierarchy();
    let inside = format!("{container}/{name}");
    fs::create_dir(mount.join(&inside[1..])).expect("cgroups can be made");
    for pid in pids_in(container) {
        admit(&inside, pid);
    }
    if v2 {
        // Only now: a cgroup with processes delegates nothing.
        fs::write(mount.join(&container[1..]).join("cgroup.subtree_control"), "+memory").expect("memory is delegated");
    }
    set_limit(&inside, limit);
    inside
}

/// Moves a process into a cgroup.
#[track_caller]
pub(crate) fn admit(path: &str, pid: u32) {
    let file = hierarchy().mount.join(&path[1..]).join("cgroup.procs");
    fs::write(file, pid.to_string()).expect("a process can be moved");
}

/// Gives containerd a cgroup, which is where runc puts what has no absolute path. On v2 it is the root: elsewhere a cgroup with
/// processes in it could not have limited ones below it. On v1 it is that of a service, as on a machine with systemd.
#[track_caller]
pub(crate) fn place_containerd(pid: u32) {
    let Hierarchy { mount, v2 } = hierarchy();
    for other in mounts().into_iter().filter(|other| v2 || *other != mount) {
        // Only for its path: not every hierarchy has to take it.
        let _ = fs::write(other.join("cgroup.procs"), pid.to_string());
    }
    if !v2 {
        make(CONTAINERD, None);
        admit(CONTAINERD, pid);
    }
}

/// Where runc puts what has no absolute path.
pub(crate) fn containerds() -> &'static str {
    if hierarchy().v2 { "" } else { CONTAINERD }
}

/// Kills that the kernel counts for a cgroup itself; none when it is gone.
pub(crate) fn oom_kills(path: &str) -> Option<u64> {
    count(&file(path, "memory.oom_control", "memory.events.local"), "oom_kill ")
}

/// What v2 counts of a cgroup and all below it, those that are gone too.
pub(crate) struct Kills {
    /// Processes; the first victim of a group twice.
    pub(crate) processes: u64,
    /// Groups.
    pub(crate) groups: u64,
}

/// Kills in all pods since the roots were made. v1 does not count them at the level above.
#[track_caller]
pub(crate) fn kills_in_pods() -> Option<Kills> {
    let Hierarchy { mount, v2 } = hierarchy();
    if !v2 {
        return None;
    }
    let mut kills = Kills { processes: 0, groups: 0 };
    for root in KUBEPODS.iter().map(|root| mount.join(&root[1..])).filter(|root| root.exists()) {
        let file = root.join("memory.events");
        let (processes, groups) = (count(&file, "oom_kill "), count(&file, "oom_group_kill "));
        let (processes, groups) = processes.zip(groups).unwrap_or_else(|| {
            panic!("{} does not count kills and groups (Linux 5.17 and later do)", file.display());
        });
        kills.processes += processes;
        kills.groups += groups;
    }
    Some(kills)
}

/// Whether a path is below a root of pods.
pub(crate) fn is_in_pods(path: &str) -> bool {
    KUBEPODS.iter().any(|root| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')))
}

fn count(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

/// Memory that a cgroup has; 0 when it is gone.
pub(crate) fn usage(path: &str) -> u64 {
    let file = file(path, "memory.usage_in_bytes", "memory.current");
    fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Processes in the suite's cgroups.
pub(crate) fn pids() -> Vec<u32> {
    claims().iter().flat_map(|claim| pids_in(claim)).collect()
}

/// Processes in a cgroup and below it.
fn pids_in(path: &str) -> Vec<u32> {
    below(&hierarchy().mount.join(&path[1..])).iter().flat_map(|cgroup| listed(cgroup)).collect()
}

/// Kills every process in a cgroup of the suite's.
#[track_caller]
pub(crate) fn kill_all(path: &str) {
    assert!(is_own(path), "{path} is not the suite's");
    kill(&pids_in(path));
}

/// Kills processes; each may have ended by itself since.
pub(crate) fn kill(pids: &[u32]) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn listed(cgroup: &Path) -> Vec<u32> {
    let list = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Removes a cgroup in every hierarchy.
pub(crate) fn remove(path: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    for mount in mounts() {
        remove_tree(&mount.join(&path[1..]), deadline);
    }
}

/// Removes all that the suite has made.
pub(crate) fn remove_all(deadline: Instant) {
    let (mounts, claims) = (mounts(), claims());
    let roots = claims.iter().flat_map(|claim| mounts.iter().map(|mount| mount.join(&claim[1..])));
    // Each is tried, whatever became of those before.
    let left = roots.filter(|root| !remove_tree(root, deadline)).count();
    if left == 0 {
        let _ = fs::remove_file(CLAIMS);
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
            thread::sleep(Duration::from_millis(2));
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
