//! Which Event is written when: the same thing that happens again raises a count, at a limited rate. Pure.
//!
//! Each kill that comes in is settled once: told by an Event, or lost for a stated reason. A kill that has to wait for the
//! rate is neither; the next write of its Event tells of it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use k8s_openapi::api::events::v1::Event;

use super::{bucket::Bucket, event::Draft, limits::Limits};
use crate::telemetry::{ApiOutcome, PodEventOutcome, Telemetry};

/// Events that are kept open at most: twice the pods of a large node.
const OPEN_MAX: usize = 1024;
/// Incidents that are remembered, so that each is told once. The kills of one come within 5 s of each other (a search for
/// names is the longest wait), in which a loop of 50 a second makes a quarter of this.
const INCIDENTS_MAX: usize = 1024;
/// Pods whose rate is remembered: as many as Events are open.
const BUCKETS_MAX: usize = 1024;

/// The same thing happens again: same pod, container and reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pod_uid: String,
    container: String,
    reason: &'static str,
}

/// A request that is due.
#[derive(Debug)]
pub(super) enum Write {
    /// Create the Event.
    Create(Box<Event>),
    /// Raise its count.
    Raise { namespace: String, name: String, count: u32, last: jiff::Timestamp },
}

/// The open Events.
#[derive(Debug)]
pub(super) struct Series {
    open: HashMap<Key, Open>,
    incidents: VecDeque<(String, Key)>,
    pods: HashMap<String, Bucket>,
    agent: Bucket,
    limits: Limits,
    telemetry: Arc<Telemetry>,
}

/// One Event, or one that is to be.
#[derive(Debug)]
struct Open {
    draft: Draft,
    /// Its name, where the API has it.
    created: Option<String>,
    /// Incidents that the API knows of.
    told: u32,
    waiting: Option<Waiting>,
    /// Of the newest kill: since boot, which orders them, and by the wall clock, which may be set back.
    last: (u64, jiff::Timestamp),
    written_at: Option<Instant>,
    touched_at: Instant,
    /// What became of the last kills.
    outcome: PodEventOutcome,
}

/// What is still to be told.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    incidents: u32,
    kills: u64,
    since: Instant,
}

impl Series {
    pub(super) fn new(limits: Limits, telemetry: Arc<Telemetry>, now: Instant) -> Self {
        let agent = Bucket::full(limits.agent_burst, limits.agent_every, now);
        Self { open: HashMap::new(), incidents: VecDeque::new(), pods: HashMap::new(), agent, limits, telemetry }
    }

    /// Takes in the kills of one incident in one container.
    pub(super) fn add(&mut self, incident: &str, draft: Draft, kills: u64, now: Instant) {
        let key = Key { pod_uid: draft.pod_uid.clone(), container: draft.container.clone(), reason: draft.reason };
        if self.joins_incident(incident, &key.pod_uid, kills) {
            return;
        }
        if self.incidents.len() == INCIDENTS_MAX {
            self.incidents.pop_front();
        }
        self.incidents.push_back((incident.to_owned(), key.clone()));
        self.close_idle(&key, now);
        if !self.open.contains_key(&key) && !self.make_room() {
            self.telemetry.count_pod_event(PodEventOutcome::Overflow, kills);
            return;
        }
        let last = (draft.boot_time_ns, draft.time);
        let open = self.open.entry(key).or_insert_with(|| Open::new(draft.clone(), now));
        let waiting = open.waiting.get_or_insert(Waiting { incidents: 0, kills: 0, since: now });
        waiting.incidents += 1;
        waiting.kills += kills;
        open.last = open.last.max(last);
        open.touched_at = now;
        if open.created.is_none() && waiting.incidents == 1 {
            open.draft = draft;
        }
    }

    /// Further victims of an incident share the fate of the first one in that pod.
    fn joins_incident(&mut self, incident: &str, pod_uid: &str, kills: u64) -> bool {
        let known = self.incidents.iter().rev().find(|(id, key)| id == incident && key.pod_uid == pod_uid);
        let Some(open) = known.and_then(|(_, key)| self.open.get_mut(key)) else { return false };
        match &mut open.waiting {
            Some(waiting) => waiting.kills += kills,
            None if open.outcome.is_told() => drop(self.telemetry.count_pod_event(PodEventOutcome::Covered, kills)),
            None => drop(self.telemetry.count_pod_event(open.outcome, kills)),
        }
        true
    }

    /// An Event that nothing was added to for long is history: what comes now is news.
    fn close_idle(&mut self, key: &Key, now: Instant) {
        let idle = self.limits.series_idle;
        let is_idle = |open: &Open| open.waiting.is_none() && now.duration_since(open.touched_at) >= idle;
        if self.open.get(key).is_some_and(is_idle) {
            self.open.remove(key);
        }
    }

