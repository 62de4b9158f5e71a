//! What is killed: processes of this program that fill the memory of a cgroup, as containers of pods whose names are known.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// Where the second version's hierarchy is, and the pods of a node in it.
const ROOT: &str = "/sys/fs/cgroup";
const PODS: [&str; 2] = ["kubepods", "burstable"];
const LIMIT: &str = "33554432";
const LINKS: &str = "/tmp/containers";

fn pod_uid(number: usize) -> String {
    format!("0b5e55ed-0000-4000-8000-{number:012}")
}

fn container_id(number: usize) -> String {
    format!("{number:064x}")
}

/// Links as the kubelet makes them, for the containers below `count`.
pub(super) fn links(count: usize) -> Result<PathBuf> {
    let folder = PathBuf::from(LINKS);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {LINKS}"))?;
    for number in 0..count.max(1) {
        let link = folder.join(format!("web-{number}_shop_app-{}.log", container_id(number)));
        symlink(format!("/var/log/pods/shop_web-{number}_{}/app/0.log", pod_uid(number)), &link)
            .with_context(|| format!("cannot make {}", link.display()))?;
    }
    Ok(folder)
}

/// The container of a pod, in which whoever asks for more than 32 MiB is killed; removed when dropped.
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    pub(super) fn new(number: usize) -> Result<Self> {
        let mut folder = PathBuf::from(ROOT);
        for part in PODS.map(str::to_owned).into_iter().chain([format!("pod{}", pod_uid(number)), container_id(number)])
        {
            write(&folder.join("cgroup.subtree_control"), "+memory")?;
            folder.push(part);
            if !folder.is_dir() {
                fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            }
        }
        write(&folder.join("memory.max"), LIMIT)?;
        Ok(Self(folder))
    }

    /// A process in it that waits.
    pub(super) fn add(&self) -> Result<Waiting> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let child = Command::new(program).arg("hog").stdin(Stdio::piped()).spawn().context("cannot start a hog")?;
        write(&self.0.join("cgroup.procs"), &child.id().to_string())?;
        Ok(Waiting(child))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What is left behind is an empty group of a guest that ends.
        let _ = fs::remove_dir(&self.0);
    }
}

/// A process that waits for the end of its input before it takes memory.
pub(super) struct Waiting(Child);

impl Waiting {
    /// Lets it take memory, and waits for its end; the process id that it had.
    pub(super) fn release(mut self) -> Result<u32> {
        drop(self.0.stdin.take());
        self.end()
    }

    /// Waits for its end.
    fn end(mut self) -> Result<u32> {
        let status = self.0.wait().context("cannot wait for a hog")?;
        ensure!(!status.success(), "the process was not killed");
        Ok(self.0.id())
    }
}

/// A whole cgroup, by the wish of its owner (`memory.oom.group`).
pub(super) fn group(processes: usize) -> Result<Vec<u32>> {
    let cgroup = Cgroup::new(0)?;
    write(&cgroup.0.join("memory.oom.group"), "1")?;
    let mut waiting = (0..processes).map(|_| cgroup.add()).collect::<Result<Vec<_>>>()?;
    if let Some(first) = waiting.first_mut() {
        drop(first.0.stdin.take());
    }
    waiting.into_iter().map(Waiting::end).collect()
}

/// One process in each of so many cgroups, all at the same time.
pub(super) fn at_once(cgroups: usize) -> Result<Vec<u32>> {
    let cgroups = (0..cgroups).map(Cgroup::new).collect::<Result<Vec<_>>>()?;
    let mut waiting = cgroups.iter().map(Cgroup::add).collect::<Result<Vec<_>>>()?;
    for one in &mut waiting {
        drop(one.0.stdin.take());
    }
    waiting.into_iter().map(Waiting::end).collect()
}

/// The process: waits, then takes memory until it is killed.
pub(crate) fn hog() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new()).context("cannot wait")?;
    let mut taken = Vec::new();
    loop {
        taken.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {text} to {}", file.display()))
}
