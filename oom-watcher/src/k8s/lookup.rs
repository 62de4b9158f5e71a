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
    /// It was not asked in time.
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
        }
    }

    /// The pod of a kill that was reported at `since`. Waits for its turn, but not longer than is of use to anybody.
    pub(super) async fn find(
        &mut self,
        api: &mut Api,
        victim: &Kubernetes,
        since: Instant,
    ) -> Result<Arc<Pod>, Missing> {
        let uid = &victim.pod_uid;
        if let Some(answer) = self.answers.get(uid).filter(|answer| answer.until > Instant::now()) {
            return answer.pod.clone();
        }
        let give_up = since + self.limits.patience;
        let pod = match self.name(api, victim, give_up).await {
            Ok(name) => self.get(api, &name, uid, give_up).await,
            Err(missing) => Err(missing),
        };
        // Not asked is not an answer.
        if pod != Err(Missing::Skipped) {
            self.remember(uid, pod.clone(), Instant::now());
        }
        pod
    }

    /// The name that the report has, else the one that a list of the node's pods gives.
    async fn name(&mut self, api: &mut Api, victim: &Kubernetes, give_up: Instant) -> Result<PodName, Missing> {
        if let (Some(namespace), Some(pod)) = (&victim.namespace, &victim.pod) {
            return PodName::new(namespace, pod).ok_or(Missing::Failed);
        }
        if !self.listed.contains_key(&victim.pod_uid) && self.list_at <= Instant::now() {
            self.list(api, give_up).await?;
        }
        self.listed.get(&victim.pod_uid).cloned().ok_or(Missing::NotFound)
    }

    /// One attempt: a list costs the server more than anything else here.
    async fn list(&mut self, api: &mut Api, give_up: Instant) -> Result<(), Missing> {
        self.turn(api, give_up).await?;
        let list = api.pods_of(&self.node).await;
        let forbidden = list.as_ref().err() == Some(&ApiOutcome::Forbidden);
        let pause = if forbidden { self.limits.found_for } else { self.limits.list_every };
        self.list_at = Instant::now() + pause;
        match list {
            Ok(list) => self.listed = list.by_uid().collect(),
            Err(outcome) if outcome.is_transient() => return Err(Missing::Skipped),
            Err(_) => return Err(Missing::Failed),
        }
        Ok(())
    }

    async fn get(&mut self, api: &mut Api, name: &PodName, uid: &str, give_up: Instant) -> Result<Arc<Pod>, Missing> {
        loop {
            self.turn(api, give_up).await?;
            match api.pod(&name.namespace, &name.name).await {
                Ok(pod) if !pod.is(uid) => return Err(Missing::Recreated),
                Ok(pod) => return pod.reduce(&self.label_keys).map(Arc::new).ok_or(Missing::Failed),
                Err(ApiOutcome::NotFound) => return Err(Missing::NotFound),
                Err(outcome) if outcome.is_transient() => {}
                Err(_) => return Err(Missing::Failed),
            }
        }
    }

    /// Waits until the rate and the API's health allow a request, and takes it from the rate.
    async fn turn(&mut self, api: &Api, give_up: Instant) -> Result<(), Missing> {
        let now = Instant::now();
        let ready = api.ready_at(now).max(self.rate.ready_at(now));
        if ready > give_up || now > give_up {
            return Err(Missing::Skipped);
        }
        tokio::time::sleep_until(ready.into()).await;
        self.rate.take(Instant::now());
        Ok(())
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
