//! From the identifiers of a kill to its pod: from memory, else by one request.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    api::Api,
    bucket::Bucket,
    limits::Limits,
    pod::{Pod, PodName},
};
use crate::{report::Kubernetes, telemetry::ApiOutcome};

/// Answers that are kept at most: more pods than a node has. A pod is about 1 KiB.
const ANSWERS_MAX: usize = 512;

/// Why a pod is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The API has no such pod.
    NotFound,
    /// The API has another pod of that name.
    Recreated,
    /// The API refused, or answered what nobody understands.
    Failed,
    /// It was not asked in time, or too many wait.
    Skipped,
}

/// The pods of recent kills.
#[derive(Debug)]
pub(super) struct Lookup {
    node: String,
    label_keys: Vec<String>,
    limits: Limits,
    /// By the UID of the cgroup path.
    answers: HashMap<String, Answer>,
    rate: Bucket,
    /// Names by UID, of the last list, and when the next list may be asked for.
    listed: HashMap<String, PodName>,
    list_at: Instant,
    /// What it means until then that a pod is not listed.
    not_listed: Missing,
}

#[derive(Debug)]
struct Answer {
    pod: Result<Arc<Pod>, Missing>,
    until: Instant,
}

impl Lookup {
    pub(super) fn new(node: &str, label_keys: &[String], limits: Limits, now: Instant) -> Self {
        Self {
            node: node.to_owned(),
            label_keys: label_keys.to_vec(),
            limits,
            answers: HashMap::new(),
            rate: Bucket::full(limits.lookup_burst, limits.lookup_every, now),
            listed: HashMap::new(),
            list_at: now,
            not_listed: Missing::NotFound,
        }
    }

    /// What is known without a request.
    pub(super) fn known(&self, victim: &Kubernetes, now: Instant) -> Option<Result<Arc<Pod>, Missing>> {
        if let Some(answer) = self.answers.get(&victim.pod_uid).filter(|answer| answer.until > now) {
            return Some(answer.pod.clone());
        }
        match self.name(victim) {
            Some(Ok(_)) => None,
            Some(Err(missing)) => Some(Err(missing)),
            None => (self.list_at > now).then_some(Err(self.not_listed)),
        }
    }

    /// When a request may be made: `now` or later.
    pub(super) fn ready_at(&self, api: &Api, now: Instant) -> Instant {
        api.ready_to_read(now).max(self.rate.ready_at(now))
    }

    /// From when on nobody needs to know the pod of a kill that was reported at `since`.
    pub(super) fn give_up_at(&self, since: Instant) -> Instant {
        since + self.limits.patience
    }

    /// Makes one request, which is due. None: that was not enough, and there will be another.
    pub(super) async fn ask(&mut self, api: &mut Api, victim: &Kubernetes) -> Option<Result<Arc<Pod>, Missing>> {
        let uid = &victim.pod_uid;
        self.rate.take(Instant::now());
        let answer = match self.name(victim) {
            Some(Ok(name)) => self.get(api, &name, uid).await?,
            Some(Err(missing)) => Err(missing),
            None => match self.list(api).await {
                Ok(()) if self.listed.contains_key(uid) => return None,
                Ok(()) => Err(Missing::NotFound),
                Err(missing) => Err(missing),
            },
        };
        // Not asked is not an answer.
        if answer != Err(Missing::Skipped) {
            self.remember(uid, answer.clone(), Instant::now());
        }
        Some(answer)
    }

    /// The name that the report has, else the one that the last list of the node's pods gave.
    fn name(&self, victim: &Kubernetes) -> Option<Result<PodName, Missing>> {
        if let (Some(namespace), Some(pod)) = (&victim.namespace, &victim.pod) {
            return Some(PodName::new(namespace, pod).ok_or(Missing::Failed));
        }
        self.listed.get(&victim.pod_uid).cloned().map(Ok)
    }

    /// One attempt: a list costs the server more than anything else here.
    async fn list(&mut self, api: &mut Api) -> Result<(), Missing> {
        let list = api.pods_of(&self.node).await;
        let forbidden = list.as_ref().err() == Some(&ApiOutcome::Forbidden);
        let pause = if forbidden { self.limits.found_for } else { self.limits.list_every };
        self.list_at = Instant::now() + pause;
        self.not_listed = match list {
            Ok(list) => {
                self.listed = list.by_uid().collect();
                Missing::NotFound
            }
            Err(outcome) if outcome.is_transient() => Missing::Skipped,
            Err(_) => Missing::Failed,
        };
        if self.not_listed == Missing::NotFound { Ok(()) } else { Err(self.not_listed) }
    }

    /// None: the API is in trouble, and will be asked again.
    async fn get(&mut self, api: &mut Api, name: &PodName, uid: &str) -> Option<Result<Arc<Pod>, Missing>> {
        Some(match api.pod(&name.namespace, &name.name).await {
            Ok(pod) if !pod.is(uid) => Err(Missing::Recreated),
            Ok(pod) => pod.reduce(&self.label_keys).map(Arc::new).ok_or(Missing::Failed),
            Err(ApiOutcome::NotFound) => Err(Missing::NotFound),
            Err(outcome) if outcome.is_transient() => return None,
            Err(_) => Err(Missing::Failed),
        })
    }

    fn remember(&mut self, uid: &str, pod: Result<Arc<Pod>, Missing>, now: Instant) {
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.retain(|_, answer| answer.until > now);
        }
        if self.answers.len() >= ANSWERS_MAX {
            let oldest = self.answers.iter().min_by_key(|(_, answer)| answer.until).map(|(uid, _)| uid.clone());
            oldest.map(|uid| self.answers.remove(&uid));
        }
        let stands: Duration = if pod.is_ok() { self.limits.found_for } else { self.limits.missing_for };
        self.answers.insert(uid.to_owned(), Answer { pod, until: now + stands });
    }
}
