//! When the API server fails, and how.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// How the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Well,
    Failing,
    Forbidding,
    Unauthorized,
    Throttling,
    Silent,
    Garbage,
    Gone,
    Closed,
}

impl Phase {
    /// The faults, in their order.
    pub(super) const FAULTS: [Self; 8] = [
        Self::Forbidding,
        Self::Failing,
        Self::Gone,
        Self::Throttling,
        Self::Closed,
        Self::Silent,
        Self::Garbage,
        Self::Unauthorized,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Failing => "500",
            Self::Forbidding => "403",
            Self::Unauthorized => "401",
            Self::Throttling => "429",
            Self::Silent => "silent",
            Self::Garbage => "garbage",
            Self::Gone => "410",
            Self::Closed => "closed",
        }
    }
}

/// Units of time that the server is well before each fault, which lasts one. In the last of them it has been well for so long that
/// a watcher's pauses after the fault before are over: they double with each failure, so they are about as long as the fault was.
const WELL: u32 = 3;
/// The longest unit: in an hour, each fault comes five times.
const UNIT_MAX: Duration = Duration::from_secs(20);

/// What comes when.
pub(super) struct Schedule {
    begun: Instant,
    unit: Duration,
    over: AtomicBool,
}

impl Schedule {
    /// Every fault comes within `length`.
    pub(super) fn new(length: Duration) -> Self {
        let units = (WELL + 1) * Phase::FAULTS.len() as u32;
        Self { begun: Instant::now(), unit: UNIT_MAX.min(length / units), over: AtomicBool::new(false) }
    }

    /// How the server is now.
    pub(super) fn phase(&self) -> Phase {
        let (round, unit) = self.now();
        if unit < WELL { Phase::Well } else { Phase::FAULTS[round % Phase::FAULTS.len()] }
    }

    /// The server is well, and has been for long enough that nothing of a fault is left.
    pub(super) fn steady(&self) -> bool {
        self.now().1 == WELL - 1
    }

    /// It is well from now on.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// How many faults there have been, and which unit of the present round it is.
    fn now(&self) -> (usize, u32) {
        if self.over.load(Ordering::Relaxed) {
            return (0, 0);
        }
        let units = (self.begun.elapsed().as_nanos() / self.unit.as_nanos()) as u32;
        ((units / (WELL + 1)) as usize, units % (WELL + 1))
    }
}
