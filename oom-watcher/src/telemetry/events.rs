//! Things that happen inside the agent and are worth both a count and a log line: one type each, so that neither is
//! forgotten. A line that could repeat without end is logged at the 1st, 2nd, 4th, 8th… time, with the count.

use std::io;

use tracing::{error, warn};

use super::{EnrichmentOutcome, HttpRejection, PodEventOutcome, Stage, Telemetry};
use crate::{
    decode::DecodeError,
    state::{StateError, WriteError},
};

/// A record of the kernel program says what nobody understands.
#[derive(Debug)]
pub struct RecordNotUnderstood<'a> {
    /// Kills that it may have been of.
    pub kills: u64,
    /// What is wrong with it.
    pub error: &'a DecodeError,
}

impl RecordNotUnderstood<'_> {
    /// Counts it and says so.
    pub fn emit(self, telemetry: &Telemetry) {
        let lost = telemetry.count_lost(Stage::Decode, self.kills);
        if self.kills == 0 || lost.is_power_of_two() {
            let error = self.error as &dyn std::error::Error;
            error!(error, lost, "A record of the kernel program was not understood");
        }
    }
}

/// Standard output is slower than the kills: its queue is full and a line was dropped.
#[derive(Debug)]
pub struct StdoutOverflowed;

impl StdoutOverflowed {
    /// Counts it and says so.
    pub fn emit(self, telemetry: &Telemetry) {
        let lost = telemetry.count_lost(Stage::SinkStdout, 1);
        if lost.is_power_of_two() {
            warn!(lost, "Standard output is too slow: dropped the line of a kill");
        }
    }
}

/// A line could not be written to standard output.
#[derive(Debug)]
pub struct StdoutFailed<'a> {
    /// Why.
    pub error: &'a io::Error,
}

impl StdoutFailed<'_> {
    /// Counts it and says so.
    pub fn emit(self, telemetry: &Telemetry) {
        let lost = telemetry.count_lost(Stage::SinkStdout, 1);
        if lost.is_power_of_two() {
            error!(error = %self.error, lost, "Cannot write to standard output: the line of a kill is lost");
        }
    }
}

/// A report could not be put into words.
#[derive(Debug)]
pub struct ReportUnprintable<'a> {
    /// Why.
    pub error: &'a serde_json::Error,
}

impl ReportUnprintable<'_> {
    /// Counts it and says so.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.count_lost(Stage::SinkStdout, 1);
        error!(error = %self.error, "Cannot express a report as JSON: the line of a kill is lost");
    }
}

/// Lines were still unwritten when the watcher had to end.
#[derive(Debug)]
pub struct StdoutAbandoned {
    /// How many.
    pub lines: u64,
}

impl StdoutAbandoned {
    /// Counts them and says so.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.count_lost(Stage::SinkStdout, self.lines);
        error!(lines = self.lines, "Standard output did not take the last lines in time: they are lost");
    }
}

/// The limit of series was reached.
#[derive(Debug)]
pub struct SeriesRefused {
    /// How many series were not created.
    pub series: u64,
    /// The limit.
    pub max_series: usize,
}

impl SeriesRefused {
    /// Counts them and says so.
    pub fn emit(self, telemetry: &Telemetry) {
        let refused = telemetry.count_series_refused(self.series);
        if (refused - self.series).checked_ilog2() != refused.checked_ilog2() {
            warn!(refused, max_series = self.max_series, "The limit of series is reached: some are not created");
        }
    }
}

/// What the watcher before left cannot be used.
#[derive(Debug)]
pub struct StateNotRead<'a> {
    /// Why.
    pub error: &'a StateError,
}

impl StateNotRead<'_> {
    /// Counts it and says so.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.count_state_not_read();
        let error = self.error as &dyn std::error::Error;
        warn!(error, "Kills since the watcher before are not known");
    }
}

/// The next watcher will not find how far this one came.
#[derive(Debug)]
pub struct StateNotWritten<'a> {
    /// Why.
    pub error: &'a WriteError,
}

impl StateNotWritten<'_> {
    /// Counts it and says so.
    pub fn emit(self, telemetry: &Telemetry) {
        let count = telemetry.count_state_not_written();
        if count.is_power_of_two() {
            let error = self.error as &dyn std::error::Error;
            warn!(error, count, "The state file is not kept: the next watcher will count reported kills as unwatched");
        }
    }
}

/// The HTTP server turned a client away.
#[derive(Debug)]
pub struct HttpClientRejected {
    /// Why.
    pub reason: HttpRejection,
}

impl HttpClientRejected {
    /// Counts it and says so.
    pub fn emit(self, telemetry: &Telemetry) {
        let count = telemetry.count_http_rejection(self.reason);
        if count.is_power_of_two() {
            warn!(reason = ?self.reason, count, "Turned an HTTP client away");
        }
    }
}

/// The line of an enrichment found no room in the queue of standard output, or could not be written.
#[derive(Debug)]
pub struct EnrichmentLineLost<'a> {
    /// Why it could not be written; none: there was no room.
    pub error: Option<&'a io::Error>,
}

impl EnrichmentLineLost<'_> {
    /// Counts it and says so.
    pub fn emit(self, telemetry: &Telemetry) {
        let lost = telemetry.count_enrichment_line_lost();
        if lost.is_power_of_two() {
            if let Some(error) = self.error {
                warn!(%error, lost, "Cannot write to standard output: the line of an enrichment is lost");
            } else {
                warn!(lost, "Standard output is too slow: dropped the line of an enrichment");
            }
        }
    }
}

/// The Kubernetes API is slower than the kills: the queue of those that wait for it is full.
#[derive(Debug)]
pub struct KubernetesOverflowed {
    /// The kill would have been looked up.
    pub enrichment: bool,
    /// The kill would have had an Event.
    pub events: bool,
}

impl KubernetesOverflowed {
    /// Counts it and says so.
    pub fn emit(self, telemetry: &Telemetry) {
        let skipped = self.enrichment.then(|| telemetry.count_enrichment(EnrichmentOutcome::Skipped, 1));
        let lost = self.events.then(|| telemetry.count_pod_event(PodEventOutcome::Overflow, 1));
        let count = lost.or(skipped).unwrap_or_default();
        if count.is_power_of_two() {
            warn!(count, "Too many kills wait for the Kubernetes API: one has neither enrichment nor Event");
        }
    }
}
