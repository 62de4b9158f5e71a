//! Whether the watcher is ready (attached, and the names of the node's containers are known) and alive (its reader makes
//! progress): the answers of `/readyz` and `/livez`.
//!
//! The parts report here; nothing here asks them.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long the reader may be silent. It beats every ten seconds (`pipeline::TICK`) even when nothing is killed, so this is a reader that
/// has ended or hangs, not a quiet or a busy machine.
pub const READER_SILENCE_MAX: Duration = Duration::from_secs(30);

/// The state of the parts that readiness and liveness depend on.
#[derive(Debug)]
pub struct Health {
    /// Some hook that sees every victim is attached.
    attached: AtomicBool,
    /// The index of container names has been read once, or cannot be had and has said so.
    names_known: AtomicBool,
    /// When the reader last showed progress, in milliseconds since `start`; the start itself counts as progress.
    reader_beat_ms: AtomicU64,
    start: Instant,
}

impl Health {
    /// Nothing is ready; the reader's time runs from `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            attached: AtomicBool::new(false),
            names_known: AtomicBool::new(false),
            reader_beat_ms: AtomicU64::new(0),
            start: now,
        }
    }

    /// A hook that sees every victim is attached; it stays so.
    pub fn set_attached(&self) {
        self.attached.store(true, Ordering::Relaxed);
    }

    /// The names of the containers that ran at the start are known; it stays so.
    pub fn set_names_known(&self) {
        self.names_known.store(true, Ordering::Relaxed);
    }

    /// The reader's loop has come round: a batch was taken, or a tick came.
    pub fn reader_beat(&self, now: Instant) {
        self.reader_beat_ms.fetch_max(self.since_start_ms(now), Ordering::Relaxed);
    }

    /// Why the watcher is not alive; none: it is.
    pub fn not_live_because(&self, now: Instant) -> Option<String> {
        let silent_ms = self.since_start_ms(now).saturating_sub(self.reader_beat_ms.load(Ordering::Relaxed));
        let silent = Duration::from_millis(silent_ms);
        (silent > READER_SILENCE_MAX)
            .then(|| format!("the reader of the ring buffer has made no progress for {} s", silent.as_secs()))
    }

    /// Everything that is missing for the watcher to be ready; empty: it is.
    pub fn not_ready_because(&self, now: Instant) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.attached.load(Ordering::Relaxed) {
            reasons.push("no hook is attached that sees the victims".to_owned());
        }
        if !self.names_known.load(Ordering::Relaxed) {
            reasons.push("the index of container names has not been filled yet".to_owned());
        }
        reasons.extend(self.not_live_because(now));
        reasons
    }

    fn since_start_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_all_parts() {
        let start = Instant::now();
        let health = Health::new(start);
        assert_eq!(
            health.not_ready_because(start),
            ["no hook is attached that sees the victims", "the index of container names has not been filled yet"]
        );
        health.set_attached();
        assert_eq!(health.not_ready_because(start), ["the index of container names has not been filled yet"]);
        health.set_names_known();
        assert!(health.not_ready_because(start).is_empty());
    }

    #[test]
    fn live_until_the_reader_is_silent() {
        let start = Instant::now();
        let health = Health::new(start);
        let late = start + READER_SILENCE_MAX + Duration::from_secs(1);
        assert_eq!(health.not_live_because(start + READER_SILENCE_MAX), None);
        assert_eq!(
            health.not_live_because(late).as_deref(),
            Some("the reader of the ring buffer has made no progress for 31 s")
        );
        assert!(health.not_ready_because(late).len() == 3, "a dead reader is not ready either");
        health.reader_beat(late);
        assert_eq!(health.not_live_because(late), None);
        health.reader_beat(start);
        assert_eq!(health.not_live_because(late), None, "a late beat does not turn the clock back");
    }
}
