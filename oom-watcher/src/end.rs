//! How long the end of the process may take, and until when each part of it.
//!
//! Nobody waits longer than the kubelet does: what has no end by then is counted or left to the next watcher, never waited for.

use std::time::{Duration, Instant};

use crate::attribute;

/// All of it, less than the chart's `terminationGracePeriodSeconds`, after which the kubelet kills.
const ALL: Duration = Duration::from_secs(8);
/// What the sinks have at the least: names are searched for before, for no longer than any search may take.
const OF_SINKS: Duration = Duration::from_millis(2500);
/// What is kept for the state file and the server.
const AFTER_SINKS: Duration = Duration::from_millis(1500);
/// What is kept for the server.
const AFTER_STATE: Duration = Duration::from_millis(500);

const _: () = assert!(
    attribute::DEADLINE.as_millis() + OF_SINKS.as_millis() + AFTER_SINKS.as_millis() <= ALL.as_millis(),
    "a search for names may end by itself"
);

/// The end that has begun.
#[derive(Clone, Copy, Debug)]
pub struct End {
    at: Instant,
}

impl End {
    /// It begins.
    pub fn begin(now: Instant) -> Self {
        Self { at: now + ALL }
    }

    /// Until when lines and Events may be written.
    pub fn of_sinks(self) -> Instant {
        self.before(AFTER_SINKS)
    }

    /// Until when the state file may be written.
    pub fn of_state(self) -> Instant {
        self.before(AFTER_STATE)
    }

    /// Until when answers of the server may be under way: the end of all.
    pub fn of_all(self) -> Instant {
        self.at
    }

    fn before(self, rest: Duration) -> Instant {
        self.at.checked_sub(rest).unwrap_or(self.at)
    }
}

/// What is left until then.
pub fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_is_over_before_the_kubelet_kills() {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/oom-watcher/values.yaml");
        let values = std::fs::read_to_string(chart).unwrap();
        let line = values.lines().find_map(|line| line.strip_prefix("terminationGracePeriodSeconds: ")).unwrap();
        let grace = Duration::from_secs(line.trim().parse().unwrap());
        assert!(ALL + Duration::from_secs(1) < grace, "a second to start and to exit: {ALL:?} of {grace:?}");
    }

    #[test]
    fn each_part_ends_before_the_next() {
        let now = Instant::now();
        let end = End::begin(now);
        let parts = [now, end.of_sinks(), end.of_state(), end.of_all()];
        assert!(parts.is_sorted_by(|earlier, later| earlier < later), "{parts:?}");
    }
}
