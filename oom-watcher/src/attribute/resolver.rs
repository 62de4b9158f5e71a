//! What happens to a kill whose names are not in memory yet: a bounded search beside the pipeline.
//!
//! Measured on a kubelet (1.36, containerd 1.6 and 2.1): a link comes 3 to 8 ms after the container's first instruction, 21
//! on a node with four times the work that its CPUs can do; four of 87 kills came 2 to 28 ms before their link. So a link
//! that is put into the index ends the search at once; the looks at the directory are for links that the watch does not
//! tell of. A container whose start failed never has a link; its log file is older than its first instruction.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout_at};

use super::{
    Attributed, attribute, best_in_pod,
    files::{self, Start},
    own_container,
};
use crate::cgroup::{Identity, PlainIdentity, PodIdentity};
use crate::names::{
    Scanner,
    cri::{self, Cri, CriStats},
};
use crate::report::{Attribution, AttributionResult, AttributionSource};

/// Kills that may be searched for at the same time, some 3 KiB each: a group kill of 1,000 processes in a container without a name.
/// One more goes out with what is known.
pub const PENDING_MAX: usize = 1024;

/// How long a kill may wait for its names: the last look at the links, a second for slow files, and the runtime's.
pub const DEADLINE: Duration = Duration::from_secs(3).saturating_add(cri::DEADLINE);

/// When to look at the directory of links again, counted from the miss.
const LOOKS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(15),
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Longest time between the making of a container's log file and the end of its start. 0.06 to 1.5 s were measured, and
/// 3.6 s in an emulated machine.
const START_MAX: Duration = Duration::from_secs(10);

/// Sources besides the links, each of them optional.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The kubelet's `/var/log/pods`: the pod's name for certain, its container's where only one was being started.
    pub pod_logs: Option<PathBuf>,
    /// CRI-O's `/var/lib/containers/storage/overlay-containers`: bundles, whose annotations name container and pod.
    pub crio_bundles: Option<PathBuf>,
    /// docker's `/var/lib/docker/containers`: names of containers that no pod owns. It is looked at when one is killed, so it may
    /// come later than the watcher.
    pub docker: Option<PathBuf>,
    /// podman's `/var/lib/containers/storage/overlay-containers/containers.json`: the same.
    pub podman: Option<PathBuf>,
    /// The container runtime's socket, asked over CRI for what none of the files gave. It is root on the node.
    pub cri_socket: Option<PathBuf>,
}

/// Attributes kills: at once from memory, or later from the node's files.
#[derive(Debug)]
pub struct Resolver {
    scanner: Arc<Scanner>,
    sources: Sources,
    cri: Option<Cri>,
    places: Arc<Semaphore>,
    refused: AtomicU64,
}

/// What a first look gives.
#[derive(Debug)]
pub enum Outcome {
    /// All that can be known.
    Done(Attributed),
    /// There may be more; [`Pending::finish`] gives it.
    Pending(Pending),
}

/// A kill whose names are being looked for. Any number may be finished in any order; dropping one gives up its search.
#[derive(Debug)]
pub struct Pending {
    identity: Identity,
    missed_at: Instant,
    /// For the times of files only, which are on this clock.
    missed_at_wall: SystemTime,
    resolver: Arc<Resolver>,
    _place: OwnedSemaphorePermit,
}

