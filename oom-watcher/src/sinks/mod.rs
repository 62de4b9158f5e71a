//! Where reports go: metrics, standard output, the Kubernetes API.
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
    k8s,
    report::OomReport,
    sinks::{metrics::KillMetrics, stdout::StdoutSink},
    telemetry::{Stage, Telemetry},
};

/// All sinks of this run.
#[derive(Debug)]
pub struct Sinks {
    metrics: Arc<KillMetrics>,
    stdout: StdoutSink,
    kubernetes: Option<k8s::Handle>,
    telemetry: Arc<Telemetry>,
}

impl Sinks {
    /// Reports go to `metrics` first, then to `stdout`.
    pub fn new(metrics: Arc<KillMetrics>, stdout: StdoutSink, telemetry: Arc<Telemetry>) -> Self {
        Self { metrics, stdout, kubernetes: None, telemetry }
    }

    /// Reports go to `kubernetes` last.
    #[must_use]
    pub fn with_kubernetes(self, kubernetes: Option<k8s::Handle>) -> Self {
        Self { kubernetes, ..self }
    }

    /// Hands a report to every sink. Never blocks.
    pub fn deliver(&self, report: &OomReport) {
        self.telemetry.count_passed(Stage::Report);
        self.metrics.observe(report, Instant::now());
        self.stdout.deliver(report);
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.deliver(report);
        }
    }

    /// Resolves when nobody reads standard output any more (`oom-watcher | head`).
    pub async fn reader_gone(&self) {
        self.stdout.reader_gone().await;
    }

    /// Kills whose line is not written yet.
    pub fn untold(&self) -> u64 {
        self.stdout.queued()
    }

    /// Waits at most `deadline` for what is queued to be written; what is not is counted as lost. How many kills have no line.
    pub async fn close(self, deadline: Duration) -> u64 {
        let end = Instant::now() + deadline;
        if let Some(kubernetes) = self.kubernetes {
            // It may still have lines to write: half of the time is for them.
            kubernetes.close(deadline / 2).await;
        }
        let deadline = end.saturating_duration_since(Instant::now());
        self.stdout.close(deadline).await
    }
}
