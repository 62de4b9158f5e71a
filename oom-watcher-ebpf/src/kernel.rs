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
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) u64);

impl Address {
    /// The address of a field, when this kernel has it and the structure is there.
    #[inline(always)]
    pub(crate) fn field(self, offset: u32) -> Option<Self> {
        if self.0 == 0 || offset == ABSENT { None } else { Some(Self(self.0 + u64::from(offset))) }
    }

    /// Reads a value; nothing when the address is bad.
    #[inline(always)]
    pub(crate) fn read<T: Copy>(self) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        if !self.read_into(value.as_mut_ptr()) {
            return None;
        }
        // SAFETY: the helper filled all of it, and every `T` used here is a plain integer.
        Some(unsafe { value.assume_init() })
    }

    /// Reads a value into place; the place is zeroed when the address is bad.
    #[inline(always)]
    pub(crate) fn read_into<T: Copy>(self, place: *mut T) -> bool {
        // SAFETY: `place` is valid for `size_of::<T>()` bytes, and the helper copes with any source address.
        unsafe { generated::bpf_probe_read_kernel(place.cast(), size_of::<T>() as u32, self.0 as *const _) == 0 }
    }

    /// Reads a string of at most `size - 1` bytes and its NUL into place; how many bytes that were, with the NUL.
    #[inline(always)]
    pub(crate) fn read_string(self, place: *mut u8, size: u32) -> Option<u32> {
        // SAFETY: the callers give a place of at least `size` bytes, and the helper copes with any source address.
        let read = unsafe { generated::bpf_probe_read_kernel_str(place.cast(), size, self.0 as *const _) };
        if read > 0 && read <= i64::from(size) { Some(read as u32) } else { None }
    }

    /// Reads a field.
    #[inline(always)]
    pub(crate) fn read_field<T: Copy>(self, offset: u32) -> Option<T> {
        self.field(offset)?.read()
    }

    /// Follows a pointer in a field; nothing when it is null.
    #[inline(always)]
    pub(crate) fn follow(self, offset: u32) -> Option<Self> {
        match self.read_field::<u64>(offset) {
            Some(0) | None => None,
            Some(address) => Some(Self(address)),
        }
    }
}
