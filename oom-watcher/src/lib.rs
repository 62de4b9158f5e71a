//! The agent of oom-watcher, in the order of its flow:
//!
//! ```text
//! kernel → reader → decode → attribute → report → sinks
//! ```
//!
//! A stage never calls back. Only [`kernel`] names aya, and only it may hold `unsafe`.

pub mod cli;
pub mod config;
#[cfg(feature = "docs")]
pub mod docs;
pub mod escape;
pub mod exposition;
pub mod health;
pub mod http;
pub mod report;
pub mod sinks;
pub mod telemetry;