impl Resolver {
    /// A resolver that asks the scanner's index first.
    pub fn new(scanner: Arc<Scanner>, sources: Sources) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(PENDING_MAX));
        let cri = sources.cri_socket.clone().map(Cri::new);
        Arc::new(Self { scanner, sources, cri, places, refused: AtomicU64::new(0) })
    }

    /// Attributes a kill from memory, and says whether looking further may give more. Never waits.
    pub fn attribute(self: &Arc<Self>, identity: &Identity) -> Outcome {
        let who = self.recall(identity);
        if self.is_final(identity, &who) {
            return Outcome::Done(who);
        }
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(TryAcquireError::Closed) => return Outcome::Done(who),
            Err(TryAcquireError::NoPermits) => {
                let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
                if refused.is_power_of_two() {
                    tracing::warn!(refused, "Too many kills wait for their names: one is reported with what is known");
                }
                return Outcome::Done(who);
            }
        };
        Outcome::Pending(Pending {
            identity: identity.clone(),
            missed_at: Instant::now(),
            missed_at_wall: SystemTime::now(),
            resolver: Arc::clone(self),
            _place: place,
        })
    }

    /// From now on what memory knows is all: who ends has no time for a search.
    pub fn end_searches(&self) {
        self.places.close();
    }

    /// Kills that are being searched for now.
    pub fn pending(&self) -> usize {
        PENDING_MAX - self.places.available_permits()
    }

    /// Kills that went out with what memory knew because [`PENDING_MAX`] were being searched for.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Questions to the runtime; all zero where it is not asked.
    pub fn cri_stats(&self) -> CriStats {
        self.cri.as_ref().map(Cri::stats).unwrap_or_default()
    }

    fn recall(&self, identity: &Identity) -> Attributed {
        self.scanner.names().with(|index| attribute(identity, index))
    }

    fn is_final(&self, identity: &Identity, who: &Attributed) -> bool {
        match identity {
            Identity::Pod(pod) => is_best(pod, who),
            Identity::PlainContainer(_) => {
                who.kubernetes.is_some() || (self.sources.docker.is_none() && self.sources.podman.is_none())
            }
            _ => true,
        }
    }
}

fn is_best(pod: &PodIdentity, who: &Attributed) -> bool {
    let result = who.attribution.result;
    result == AttributionResult::Full || result == best_in_pod(pod)
}

impl Pending {
    /// Looks on until there is nothing better to find, or for [`DEADLINE`]; then what memory knows is the answer.
    pub async fn finish(self) -> Attributed {
        let deadline = self.missed_at + DEADLINE;
        let found = match &self.identity {
            Identity::Pod(pod) => timeout_at(deadline, self.search_pod(pod)).await,
            Identity::PlainContainer(plain) => timeout_at(deadline, self.search_container(plain)).await,
            _ => Ok(None),
        };
        found.ok().flatten().unwrap_or_else(|| self.resolver.recall(&self.identity))
    }

    /// The sources of a pod's names, from the cheapest and surest on: the runtime wants more rights than the files, and is
    /// asked only for what they do not give.
    async fn search_pod(&self, pod: &PodIdentity) -> Option<Attributed> {
        if let Some(who) = self.search_links(pod).await {
            return Some(who);
        }
        let by_bundle = self.search_bundle(pod).await;
        if by_bundle.is_some() {
            return by_bundle;
        }
        let by_logs = self.search_pod_logs(pod).await;
        if by_logs.as_ref().is_some_and(|who| is_best(pod, who)) {
            return by_logs;
        }
        self.ask_runtime(pod).await.or(by_logs)
    }

    /// The links again, until this one is there.
    async fn search_links(&self, pod: &PodIdentity) -> Option<Attributed> {
        for look in LOOKS {
            let due = self.missed_at + look;
            if let Some(who) = self.await_link(pod, due).await {
                return Some(who);
            }
            if let Err(error) = self.resolver.scanner.scan_since(due).await {
                // The feed states it, once, and the scanner counts it.
                tracing::debug!(error = &error as &dyn std::error::Error, "Rescan after a miss failed");
            }
        }
        self.by_link(pod)
    }

    /// Waits for the feed to bring the link, until `due`.
    async fn await_link(&self, pod: &PodIdentity, due: Instant) -> Option<Attributed> {
        loop {
            let added = self.resolver.scanner.names().link_added();
            let who = self.by_link(pod);
            if who.is_some() {
                return who;
            }
            timeout_at(due, added).await.ok()?;
        }
    }

