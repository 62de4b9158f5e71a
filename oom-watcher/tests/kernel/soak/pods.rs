//! Pods that come and go: their cgroups as the kubelet makes them, and their links as the kubelet names them.

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::cgroup::Cgroup;

/// Pods that are there at a time.
const ALIVE: usize = 30;
/// Every so many steps, one pod goes and another one comes: a new one every few seconds. Each costs the watcher a request and an
/// Event, of which it allows itself one a second and one every two seconds; more of them are another test than that of an hour.
const LIFE_STEPS: u64 = 80;

/// A pod with one container.
pub(super) struct Pod {
    // Dropped in this order: the innermost cgroup goes first.
    container: Cgroup,
    _above: Cgroup,
    link: Option<PathBuf>,
}

impl Pod {
    pub(super) fn container(&self) -> &Cgroup {
        &self.container
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            fs::remove_file(link).expect("the link is there");
        }
    }
}

/// The pods of the node.
pub(super) struct Pods {
    alive: VecDeque<Pod>,
    qos: Cgroup,
    _kubepods: Cgroup,
    _node: Cgroup,
    links: PathBuf,
    number: u64,
    steps: u64,
}

impl Pods {
    pub(super) fn new(links: &Path) -> Self {
        let node = Cgroup::new("node");
        let kubepods = node.child("kubepods");
        let qos = kubepods.child("burstable");
        let mut pods = Self {
            alive: VecDeque::new(),
            qos,
            _kubepods: kubepods,
            _node: node,
            links: links.to_owned(),
            number: 0,
            steps: 0,
        };
        for _ in 0..ALIVE {
            let pod = pods.make(true);
            pods.alive.push_back(pod);
        }
        pods
    }

    fn make(&mut self, named: bool) -> Pod {
        self.number += 1;
        let uid = format!("00000000-0000-4000-8000-{:012x}", self.number);
        let id = format!("{:064x}", u128::from(self.number) << 100 | 0xabc);
        let pod = self.qos.child(format!("pod{uid}"));
        let container = pod.child(&id);
        container.limit(super::LIMIT);
        let link = named.then(|| {
            let name = format!("pod-{}", self.number);
            let link = self.links.join(format!("{name}_soak_app-{id}.log"));
            symlink(format!("/var/log/pods/soak_{name}_{uid}/app/0.log"), &link).expect("the link is made");
            link
        });
        Pod { container, _above: pod, link }
    }

    /// The pod that is next in turn.
    pub(super) fn next(&mut self) -> &Pod {
        self.alive.rotate_left(1);
        &self.alive[0]
    }

    /// The containers of the first `count` pods.
    pub(super) fn newest(&self, count: usize) -> Vec<&Cgroup> {
        self.alive.iter().take(count).map(Pod::container).collect()
    }

    /// The oldest pod, which ends with whoever takes it.
    pub(super) fn take_oldest(&mut self) -> Pod {
        let new = self.make(true);
        self.alive.push_back(new);
        self.alive.pop_front().expect("pods are there")
    }

    /// A container that has no link: its pod is known by its UID alone.
    pub(super) fn unnamed(&mut self) -> Cgroup {
        self.number += 1;
        let pod = self.qos.child(format!("pod00000000-0000-4000-9000-{:012x}", self.number));
        pod.limit(super::LIMIT);
        pod
    }

    /// Another step is done.
    pub(super) fn turn_over(&mut self) {
        self.steps += 1;
        if self.steps.is_multiple_of(LIFE_STEPS) {
            drop(self.take_oldest());
        }
    }
}
