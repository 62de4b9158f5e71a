//! The index of container names: a plain data structure, without files, clocks or locks.
//!
//! Three ways in, `apply`, `delete` and a scan that ends (what it did not meet is gone); two ways to ask, by container id and
//! by pod UID. A link that is gone stays as a tombstone: the kill of its container may be reported after it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::{ContainerName, Link, LinkKey};
use super::presence::{Changes, Presence};
use crate::cgroup::ContainerId;

/// Fewest digits of a cut id that are taken for the container's, among those of its pod.
const ID_PREFIX_MIN: usize = 8;

/// How much the index holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Links that exist.
    pub live: usize,
    /// Links that are gone.
    pub gone: usize,
    /// How long a link that is gone is kept, unless newer ones need its place.
    pub keep_gone: Duration,
}

impl Default for Limits {
    /// A large node has 500 pods; with five containers each, and the dead one beside each that the kubelet keeps, that is
    /// 5000 links: three times that many fit, in 13 MiB (800 bytes each, measured). Tombstones: ten minutes, in which 4096 containers may end.
    fn default() -> Self {
        Self { live: 16_384, gone: 4096, keep_gone: Duration::from_mins(10) }
    }
}

/// A container that a link names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its names.
    pub name: Arc<ContainerName>,
    /// UID of its pod; absent if the link's target could not be read.
    pub pod_uid: Option<Arc<str>>,
    /// Its restarts before this one; absent as the UID.
    pub restart_count: Option<u32>,
}

/// Counts of the index and of its feed. All but the first three only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Links that exist.
    pub live: usize,
    /// Links that are gone and still known.
    pub gone: usize,
    /// When the last scan that saw the whole directory ended; on the monotonic clock, as every time here.
    pub last_scan: Option<Instant>,
    /// Links refused because the index was full, each time one was met.
    pub refused: u64,
    /// Links that were gone and were forgotten before their time, for newer ones.
    pub evicted: u64,
    /// Directory entries that are no links of the kubelet's, each time one was met.
    pub ignored: u64,
    /// Scans of the directory.
    pub scans: u64,
    /// Scans, watches and reads of events that failed.
    pub errors: u64,
    /// Times that the kernel dropped events because the queue was full.
    pub overflows: u64,
}

#[derive(Debug)]
struct Entry {
    container: Container,
    id_prefix: Box<str>,
    /// Number of its tombstone, when the link is gone.
    tombstone: Option<u64>,
    /// The scan that met it last.
    scan: u64,
}

impl Entry {
    fn is_live(&self) -> bool {
        self.tombstone.is_none()
    }
}

#[derive(Debug)]
struct Tombstone {
    number: u64,
    since: Instant,
    key: LinkKey,
}

/// Names of containers, by id and by pod.
#[derive(Debug, Default)]
pub struct Index {
    limits: Limits,
    entries: HashMap<LinkKey, Entry>,
    by_pod: HashMap<Arc<str>, Vec<LinkKey>>,
    /// Tombstones in the order in which the links went. That of a link which came back stays until its turn comes.
    tombstones: VecDeque<Tombstone>,
    buried: u64,
    presence: Presence,
    scan: u64,
    pub(super) stats: Stats,
}

impl Index {
    /// An empty index.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A link exists. `key` is its file name's.
    pub fn apply(&mut self, key: LinkKey, link: Link, now: Instant) {
        self.expire(now);
        let is_live = self.is_live(&key);
        if !is_live && self.stats.live >= self.limits.live {
            self.stats.refused += 1;
            return;
        }
        self.forget(&key);
        let container = Container {
            name: Arc::new(link.name),
            pod_uid: link.pod_uid.map(Arc::from),
            restart_count: link.restart_count,
        };
        self.presence.add(&container.name);
        if let Some(uid) = &container.pod_uid {
            // Most pods have one container or two; a vector would begin with four.
            self.by_pod.entry(Arc::clone(uid)).or_insert_with(|| Vec::with_capacity(1)).push(key.clone());
        }
        let entry = Entry { container, id_prefix: link.id_prefix.into(), tombstone: None, scan: self.scan };
        self.entries.insert(key, entry);
        self.stats.live += 1;
    }

