//! A timer of the kernel, awaited: one wake-up for each tick.
//!
//! tokio keeps its own timers in a wheel of levels and also wakes where one of them passes from a level to the next: two or three
//! times in ten seconds, for nothing.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Ticks that are at least a period apart: after one that came late, the next is a whole period away.
#[derive(Debug)]
pub struct Tick {
    timer: AsyncFd<OwnedFd>,
    period: Duration,
}

impl Tick {
    /// The first one is due at once. Needs the runtime, and a system call that is not allowed later.
    pub fn every(period: Duration) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // Zero would stop it.
        set(&timer, Duration::from_nanos(1))?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe, for types whose descriptor may change; OwnedFd's cannot"
        )]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Self { timer, period })
    }

    /// Waits for the next one.
    ///
    /// Cancel safety: a tick is taken only after the wait, without another await.
    pub async fn next(&self) -> io::Result<()> {
        loop {
            let mut guard = self.timer.readable().await?;
            // How often it has gone off: once, for it is set anew each time.
            let gone_off = guard.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?));
            if let Ok(read) = gone_off {
                read?;
                return Ok(set(self.timer.get_ref(), self.period)?);
            }
        }
    }
}

/// Goes off once, after this time.
fn set(timer: &OwnedFd, after: Duration) -> rustix::io::Result<()> {
    let it_value = Timespec { tv_sec: after.as_secs().cast_signed(), tv_nsec: after.subsec_nanos().into() };
    let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const PERIOD: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn the_first_is_due_at_once_and_the_others_are_a_period_apart() {
        let begun = Instant::now();
        let tick = Tick::every(PERIOD).unwrap();
        tick.next().await.unwrap();
        for ticks in 1..=3 {
            tick.next().await.unwrap();
            assert!(begun.elapsed() >= PERIOD * ticks);
        }
    }

    #[tokio::test]
    async fn after_a_late_one_the_next_is_a_whole_period_away() {
        let tick = Tick::every(PERIOD).unwrap();
        tick.next().await.unwrap();
        std::thread::sleep(PERIOD * 5 / 2);
        tick.next().await.unwrap();
        let late = Instant::now();
        tick.next().await.unwrap();
        // The clocks are read one after the other.
        assert!(late.elapsed() + Duration::from_millis(5) >= PERIOD, "{:?}", late.elapsed());
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_loses_no_tick() {
        let tick = Tick::every(PERIOD).unwrap();
        tick.next().await.unwrap();
        assert!(tokio::time::timeout(PERIOD / 5, tick.next()).await.is_err());
        tick.next().await.unwrap();
    }
}
