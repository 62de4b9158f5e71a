//! Everything that knows the kernel: what this one has (facts), what to do about it (plan), doing it (load), and what comes
//! back (reader).

pub mod btf;
#[expect(unsafe_code, reason = "it maps the kernel program's memory")]
pub mod counters;
pub mod facts;
#[expect(unsafe_code, reason = "aya's Pod for the read-only global")]
pub mod load;
#[expect(unsafe_code, reason = "the allocator's trim, and pages of code")]
pub mod memory;
pub mod pin;
pub mod plan;
#[expect(unsafe_code, reason = "tokio wants the promise that the descriptor stays open")]
pub mod reader;
#[expect(unsafe_code, reason = "system calls that no library has")]
pub mod slice;
