//! The agent of oom-watcher, in the order of its flow:
//!
//! ```text
//! kernel → reader → decode → attribute → report → sinks
//! ```
//!
//! A stage never calls back. Only [`kernel`] names aya, and only it may hold `unsafe`.

pub mod cgroup;
pub mod report;
pub mod scope;
