//! The wire types between the kernel program and the agent, and nothing else.
//!
//! Both sides are built from this one source; the object that is committed carries [`ABI_VERSION`] in every record, so an
//! agent that reads a ring buffer which another version left pinned can tell. Rules of the wire: fixed-width integers,
//! no implicit padding, no `bool`, no `enum`, no `Option` in a shared struct; a field that the kernel did not give has its
//! bit in `valid` clear, so absent is never zero.
#![no_std]
#![forbid(unsafe_code)]

pub mod counter;
pub mod layout;
pub mod record;

/// The version of every record's layout. A change of any struct in [`record`] raises it.
pub const ABI_VERSION: u16 = 2;
