//! Whether the API answers: when to ask again after a failure, and one log line per change.
//!
//! A question that is not answered in time, or by an error of the server's, says something about questions of its kind: pods
//! that are slow to read hold up no Event. What is said by the API as a whole (nobody there, too many requests, credentials not
//! accepted) pauses both kinds.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::limits::Limits;
use crate::telemetry::{ApiOutcome, ApiVerb};

/// What is known of the API from its last answers.
#[derive(Debug)]
pub(super) struct Health {
    /// Per verb: one may be forbidden while another works.
    troubles: [Option<ApiOutcome>; ApiVerb::ALL.len()],
    reads: Pause,
    writes: Pause,
    limits: Limits,
}

/// Of requests of one kind.
#[derive(Debug, Default)]
struct Pause {
    failures: u32,
    resume_at: Option<Instant>,
}

impl Health {
    pub(super) fn new(limits: Limits) -> Self {
        let troubles = [None; ApiVerb::ALL.len()];
        Self { troubles, reads: Pause::default(), writes: Pause::default(), limits }
    }

    /// When the API may be asked such a thing again: `now` or later.
    pub(super) fn ready_at(&self, verb: ApiVerb, now: Instant) -> Instant {
        let pause = if verb.is_write() { &self.writes } else { &self.reads };
        pause.resume_at.map_or(now, |resume| resume.max(now))
    }

    /// Takes note of an answer. `retry_after`: how long the API asks to be left alone.
    pub(super) fn note(&mut self, verb: ApiVerb, outcome: ApiOutcome, retry_after: Option<Duration>, now: Instant) {
        let (own, other) =
            if verb.is_write() { (&mut self.writes, &mut self.reads) } else { (&mut self.reads, &mut self.writes) };
        if outcome.is_transient() {
            let asked = retry_after.map(|pause| pause.min(self.limits.retry_after_max)).unwrap_or_default();
            own.lengthen(asked, &self.limits, now);
            if outcome.is_of_the_whole_api() {
                other.resume_at = other.resume_at.max(own.resume_at);
            }
        } else {
            *own = Pause::default();
        }
        self.tell(verb, outcome);
    }

    fn tell(&mut self, verb: ApiVerb, outcome: ApiOutcome) {
        let trouble = (outcome.is_transient() || outcome == ApiOutcome::Forbidden).then_some(outcome);
        let before = std::mem::replace(&mut self.troubles[verb as usize], trouble);
        if before == trouble {
            return;
        }
        let optional = verb == ApiVerb::List;
        let verb = verb.as_str();
        match trouble {
            None => info!(verb, "The Kubernetes API answers again"),
            // A choice of whoever installed this, and not a trouble.
            Some(ApiOutcome::Forbidden) if optional => {
                info!("This agent may not list pods: a pod that has no name on its node has no Event");
            }
            Some(ApiOutcome::Forbidden) => warn!(verb, "The Kubernetes API forbids what was asked of it"),
            Some(outcome) => warn!(verb, outcome = outcome.as_str(), "The Kubernetes API does not answer"),
        }
    }
}

impl Pause {
    fn lengthen(&mut self, asked: Duration, limits: &Limits, now: Instant) {
        let doubled = limits.backoff_min.saturating_mul(1 << self.failures.min(16)).min(limits.backoff_max);
        self.failures = self.failures.saturating_add(1);
        self.resume_at = Some(now + asked.max(jittered(doubled)));
    }
}

/// Between a half and the whole of `pause`, so that the agents of a cluster do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    // The standard library's hasher is seeded at random; more randomness than that is not needed.
    let random = RandomState::new().hash_one(0_u8) >> 32;
    pause.mul_f64(0.5 + 0.5 * (random as f64 / f64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::default()
    }

    #[track_caller]
    fn check_pause(health: &Health, verb: ApiVerb, now: Instant, least: u64, most: u64) {
        let pause = health.ready_at(verb, now) - now;
        assert!(pause >= Duration::from_millis(least) && pause <= Duration::from_millis(most), "{pause:?}");
    }

    #[test]
    fn pauses_double_to_the_limit_and_end_with_an_answer() {
        let now = Instant::now();
        let mut health = Health::new(limits());
        check_pause(&health, ApiVerb::Get, now, 0, 0);
        for most in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            health.note(ApiVerb::Get, ApiOutcome::ServerError, None, now);
            check_pause(&health, ApiVerb::List, now, most / 2, most);
        }
        health.note(ApiVerb::Get, ApiOutcome::NotFound, None, now);
        check_pause(&health, ApiVerb::Get, now, 0, 0);
        health.note(ApiVerb::Get, ApiOutcome::Timeout, None, now);
        check_pause(&health, ApiVerb::Get, now, 500, 1_000);
    }

    #[test]
    fn slow_reads_hold_up_no_writes_but_an_api_that_is_away_does() {
        let now = Instant::now();
        for outcome in [ApiOutcome::Timeout, ApiOutcome::ServerError] {
            let mut health = Health::new(limits());
            health.note(ApiVerb::Get, outcome, None, now);
            check_pause(&health, ApiVerb::Get, now, 500, 1_000);
            check_pause(&health, ApiVerb::Create, now, 0, 0);
        }
        for outcome in [ApiOutcome::Unreachable, ApiOutcome::Throttled, ApiOutcome::Unauthorized] {
            let mut health = Health::new(limits());
            health.note(ApiVerb::Patch, outcome, None, now);
            check_pause(&health, ApiVerb::Get, now, 500, 1_000);
            check_pause(&health, ApiVerb::Create, now, 500, 1_000);
            health.note(ApiVerb::Create, ApiOutcome::Ok, None, now);
            check_pause(&health, ApiVerb::Create, now, 0, 0);
            check_pause(&health, ApiVerb::Get, now, 500, 1_000);
        }
    }

    #[test]
    fn the_api_may_ask_for_a_longer_pause_but_not_for_any() {
        let now = Instant::now();
        let mut health = Health::new(limits());
        health.note(ApiVerb::Get, ApiOutcome::Throttled, Some(Duration::from_secs(7)), now);
        check_pause(&health, ApiVerb::Get, now, 7_000, 7_000);
        health.note(ApiVerb::Get, ApiOutcome::Throttled, Some(Duration::from_hours(24)), now);
        check_pause(&health, ApiVerb::Get, now, 300_000, 300_000);
        health.note(ApiVerb::Get, ApiOutcome::Throttled, Some(Duration::ZERO), now);
        check_pause(&health, ApiVerb::Get, now, 2_000, 4_000);
    }

    #[test]
    fn what_is_forbidden_is_no_reason_to_wait() {
        let now = Instant::now();
        let mut health = Health::new(limits());
        health.note(ApiVerb::Create, ApiOutcome::Forbidden, None, now);
        check_pause(&health, ApiVerb::Create, now, 0, 0);
    }
}
