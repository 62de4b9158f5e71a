//! A rate limit: so many at once, then one per interval.

use std::time::{Duration, Instant};

/// A token bucket, kept as the one instant at which it would be full again (the generic cell rate algorithm): a bucket
/// that is full says no more than one that was never used, so it can be forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    full_at: Instant,
    burst: u32,
    every: Duration,
}

impl Bucket {
    /// Full: `burst` may be taken at once, and one more after each `every`.
    pub(super) fn full(burst: u32, every: Duration, now: Instant) -> Self {
        Self { full_at: now, burst, every }
    }

    /// When the next one may be taken: `now` or later.
    pub(super) fn ready_at(&self, now: Instant) -> Instant {
        let lead = self.every * self.burst.saturating_sub(1);
        self.full_at.checked_sub(lead).map_or(now, |ready| ready.max(now))
    }

    /// Takes one, whether it is there or not: who calls this has waited for [`Self::ready_at`].
    pub(super) fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.every;
    }

    /// Nothing has been taken that has not come back.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    #[test]
    fn a_burst_then_one_per_interval() {
        let start = Instant::now();
        let mut bucket = Bucket::full(3, EVERY, start);
        for _ in 0..3 {
            assert_eq!(bucket.ready_at(start), start);
            bucket.take(start);
        }
        assert_eq!(bucket.ready_at(start), start + EVERY);
        assert!(!bucket.is_full(start + 2 * EVERY));
        assert!(bucket.is_full(start + 3 * EVERY));
    }

    proptest! {
        /// In any window of time no more go through than the burst and what came back in it.
        #[test]
        fn the_rate_holds(pauses in prop::collection::vec(0_u64..40, 1..100)) {
            let start = Instant::now();
            let mut bucket = Bucket::full(5, EVERY, start);
            let mut now = start;
            let mut taken = Vec::new();
            for pause in pauses {
                now += Duration::from_secs(pause);
                if bucket.ready_at(now) == now {
                    bucket.take(now);
                    taken.push(now);
                }
            }
            for (first, from) in taken.iter().enumerate() {
                for (last, to) in taken.iter().enumerate().skip(first) {
                    let came_back = to.duration_since(*from).as_secs() / EVERY.as_secs();
                    prop_assert!((last - first + 1) as u64 <= 5 + came_back + 1);
                }
            }
        }
    }
}
