//! One watcher for all scenarios that want it as it starts by default: to load the programs is most of what an emulated
//! guest takes.
//!
//! A session is one scenario's view of it: events of cgroups that the scenario made, and counters by what they grew.
//! Whatever comes that nobody expects is a failure, of the scenario in which it comes. A scenario that fails takes its
//! watcher along, and the next one starts another.

use std::{
    ops::Deref,
    sync::{Mutex, PoisonError},
    thread,
};

use serde_json::Value;

use crate::{
    cgroup, machine,
    watcher::{Watcher, sample_of},
};

static SHARED: Mutex<Option<Running>> = Mutex::new(None);

struct Running {
    watcher: Watcher,
    /// Kills that the kernel had counted just before it was started.
    kills_before: u64,
}

/// Ends the watcher that scenarios shared, if the last of them has not: it would outlive the suite.
pub(crate) fn end() {
    drop(SHARED.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// The watcher, for one scenario.
pub(crate) struct Session {
    /// Absent only while it is given back.
    running: Option<Running>,
    /// The metrics when the session began.
    before: String,
    /// Cgroups from this number on are this scenario's.
    first_cgroup: u32,
    /// Paths that begin so are this scenario's too.
    also: Option<&'static str>,
}

impl Session {
    /// Begins a session, with the watcher that runs or a new one.
    #[track_caller]
    pub(crate) fn open() -> Self {
        let running = SHARED.lock().unwrap_or_else(PoisonError::into_inner).take();
        let running = running.unwrap_or_else(|| {
            let kills_before = machine::vmstat_kills();
            Running { watcher: Watcher::start(), kills_before }
        });
        let late = running.watcher.waiting();
        let before = running.watcher.get("/metrics");
        let session = Self { running: Some(running), before, first_cgroup: cgroup::made(), also: None };
        let late: Vec<Value> = late.into_iter().filter(Self::is_anybodys).collect();
        assert!(late.is_empty(), "events after the end of the scenario before: {late:#?}");
        session
    }

    /// As [`Self::open`]; kills in cgroups whose path begins so are expected too.
    #[track_caller]
    pub(crate) fn with(also: &'static str) -> Self {
        let mut session = Self::open();
        session.also = Some(also);
        session
    }

    /// The next `count` events of this scenario, in their order.
    #[track_caller]
    pub(crate) fn events(&self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            let event = self.running().watcher.event();
            if self.is_ours(&event) {
                events.push(event);
            }
        }
        events
    }

    /// The next event.
    #[track_caller]
    pub(crate) fn event(&self) -> Value {
        self.events(1).remove(0)
    }

    /// Exactly these many events, and then silence.
    #[track_caller]
    pub(crate) fn exactly(&self, count: usize) -> Vec<Value> {
        let events = self.events(count);
        self.silent();
        events
    }

    /// Every event until it has been silent for a while.
    #[track_caller]
    pub(crate) fn rest(&self) -> Vec<Value> {
        self.running().watcher.rest().into_iter().filter(|event| self.is_ours(event)).collect()
    }

    /// No event comes.
    #[track_caller]
    pub(crate) fn silent(&self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "events that nobody was killed for: {rest:#?}");
    }

    /// What a sample on /metrics has grown by in this session: its name with labels, as it stands there.
    #[track_caller]
    pub(crate) fn grown(&self, sample: &str) -> f64 {
        self.metric(sample) - sample_of(&self.before, sample)
    }

    /// Kills that the kernel had counted just before the watcher was started.
    pub(crate) fn kills_before(&self) -> u64 {
        self.running().kills_before
    }

    /// Ends the watcher, and gives the events that nobody has taken.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Vec<Value> {
        let running = self.running.take().expect("it is given back once");
        running.watcher.stop()
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it is given back only at the end")
    }

    /// Whether an event is of a cgroup of this scenario. One of another is a failure, but for kills that others cause on a
    /// machine that is not the suite's alone.
    #[track_caller]
    fn is_ours(&self, event: &Value) -> bool {
        let path = event["cgroup"]["path"].as_str().unwrap_or_default();
        let own = cgroup::number(path).is_some_and(|number| number >= self.first_cgroup)
            || self.also.is_some_and(|start| path.starts_with(start));
        assert!(own || !Self::is_anybodys(event), "a kill of another scenario: {event:#}");
        own
    }

    /// Whether somebody of the suite must have expected it: in a guest there is nobody else.
    fn is_anybodys(event: &Value) -> bool {
        machine::in_guest() || event["cgroup"]["path"].as_str().is_some_and(|path| cgroup::number(path).is_some())
    }
}

impl Deref for Session {
    type Target = Watcher;

    fn deref(&self) -> &Watcher {
        &self.running().watcher
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !thread::panicking() {
            *SHARED.lock().unwrap_or_else(PoisonError::into_inner) = self.running.take();
        }
    }
}
