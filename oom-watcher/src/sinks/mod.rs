//! Where reports go: metrics, standard output.
//!
//! No sink waits for the outside world on the caller's time, and none stops another: each counts what it loses.

pub mod json;
pub mod metrics;
#[cfg(test)]
pub(crate) mod samples;
pub mod stdout;
pub mod text;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    report::OomReport,
    sinks::{metrics::KillMetrics, stdout::StdoutSink},
    telemetry::{Stage, Telemetry},
};

/// All sinks of this run.
#[derive(Debug)]
pub struct Sinks {
    metrics: Arc<KillMetrics>,
    stdout: StdoutSink,
    telemetry: Arc<Telemetry>,
}

impl Sinks {
    /// Reports go to `metrics` first, then to `stdout`.
    pub fn new(metrics: Arc<KillMetrics>, stdout: StdoutSink, telemetry: Arc<Telemetry>) -> Self {
        Self { metrics, stdout, telemetry }
    }

    /// Hands a report to every sink. Never blocks.
    pub fn deliver(&self, report: &OomReport) {
        self.telemetry.count_passed(Stage::Report);
        self.metrics.observe(report, Instant::now());
        self.stdout.deliver(report);
    }

    /// Resolves when nobody reads standard output any more (`oom-watcher | head`).
    pub async fn reader_gone(&self) {
        self.stdout.reader_gone().await;
    }

    /// Waits at most `deadline` for what is queued to be written; what is not is counted as lost.
    pub async fn close(self, deadline: Duration) {
        self.stdout.close(deadline).await;
    }
}