    fn by_link(&self, pod: &PodIdentity) -> Option<Attributed> {
        let mut who = self.resolver.recall(&self.identity);
        who.attribution.source = AttributionSource::Rescan;
        is_best(pod, &who).then_some(who)
    }

    /// CRI-O keeps the bundle until the kubelet removes the container, and makes it before the container starts.
    async fn search_bundle(&self, pod: &PodIdentity) -> Option<Attributed> {
        let dir = self.resolver.sources.crio_bundles.clone()?;
        let found = files::bundle(dir, own_container(pod)?.id).await.filter(|found| found.pod_uid == pod.uid)?;
        self.named(found.namespace, found.pod, found.container, AttributionSource::Bundle)
    }

    async fn search_pod_logs(&self, pod: &PodIdentity) -> Option<Attributed> {
        let found = files::pod(self.resolver.sources.pod_logs.clone()?, pod.uid.clone()).await?;
        let starts = if best_in_pod(pod) == AttributionResult::Full { found.starts } else { Vec::new() };
        let container = self.only_start(&pod.uid, starts).map(|start| (start.container, Some(start.restart_count)));
        self.named(found.namespace, found.pod, container, AttributionSource::PodDirectory)
    }

    /// The container that was being started when the kill came, if it was one alone. One that a link names is none: its id
    /// is known, and is not this one's. So where the links cannot be read, nobody knows; a sandbox that was made anew and
    /// killed must not be taken for the container that ran in the old one.
    fn only_start(&self, pod_uid: &str, starts: Vec<Start>) -> Option<Start> {
        let is_at_the_kill =
            |start: &Start| self.missed_at_wall.duration_since(start.at).is_ok_and(|age| age <= START_MAX);
        self.resolver.scanner.names().with(|index| {
            let has_links = index.stats().last_scan.is_some_and(|scan| scan >= self.missed_at.into_std());
            let is_unlinked = |start: &Start| !index.has_attempt(pod_uid, &start.container, start.restart_count);
            let mut fitting =
                starts.into_iter().filter(|start| has_links && is_at_the_kill(start) && is_unlinked(start));
            let only = fitting.next()?;
            fitting.next().is_none().then_some(only)
        })
    }

    async fn ask_runtime(&self, pod: &PodIdentity) -> Option<Attributed> {
        let cri = self.resolver.cri.as_ref()?;
        // It logs and counts its failures itself.
        let found = cri.container(&own_container(pod)?.id).await.ok().flatten();
        let found = found.filter(|found| found.pod_uid == pod.uid)?;
        let container = (found.name.container, Some(found.restart_count));
        self.named(found.name.namespace, found.name.pod, Some(container), AttributionSource::Cri)
    }

    /// What the path tells, with names that `source` gave.
    fn named(
        &self,
        namespace: String,
        pod: String,
        container: Option<(String, Option<u32>)>,
        source: AttributionSource,
    ) -> Option<Attributed> {
        let mut who = self.resolver.recall(&self.identity);
        let kubernetes = who.kubernetes.as_mut()?;
        kubernetes.namespace = Some(namespace);
        kubernetes.pod = Some(pod);
        let result = if container.is_some() { AttributionResult::Full } else { AttributionResult::Pod };
        who.attribution = Attribution { result, source };
        if let Some((name, restart_count)) = container {
            kubernetes.container = Some(name);
            kubernetes.restart_count = restart_count;
        }
        Some(who)
    }

    /// The name of a container that no pod owns.
    async fn search_container(&self, plain: &PlainIdentity) -> Option<Attributed> {
        let Sources { docker, podman, .. } = self.resolver.sources.clone();
        let name = files::container_name(docker, podman, plain.id).await?;
        let mut who = self.resolver.recall(&self.identity);
        who.container.as_mut()?.name = Some(name);
        who.attribution.source = AttributionSource::RuntimeFile;
        Some(who)
    }
}
