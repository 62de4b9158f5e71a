//! How soon a CPU is had on a busy machine: the scheduler's slice.
//!
//! Of the tasks that want a CPU, the one with the earliest deadline has it, and a deadline is a slice away; one with a shorter
//! slice may take it from one with a longer. The watcher needs a fraction of a millisecond for a kill, and asks for a slice of that
//! length: its share of the CPU stays what it is, and no privilege is needed. `Documentation/scheduler/sched-eevdf.rst`; since
//! Linux 6.12 (`sched_runtime` in `sched_setattr(2)`), before which the kernel ignores it.

use std::io;

/// The least that the kernel gives (`__setparam_fair`).
const SLICE_NS: u64 = 100_000;

/// Asks for a short slice for the calling thread and those that it will start. Where the thread is scheduled in real time, or by
/// deadlines, it stays as it is.
pub fn shorten() -> io::Result<()> {
    let mut attributes = own()?;
    if attributes.sched_policy != libc::SCHED_OTHER.cast_unsigned() {
        return Ok(());
    }
    attributes.sched_runtime = SLICE_NS;
    // SAFETY: the kernel reads `size` bytes from the pointer, which is the size of what it points at.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// What the calling thread has.
fn own() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>();
    let mut attributes = libc::sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes to the pointer, which is the size of what it points at; any bytes are a value
    // of its type.
    done(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) })?;
    Ok(attributes)
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_and_those_that_it_starts_have_a_short_slice_and_nothing_else_changes() {
        let [before, after, child] = std::thread::spawn(|| {
            let before = own().unwrap();
            shorten().unwrap();
            let child = std::thread::spawn(|| own().unwrap());
            [before, own().unwrap(), child.join().unwrap()]
        })
        .join()
        .unwrap();
        let rest = |of: &libc::sched_attr| (of.sched_policy, of.sched_flags, of.sched_nice, of.sched_priority);
        assert_eq!([rest(&after), rest(&child)], [rest(&before); 2]);
        // A kernel before 6.12 tells nothing of slices.
        let expected = if before.sched_runtime == 0 { 0 } else { SLICE_NS };
        assert_eq!([after.sched_runtime, child.sched_runtime], [expected; 2]);
    }
}
