//! The kernel program's counters, as memory of this process.

use std::{io, os::fd::BorrowedFd, ptr::NonNull};

use oom_watcher_common::counter;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// How many there are.
const COUNT: usize = counter::COUNT as usize;

/// The counter map, mapped: reading it takes no system call and so no capability.
#[derive(Debug)]
pub struct Counters {
    first: NonNull<u64>,
    length: usize,
}

// SAFETY: the memory is shared with the kernel and only ever read here, a whole aligned word at a time.
unsafe impl Send for Counters {}
// SAFETY: as above; several readers do not disturb each other.
unsafe impl Sync for Counters {}

impl Counters {
    /// Maps the array behind a map's file descriptor, which may be closed afterwards.
    pub(super) fn map(map: BorrowedFd<'_>) -> io::Result<Self> {
        let length = (COUNT * size_of::<u64>()).next_multiple_of(rustix::param::page_size());
        // SAFETY: a new mapping at an address of the kernel's choice, so it replaces none that is in use.
        let address = unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, map, 0) }?;
        let first = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { first, length })
    }

    /// Each slot of [`oom_watcher_common::counter`].
    pub fn read(&self) -> [u64; COUNT] {
        std::array::from_fn(|slot| {
            // SAFETY: the slot is within the mapping, which is at least COUNT words long and starts on a page.
            let place = unsafe { self.first.add(slot) };
            // SAFETY: the place is mapped for reading as long as `self` lives; volatile, for the kernel changes it.
            unsafe { place.read_volatile() }
        })
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made, and nobody holds a reference into it.
        let unmapped = unsafe { munmap(self.first.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own can be given back");
    }
}
