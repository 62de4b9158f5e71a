//! Everything that knows the kernel: what this one has (facts), and what to do about it (plan).

pub mod btf;
pub mod facts;
pub mod plan;
