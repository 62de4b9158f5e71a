//! Whose limit ran out, as a person would say it.
//!
//! Pure: from the victim's levels with their figures, and from what the kernel named, if it named anything. The level that
//! the kernel names is not yet the answer. In a pod with one limited container the pod's limit is the container's, but the
//! pod also carries the pause container, so its counter trips first and the kernel names the pod; a person set, and should
//! raise, the container's limit. The named memcg is kept beside the answer.

use crate::cgroup::{Identity, PodIdentity};
use crate::decode;
use crate::report::{Level, Scope, ScopeSource};

/// The memory cgroup that the kernel says ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomMemcg {
    /// None: the whole machine (or a cpuset's or memory policy's part of it).
    Global,
    /// The victim's own memcg or one above it, as an index of its levels.
    Level(usize),
    /// One that is neither the victim's own nor above it.
    Elsewhere,
    /// This kernel does not tell; the scope is deduced from the figures.
    NotGiven,
}

/// What a page counter of this machine may lack at the moment when its limit has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCounters {
    /// Size of a page in bytes.
    pub page_size: u64,
    /// CPUs that may hold a batch of charged pages each.
    pub cpus: u64,
}

/// Whose limit ran out, and the memcg that did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whose limit.
    pub scope: Scope,
    /// The kernel, or the figures.
    pub source: ScopeSource,
    /// Index of the memcg that ran out in the victim's levels; absent for the machine, or when nothing tells.
    pub level: Option<usize>,
    /// Its path; absent as the level is, and when the outermost part of the path is missing.
    pub memcg_path: Option<String>,
    /// Its limit in bytes.
    pub limit_bytes: Option<u64>,
    /// Its usage in bytes.
    pub usage_bytes: Option<u64>,
}

/// Decides from the victim's identity and levels (root first, the same path that gave the identity).
pub fn decide(identity: &Identity, levels: &[Level], oom_memcg: OomMemcg, counters: PageCounters) -> Decision {
    match oom_memcg {
        OomMemcg::Global => machine(ScopeSource::Kernel),
        OomMemcg::Level(index) => at_level(identity, levels, index, ScopeSource::Kernel),
        OomMemcg::Elsewhere => Decision { source: ScopeSource::Kernel, ..Decision::default() },
        OomMemcg::NotGiven => match fullest(levels, counters) {
            Some(index) => at_level(identity, levels, index, ScopeSource::Deduced),
            None if no_limit_anywhere(levels) => machine(ScopeSource::Deduced),
            None => Decision { source: ScopeSource::Deduced, ..Decision::default() },
        },
    }
}

fn machine(source: ScopeSource) -> Decision {
    Decision { scope: Scope::Node, source, ..Decision::default() }
}

fn at_level(identity: &Identity, levels: &[Level], index: usize, source: ScopeSource) -> Decision {
    let Some(level) = levels.get(index) else { return Decision { source, ..Decision::default() } };
    Decision {
        scope: scope_of(identity, levels, index),
        source,
        level: Some(index),
        memcg_path: path(&levels[..=index]),
        limit_bytes: level.limit_bytes,
        usage_bytes: level.usage_bytes,
    }
}

/// The path of the last of these levels; none unless they begin at the root.
fn path(levels: &[Level]) -> Option<String> {
    let (root, below) = levels.split_first()?;
    if !root.name.is_empty() {
        return None;
    }
    Some(decode::path(below.iter().map(|level| level.name.as_str())))
}

/// What a person calls the limit of the level that ran out.
fn scope_of(identity: &Identity, levels: &[Level], index: usize) -> Scope {
    // The root has no limit of its own: where it ran out, the machine did.
    if index == 0 && levels[0].name.is_empty() {
        return Scope::Node;
    }
    let last = levels.len() - 1;
    match identity {
        Identity::Pod(pod) => pod_scope(pod, levels, index),
        Identity::PlainContainer(plain) if index >= plain.level => container_scope(levels, plain.level, index),
        Identity::Qos(_) if index == last => Scope::Qos,
        Identity::Qos(_) if index + 1 == last => Scope::Kubepods,
        Identity::Kubepods if index == last => Scope::Kubepods,
        _ => Scope::Cgroup,
    }
}