    /// A link went: it is kept as a tombstone.
    pub fn delete(&mut self, key: &LinkKey, now: Instant) {
        self.expire(now);
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.is_live()) else { return };
        self.buried += 1;
        entry.tombstone = Some(self.buried);
        self.presence.remove(&entry.container.name);
        self.stats.live -= 1;
        self.stats.gone += 1;
        self.tombstones.push_back(Tombstone { number: self.buried, since: now, key: key.clone() });
        while self.tombstones.len() > self.limits.gone {
            self.stats.evicted += u64::from(self.remove_oldest());
        }
    }

    /// A scan begins: it will `touch` or `apply` every link that exists.
    pub fn begin_scan(&mut self) {
        self.scan += 1;
        self.stats.scans += 1;
    }

    /// Whether this link is known, and exists; a scan need not read it again. A cut name may stand for another container
    /// than the last time, so it is never known.
    pub fn touch(&mut self, key: &LinkKey) -> bool {
        let scan = self.scan;
        let known = self.entries.get_mut(key).filter(|entry| entry.is_live());
        known.is_some_and(|entry| {
            entry.scan = scan;
            matches!(key, LinkKey::Id(_)) && entry.container.pod_uid.is_some()
        })
    }

    /// The scan saw the whole directory: what it did not meet is gone.
    pub fn end_scan(&mut self, now: Instant) {
        let unmet = |entry: &Entry| entry.is_live() && entry.scan != self.scan;
        let unmet: Vec<LinkKey> =
            self.entries.iter().filter(|(_, entry)| unmet(entry)).map(|(key, _)| key.clone()).collect();
        for key in unmet {
            self.delete(&key, now);
        }
        self.expire(now);
        self.stats.last_scan = Some(now);
    }

    /// The container with this id; where only a part of the id is known, the one of this pod with that part.
    pub fn by_id(&self, id: &ContainerId, pod_uid: Option<&str>) -> Option<&Container> {
        if let Some(entry) = self.entries.get(&LinkKey::Id(*id)) {
            return Some(&entry.container);
        }
        let mut fitting = self
            .of_pod(pod_uid?)
            .filter(|entry| entry.id_prefix.len() >= ID_PREFIX_MIN && id.starts_with(&entry.id_prefix));
        let only = fitting.next()?;
        fitting.next().is_none().then_some(&only.container)
    }

    /// Some container of this pod, for its namespace and pod name. The others' containers are not the one that is asked for.
    pub fn by_pod(&self, pod_uid: &str) -> Option<&Container> {
        self.of_pod(pod_uid).next().map(|entry| &entry.container)
    }

    /// Whether a link names this attempt of a container: it has started, and its id is known.
    pub fn has_attempt(&self, pod_uid: &str, container: &str, restart_count: u32) -> bool {
        self.of_pod(pod_uid).any(|entry| {
            entry.container.name.container == container && entry.container.restart_count == Some(restart_count)
        })
    }

    /// What changed among the containers that exist since the last call. There is one reader.
    pub fn take_changes(&mut self) -> Changes {
        self.presence.take()
    }

    /// Counts so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn is_live(&self, key: &LinkKey) -> bool {
        self.entries.get(key).is_some_and(Entry::is_live)
    }

    fn of_pod(&self, pod_uid: &str) -> impl Iterator<Item = &Entry> {
        self.by_pod.get(pod_uid).into_iter().flatten().filter_map(|key| self.entries.get(key))
    }

    /// Forgets the tombstones whose time has come.
    fn expire(&mut self, now: Instant) {
        let keep = self.limits.keep_gone;
        let is_due = |oldest: &Tombstone| now.saturating_duration_since(oldest.since) >= keep;
        while self.tombstones.front().is_some_and(is_due) {
            self.remove_oldest();
        }
    }

    /// Forgets the oldest tombstone and its entry; false if that link has come back meanwhile.
    fn remove_oldest(&mut self) -> bool {
        let Some(oldest) = self.tombstones.pop_front() else { return false };
        let is_its = self.entries.get(&oldest.key).is_some_and(|entry| entry.tombstone == Some(oldest.number));
        if is_its {
            self.forget(&oldest.key);
        }
        is_its
    }

    /// Removes an entry from everything but the queue of tombstones.
    fn forget(&mut self, key: &LinkKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        if entry.is_live() {
            self.stats.live -= 1;
            self.presence.remove(&entry.container.name);
        } else {
            self.stats.gone -= 1;
        }
        let Some(uid) = entry.container.pod_uid else { return };
        if let Some(keys) = self.by_pod.get_mut(&uid) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_pod.remove(&uid);
            }
        }
    }
}
