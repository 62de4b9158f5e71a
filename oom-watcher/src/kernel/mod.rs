//! Everything that knows the kernel: what this one has (facts), what to do about it (plan), doing it (load), and what comes
//! back (reader).

pub mod btf;
pub mod counters;
pub mod facts;
pub mod load;
pub mod plan;
pub mod reader;
