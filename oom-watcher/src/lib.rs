//! The agent of oom-watcher, in the order of its flow:
//!
//! ```text
//! kernel → reader → decode → incident → attribute → report → sinks
//! ```
//!
//! A stage never calls back. Only [`kernel`] names aya, and only it may hold `unsafe`; only [`k8s`] names kube.

#![deny(unsafe_code)]

pub mod assemble;
pub mod attach;
pub mod attribute;
pub mod audit;
pub mod cgroup;
pub mod check;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod decode;
#[cfg(feature = "docs")]
pub mod docs;
pub mod drill;
pub mod end;
pub mod enrichment;
mod error;
pub mod escape;
pub mod exposition;
pub mod health;
pub mod http;
pub mod incident;
pub mod k8s;
pub mod kernel;
mod log;
pub mod names;
pub mod oom_score;
pub mod own_node;
pub mod past;
pub mod pipeline;
pub mod privileges;
pub mod report;
pub mod run;
pub mod scope;
pub mod seccomp;
pub mod sinks;
mod size;
pub mod state;
pub mod telemetry;
pub mod tick;