fn pod_scope(pod: &PodIdentity, levels: &[Level], index: usize) -> Scope {
    let container = pod.container.filter(|container| !container.monitor).map(|container| container.level);
    let kubepods = pod.kubepods_level.unwrap_or(pod.pod_level);
    match container {
        Some(container) if index >= container => container_scope(levels, container, index),
        _ if index == pod.pod_level => pod_or_container(levels, index, container),
        _ if index == kubepods => Scope::Kubepods,
        _ if (kubepods..pod.pod_level).contains(&index) => Scope::Qos,
        _ => Scope::Cgroup,
    }
}

/// A container's own limit, or one that the workload set below it.
///
/// crun puts the container's processes one level down, in `container`; a limit there is the container's too, unless the
/// container has another.
fn container_scope(levels: &[Level], container: usize, index: usize) -> Scope {
    if index == container {
        return Scope::Container;
    }
    let own = levels[container].limit_bytes;
    let runtimes = index == container + 1 && levels[index].name == "container" && own.is_none();
    if runtimes || (own.is_some() && own == levels[index].limit_bytes) { Scope::Container } else { Scope::Cgroup }
}

/// The pod ran out: by a limit of its own, or only because its limit is its one container's.
///
/// The limits alone do not say: with pod-level resources a container without a limit carries the pod's, and a tmpfs that
/// outlived its container is charged to the pod. Then the memory is not the container's, and the figures show it.
fn pod_or_container(levels: &[Level], pod: usize, container: Option<usize>) -> Scope {
    let Some(container) = container.and_then(|container| levels.get(container)) else { return Scope::Pod };
    let pod = &levels[pod];
    if container.limit_bytes.is_none() || container.limit_bytes != pod.limit_bytes {
        return Scope::Pod;
    }
    let beside = match (pod.usage_bytes, container.usage_bytes) {
        (Some(whole), Some(own)) => whole.saturating_sub(own),
        _ => 0,
    };
    if beside > allowed_beside(pod.limit_bytes.unwrap_or_default()) { Scope::Pod } else { Scope::Container }
}

/// Memory that a pod carries beside its container without being the reason that its limit ran out: a pause container
/// (0.3 MiB measured), CRI-O's conmon (1 to 3 MiB each), and what runc leaves of a start or an exec; at most an eighth of
/// a large limit.
fn allowed_beside(limit: u64) -> u64 {
    const RUNTIME_BYTES: u64 = 8 << 20;
    RUNTIME_BYTES.max(limit / 8)
}

/// The level whose limit has run out, by its figures: the one with the least room, the innermost of equals, as a charge
/// walks up from the leaf and stops at the first counter without room. None where even the least room is too much.
fn fullest(levels: &[Level], counters: PageCounters) -> Option<usize> {
    let room = |level: &Level| Some(level.limit_bytes?.saturating_sub(level.usage_bytes?));
    levels
        .iter()
        .enumerate()
        .filter_map(|(index, level)| Some((room(level)?, level.limit_bytes?, index)))
        .filter(|&(room, limit, _)| room <= counters.margin(limit))
        .min_by_key(|&(room, _, index)| (room, std::cmp::Reverse(index)))
        .map(|(_, _, index)| index)
}

/// Every level was read, and none has a limit: then no memcg can have run out.
fn no_limit_anywhere(levels: &[Level]) -> bool {
    let complete = levels.first().is_some_and(|root| root.name.is_empty());
    complete && levels.iter().skip(1).all(|level| level.usage_bytes.is_some() && level.limit_bytes.is_none())
}

impl PageCounters {
    /// Room that a counter may show although its limit ran out.
    ///
    /// The kernel kills when not even the pages that were asked for fit, which are at most 2^3 for an order that may start
    /// the OOM killer. Between that check and the reading of the figures every CPU may give back the pages that it had
    /// charged ahead: 64 (`MEMCG_CHARGE_BATCH`) for each of the memcgs that it remembers, up to seven since 6.16, and those
    /// of a pod's containers all count in the pod (measured: 0 to 137 pages with pause and one container on two CPUs). On
    /// many CPUs that is more than a small cgroup has: with a sixteenth of the limit left it is no longer "full".
    fn margin(self, limit: u64) -> u64 {
        const REQUEST_PAGES: u64 = 1 << 3;
        const AHEAD_PAGES: u64 = 7 * 64;
        let pages = |pages: u64| pages.saturating_mul(self.page_size);
        pages(REQUEST_PAGES).max(pages(AHEAD_PAGES.saturating_mul(self.cpus)).min(limit / 16))
    }
}
