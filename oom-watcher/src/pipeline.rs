//! The flow itself: bytes in, reports out.
//!
//! One task owns all of it, so stages need no locks and keep their order. It waits for the ring buffer, for the deadline of
//! kills that wait for their incident's end, for its own slow tick, and for the end; nothing it calls blocks.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::SignedDuration;
use rustix::time::{ClockId, clock_gettime};
use tracing::{debug, error, warn};

use crate::{
    assemble::{self, NodeNames},
    attribute,
    audit::{self, Audit},
    cgroup::{Identity, Node, identify},
    decode::{Decoder, Record},
    health::Health,
    incident::{Assembler, Member},
    kernel::reader::Reader,
    report::OomReport,
    scope::{self, PageCounters},
    sinks::{Sinks, metrics::KillMetrics},
    telemetry::{KernelCounters, Stage, Telemetry},
};

/// How often the watcher shows that it lives, audits itself and drops old series: its only timer, and its only wake-up when
/// nothing is killed.
const TICK: Duration = Duration::from_secs(10);

/// What the pipeline is made of.
#[derive(Debug)]
pub struct Pipeline {
    /// Bytes → kills.
    pub decoder: Decoder,
    /// Names for all reports.
    pub names: NodeNames,
    /// Where this node begins in the cgroup tree.
    pub node: Node,
    /// Where reports go.
    pub sinks: Sinks,
    /// Metrics of kills, for what ages in them.
    pub metrics: Arc<KillMetrics>,
    /// Own counters.
    pub telemetry: Arc<Telemetry>,
    /// Liveness.
    pub health: Arc<Health>,
    /// Kills → incidents.
    pub assembler: Assembler,
    /// The account, where the kernel keeps one.
    pub audit: Option<Audit>,
    /// The incident whose group kill is already in the account.
    pub audited_incident: u64,
}

/// Why the pipeline ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// As asked.
    Shutdown,
    /// Nobody reads standard output any more.
    ReaderGone,
}

impl Pipeline {
    /// Runs until `shutdown` resolves or standard output is closed; then reports what is still there.
    ///
    /// Fails when the ring buffer cannot be awaited any more: without it nothing can be seen.
    pub async fn run(
        mut self,
        mut reader: Reader,
        counters: impl Fn() -> KernelCounters,
        shutdown: impl Future<Output = ()>,
    ) -> std::io::Result<(Ended, Sinks)> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        let mut records: Vec<Record> = Vec::new();
        let ended = loop {
            let deadline = self.assembler.deadline();
            tokio::select! {
                biased;
                () = &mut shutdown => break Ended::Shutdown,
                () = self.sinks.reader_gone() => break Ended::ReaderGone,
                read = reader.batch(|bytes| decode(&self.decoder, &self.telemetry, bytes, &mut records)) => {
                    read?;
                }
                () = until(deadline) => {
                    let members = self.assembler.expire(Instant::now());
                    self.report_all(members);
                }
                _ = tick.tick() => self.tick(&counters),
            }
            self.take(&mut records);
            self.health.reader_beat(Instant::now());
        };
        reader.drain(|bytes| decode(&self.decoder, &self.telemetry, bytes, &mut records));
        self.take(&mut records);
        let members = self.assembler.close();
        self.report_all(members);
        Ok((ended, self.sinks))
    }

    fn take(&mut self, records: &mut Vec<Record>) {
        if records.is_empty() {
            return;
        }
        for record in records.drain(..) {
            let members = match record {
                Record::Kill(kill) => self.assembler.kill(kill, Instant::now()),
                Record::IncidentEnd(end) => self.assembler.end(&end),
            };
            self.report_all(members);
        }
        // The clock may have been set since: the next batch is dated by the clock of its time.
        self.decoder.boot_to_wall = boot_to_wall();
    }

    fn report_all(&mut self, members: Vec<Member>) {
        for member in members {
            let report = self.report(&member);
            debug!(incident = report.incident.id, tgid = report.victim.tgid, "Reporting a kill");
            self.sinks.deliver(&report);
        }
    }

    fn report(&mut self, member: &Member) -> OomReport {
        if member.group_kill != Some(false) && self.audited_incident != member.incident_ns {
            self.audited_incident = member.incident_ns;
            if let Some(audit) = &mut self.audit {
                audit.group_kill();
            }
        }
        let levels = member.kill.cgroup.as_ref().map(|cgroup| cgroup.levels.as_slice()).unwrap_or_default();
        let segments: Vec<&str> = levels.iter().map(|level| level.name.as_str()).collect();
        let identity = if segments.is_empty() { Identity::Other } else { identify(&segments, &self.node) };
        let counters =
            PageCounters { page_size: self.decoder.page_size, cpus: u64::from(self.decoder.possible_cpus) };
        let decision = scope::decide(&identity, levels, assemble::oom_memcg(&member.kill), counters);
        let who = attribute::by_path(&identity);
        self.telemetry.count_attribution(who.attribution.result, who.attribution.source);
        self.telemetry.count_passed(Stage::Attribute);
        assemble::report(&self.names, member, decision, who)
    }

    fn tick(&mut self, counters: &impl Fn() -> KernelCounters) {
        self.metrics.expire(Instant::now());
        let Some(audit) = &mut self.audit else { return };
        match audit::kernel_kills(Path::new("/proc")) {
            Ok(kernel) => {
                let missed = audit.missed(kernel, &counters());
                self.telemetry.set_missed_kills(missed);
            }
            Err(error) => warn!(error = &error as &dyn std::error::Error, "Cannot audit the kills"),
        }
    }
}

fn decode(decoder: &Decoder, telemetry: &Telemetry, bytes: &[u8], records: &mut Vec<Record>) {
    match decoder.decode(bytes) {
        Ok(record) => {
            if matches!(record, Record::Kill(_)) {
                telemetry.count_passed(Stage::Decode);
            }
            records.push(record);
        }
        Err(error) => {
            telemetry.count_lost(Stage::Decode, 1);
            error!(error = &error as &dyn std::error::Error, "A record of the kernel program was not understood");
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Wall clock minus the clock since boot.
pub fn boot_to_wall() -> SignedDuration {
    let now = |clock| {
        let time = clock_gettime(clock);
        SignedDuration::new(time.tv_sec, i32::try_from(time.tv_nsec).unwrap_or(0))
    };
    now(ClockId::Realtime) - now(ClockId::Boottime)
}
