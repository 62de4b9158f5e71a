//! Reads of kernel memory, and the global that says where things are.

use aya_ebpf::helpers::generated;
use core::mem::MaybeUninit;
use oom_watcher_common::layout::{ABSENT, Layout};

/// Filled by the agent before load; the map behind it is frozen, so the verifier sees constants.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Layout = Layout::UNKNOWN;

/// One field of the layout.
macro_rules! layout {
    ($field:ident) => {
        $crate::kernel::constant(::core::ptr::addr_of!($crate::kernel::LAYOUT.$field))
    };
}
pub(crate) use layout;

/// Reads one field of the global as it is at run time, not as it was compiled. Fields are read one by one: a copy of the
/// whole would take a quarter of the stack.
#[inline(always)]
pub(crate) fn constant<T: Copy>(field: *const T) -> T {
    // SAFETY: `field` points into LAYOUT, which is initialised and lives for ever; volatile, because the agent replaces
    // the value before load, which the compiler cannot know.
    unsafe { field.read_volatile() }
}

/// A kernel address. It may be anything: every access goes through a helper that checks it.
///
/// Nothing here reports failure. A bad address reads as zero (the helper zeroes what it cannot fill), and so does whatever
/// hangs off it, which keeps the program straight: each branch would double what the verifier has to go through. What is
/// valid is said by the layout and by the few pointers that may be null.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) u64);

impl Address {
    /// Reads a plain integer at an offset; zero where this kernel has no such field.
    #[inline(always)]
    pub(crate) fn get<T: Copy>(self, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        if offset != ABSENT {
            self.read_into(offset, value.as_mut_ptr());
        }
        // SAFETY: all of it was zeroed or filled, and every `T` used here is a plain integer.
        unsafe { value.assume_init() }
    }

    /// Follows a pointer at an offset.
    #[inline(always)]
    pub(crate) fn follow(self, offset: u32) -> Self {
        Self(self.get(offset))
    }

    /// The address of a field that is there.
    #[inline(always)]
    pub(crate) fn at(self, offset: u32) -> Self {
        Self(self.0.wrapping_add(u64::from(offset)))
    }

    /// Reads a value into place.
    #[inline(always)]
    pub(crate) fn read_into<T: Copy>(self, offset: u32, place: *mut T) {
        // SAFETY: `place` is valid for `size_of::<T>()` bytes, and the helper copes with any source address.
        unsafe { generated::bpf_probe_read_kernel(place.cast(), size_of::<T>() as u32, self.at(offset).0 as *const _) };
    }

    /// Reads a string of at most `size - 1` bytes and its NUL into place: the bytes read with the NUL, or an error below 0.
    #[inline(always)]
    pub(crate) fn read_string(self, place: *mut u8, size: u32) -> i64 {
        // SAFETY: the callers give a place of at least `size` bytes, and the helper copes with any source address.
        unsafe { generated::bpf_probe_read_kernel_str(place.cast(), size, self.0 as *const _) }
    }
}