    /// Closes the Event that nothing waits for and that is untouched for longest. False: something waits for all of them.
    fn make_room(&mut self) -> bool {
        if self.open.len() < OPEN_MAX {
            return true;
        }
        let settled = self.open.iter().filter(|(_, open)| open.waiting.is_none());
        let oldest = settled.min_by_key(|(_, open)| open.touched_at).map(|(key, _)| key.clone());
        oldest.and_then(|key| self.open.remove(&key)).is_some()
    }

    /// When the next write is due: the API answers from `api_ready` on.
    pub(super) fn next_due(&self, api_ready: Instant, now: Instant) -> Option<Instant> {
        let next = self.open.iter().filter_map(|(key, open)| self.due_at(key, open, now)).min()?;
        Some(next.max(api_ready).max(self.agent.ready_at(now)))
    }

    fn due_at(&self, key: &Key, open: &Open, now: Instant) -> Option<Instant> {
        open.waiting?;
        let pod = self.pods.get(&key.pod_uid).map_or(now, |bucket| bucket.ready_at(now));
        let again = open.written_at.map_or(now, |written| written + self.limits.patch_every);
        Some(pod.max(again))
    }

    /// The write that is due, if one is, and of what it is. It takes its share of both rates.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Key, Write)> {
        let key = self.longest_waiting(|key, open| self.due_at(key, open, now).is_some_and(|due| due <= now))?;
        self.pay(&key.pod_uid, now);
        let write = self.write(&key)?;
        Some((key, write))
    }

    /// Any write that waits, due or not: for the end.
    pub(super) fn take_any(&mut self) -> Option<(Key, Write)> {
        let key = self.longest_waiting(|_, open| open.waiting.is_some())?;
        let write = self.write(&key)?;
        Some((key, write))
    }

    fn longest_waiting(&self, which: impl Fn(&Key, &Open) -> bool) -> Option<Key> {
        let chosen = self.open.iter().filter(|(key, open)| which(key, open));
        let longest = chosen.min_by_key(|(_, open)| open.waiting.map(|waiting| waiting.since))?;
        Some(longest.0.clone())
    }

    fn pay(&mut self, pod_uid: &str, now: Instant) {
        self.agent.take(now);
        if !self.pods.contains_key(pod_uid) && self.pods.len() >= BUCKETS_MAX {
            self.pods.retain(|_, bucket| !bucket.is_full(now));
            let nearest = self.pods.iter().min_by_key(|(_, bucket)| bucket.ready_at(now)).map(|(uid, _)| uid.clone());
            if let Some(uid) = nearest.filter(|_| self.pods.len() >= BUCKETS_MAX) {
                self.pods.remove(&uid);
            }
        }
        let fresh = || Bucket::full(self.limits.pod_burst, self.limits.pod_every, now);
        self.pods.entry(pod_uid.to_owned()).or_insert_with(fresh).take(now);
    }

    fn write(&self, key: &Key) -> Option<Write> {
        let open = self.open.get(key)?;
        let count = open.told + open.waiting?.incidents;
        Some(match &open.created {
            Some(name) => Write::Raise {
                namespace: open.draft.pod.namespace.clone(),
                name: name.clone(),
                count,
                last: open.last.1,
            },
            None => Write::Create(Box::new(open.draft.event(&open.draft.event_name(), count, open.last.1))),
        })
    }

    /// How the write of `key` ended.
    pub(super) fn written(&mut self, key: &Key, outcome: Result<(), ApiOutcome>, now: Instant) {
        let Some(open) = self.open.get_mut(key) else { return };
        match outcome {
            Ok(()) => {
                let outcome = if open.created.is_some() { PodEventOutcome::Raised } else { PodEventOutcome::Created };
                open.created.get_or_insert_with(|| open.draft.event_name());
                open.written_at = Some(now);
                open.settle(outcome, &self.telemetry);
            }
            // It has expired on the server, or somebody deleted it: the next write creates it again.
            Err(ApiOutcome::NotFound) if open.created.take().is_some() => {
                open.told = 0;
                open.draft.time = open.last.1;
            }
            Err(outcome) if outcome.is_transient() => {}
            Err(_) => open.settle(PodEventOutcome::Refused, &self.telemetry),
        }
    }

    /// Gives up what waits for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        let patience = self.limits.event_patience;
        for open in self.open.values_mut() {
            if open.waiting.is_some_and(|waiting| now.duration_since(waiting.since) > patience) {
                open.settle(PodEventOutcome::TooLate, &self.telemetry);
            }
        }
    }
}

impl Open {
    fn new(draft: Draft, now: Instant) -> Self {
        let last = (draft.boot_time_ns, draft.time);
        let outcome = PodEventOutcome::Overflow;
        Self { draft, created: None, told: 0, waiting: None, last, written_at: None, touched_at: now, outcome }
    }

    /// What waited came to `outcome`.
    fn settle(&mut self, outcome: PodEventOutcome, telemetry: &Telemetry) {
        let Some(waiting) = self.waiting.take() else { return };
        if outcome.is_told() {
            self.told = self.told.saturating_add(waiting.incidents);
        }
        self.outcome = outcome;
        telemetry.count_pod_event(outcome, waiting.kills);
    }
}

#[cfg(test)]
mod tests;
