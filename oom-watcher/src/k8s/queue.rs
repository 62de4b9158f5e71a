//! Kills on their way to the task that talks to the API, in a stated number of places.
//!
//! The victims of one incident in one container have one Event and one enrichment between them, so they take one place: a
//! group kill of any size, though it is handed over in one go, is one.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::Notify;

use crate::report::{Kubernetes, OomReport};

/// A kill in a pod, and those of its incident in the same container that came while it waited.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) report: Box<OomReport>,
    pub(super) kills: u64,
    pub(super) since: Instant,
    /// Its Event is on its way, whether the pod is known or not.
    pub(super) drafted: bool,
}

/// Kills that wait, oldest first.
#[derive(Debug)]
pub(super) struct Places {
    jobs: VecDeque<Job>,
    max: usize,
}

/// Between those who report and the task: the one side never waits, the other does.
#[derive(Debug)]
pub(super) struct Queue {
    places: Mutex<Places>,
    news: Notify,
    closed: AtomicBool,
}

impl Job {
    pub(super) fn new(report: OomReport, since: Instant) -> Self {
        Self { report: Box::new(report), kills: 1, since, drafted: false }
    }

    pub(super) fn victim(&self) -> Option<&Kubernetes> {
        self.report.kubernetes.as_ref()
    }

    /// Whether both are of one incident, and in one container.
    fn is_with(&self, other: &OomReport) -> bool {
        self.report.incident.id == other.incident.id && container(&self.report) == container(other)
    }

    /// A later report of the incident may know of more victims.
    fn add(&mut self, report: &OomReport, kills: u64) {
        self.kills += kills;
        self.report.incident.victims = self.report.incident.victims.max(report.incident.victims);
    }
}

fn container(report: &OomReport) -> Option<(&str, Option<&str>)> {
    let victim = report.kubernetes.as_ref()?;
    Some((&victim.pod_uid, victim.container_id.as_deref()))
}

impl Places {
    pub(super) fn new(max: usize) -> Self {
        Self { jobs: VecDeque::new(), max }
    }

    /// The kill that another one of its incident and container can join. The newest first: an incident's kills come one after
    /// the other.
    pub(super) fn mate(&mut self, report: &OomReport) -> Option<&mut Job> {
        self.jobs.iter_mut().rev().find(|job| job.is_with(report))
    }

    /// Takes a kill in, or gives it back where there is no place.
    pub(super) fn push(&mut self, job: Job) -> Result<(), Job> {
        if let Some(mate) = self.mate(&job.report) {
            mate.add(&job.report, job.kills);
        } else if self.jobs.len() < self.max {
            self.jobs.push_back(job);
        } else {
            return Err(job);
        }
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    pub(super) fn front(&self) -> Option<&Job> {
        self.jobs.front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.jobs.iter_mut()
    }

    /// Takes out those that are so.
    pub(super) fn take_those(&mut self, so: impl Fn(&Job) -> bool) -> Vec<Job> {
        let (taken, left) = std::mem::take(&mut self.jobs).into_iter().partition(so);
        self.jobs = left;
        Vec::from(taken)
    }

    pub(super) fn taken(&self) -> usize {
        self.jobs.len()
    }
}

impl Queue {
    pub(super) fn new(max: usize) -> Self {
        Self { places: Mutex::new(Places::new(max)), news: Notify::new(), closed: AtomicBool::new(false) }
    }

    /// False: there was no place. Never blocks.
    pub(super) fn push(&self, report: &OomReport, now: Instant) -> bool {
        let mut places = self.places();
        let pushed = match places.mate(report) {
            Some(mate) => {
                mate.add(report, 1);
                true
            }
            None => places.push(Job::new(report.clone(), now)).is_ok(),
        };
        drop(places);
        self.news.notify_one();
        pushed
    }

    pub(super) fn pop(&self) -> Option<Job> {
        self.places().pop()
    }

    /// Places that are taken.
    pub(super) fn taken(&self) -> usize {
        self.places().taken()
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.news.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Resolves when there may be something new since the last call. There is one reader.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
