//! The clock since boot, on which the kernel program times kills, and how far the wall clock is from it.

use jiff::SignedDuration;
use rustix::time::{ClockId, clock_gettime};

/// Now, in nanoseconds since boot.
pub fn boot_ns() -> u64 {
    u64::try_from(read(ClockId::Boottime).as_nanos()).unwrap_or(0)
}

/// Wall clock minus the clock since boot.
pub fn boot_to_wall() -> SignedDuration {
    read(ClockId::Realtime) - read(ClockId::Boottime)
}

fn read(clock: ClockId) -> SignedDuration {
    let time = clock_gettime(clock);
    SignedDuration::new(time.tv_sec, i32::try_from(time.tv_nsec).unwrap_or(0))
}
