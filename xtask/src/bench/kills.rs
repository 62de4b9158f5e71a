//! Real OOM kills, each in a memory cgroup of its own making.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::paths;

/// Where pods are in the tree of cgroups, and the namespace that they are of.
const QOS: &str = "kubepods/burstable";
pub(super) const NAMESPACE: &str = "bench-shop";
/// Their ids begin so: it tells their kills from any others of the machine.
pub(super) const CONTAINERS: &str = "c0ffee000000000000000000";
const LIMIT: &str = "16777216";

/// A cgroup in which whoever asks for more than 16 MiB is killed.
pub(super) struct Cgroup {
    /// From the leaf up: the order in which they can be removed.
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// That of container `number`.
    pub(super) fn of(number: usize) -> Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) =
            if v1.is_dir() { (v1, "memory.limit_in_bytes") } else { (Path::new("/sys/fs/cgroup"), "memory.max") };
        let mut folder = root.to_owned();
        let mut made = Vec::new();
        let (pod, container) = (format!("pod{}", pod_uid(number)), container_id(number));
        for part in QOS.split('/').chain([pod.as_str(), container.as_str()]) {
            if limit == "memory.max" {
                write(&folder.join("cgroup.subtree_control"), "+memory")?;
            }
            folder.push(part);
            if !folder.is_dir() {
                fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
                made.insert(0, folder.clone());
            }
        }
        ensure!(!made.is_empty(), "{} is there already", folder.display());
        write(&folder.join(limit), LIMIT)?;
        // With swap to go to, who asks for too much is not killed.
        let swap = folder.join("memory.swap.max");
        if swap.is_file() {
            write(&swap, "0")?;
        }
        Ok(Self { made })
    }

    /// Has a process killed, which runs on CPU `cpu`, and waits for its end.
    pub(super) fn kill(&self, cpu: usize) -> Result<()> {
        // The shell joins the cgroup; `tail` keeps all of what it reads, looking for the end of a line.
        let procs = self.made[0].join("cgroup.procs");
        let script = format!("echo $$ > {} && exec taskset -c {cpu} tail /dev/zero", procs.display());
        let status =
            Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).status().context("cannot run sh")?;
        ensure!(!status.success(), "the process was not killed");
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in &self.made {
            // What is left behind is an empty group.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {text} to {}", file.display()))
}

fn pod_uid(number: usize) -> String {
    format!("0b5e55ed-0000-4000-8000-{number:012}")
}

fn container_id(number: usize) -> String {
    format!("{CONTAINERS}{number:040}")
}

/// A directory of links as the kubelet makes them, of the first container and `others` more.
pub(super) fn links(others: usize) -> Result<PathBuf> {
    let folder = paths::target().join("bench/containers");
    // Of an earlier run.
    let _ = fs::remove_dir_all(&folder);
    paths::make(&folder)?;
    for number in 0..=others {
        let link = folder.join(format!("web-{number}_{NAMESPACE}_app-{}.log", container_id(number)));
        let target = format!("/var/log/pods/{NAMESPACE}_web-{number}_{}/app/0.log", pod_uid(number));
        symlink(target, &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    Ok(folder)
}

/// Twice as many busy processes as CPUs, until they are dropped.
pub(super) struct Load(Vec<Child>);

impl Load {
    pub(super) fn new() -> Result<Self> {
        let count = 2 * std::thread::available_parallelism()?.get();
        let busy = |_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn().context("cannot run sh");
        Ok(Self((0..count).map(busy).collect::<Result<_>>()?))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
