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
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use crate::{
    assemble::{self, NodeNames},
    attribute::{Attributed, Outcome, Resolver},
    audit::{self, Audit},
    cgroup::{Node, identify},
    decode::{self, Decoder, MemcgFigures, Record},
    health::Health,
    incident::{Assembler, Member},
    kernel::{memory, reader::Reader},
    past::Past,
    scope::{self, Decision, PageCounters},
    sinks::{Sinks, metrics::KillMetrics},
    state::{Account, StateFile},
    telemetry::{KernelCounters, Stage, Telemetry},
};

/// How often the watcher shows that it lives, audits itself and follows the containers' series: its only timer, and its only wake-up when
/// nothing is killed.
const TICK: Duration = Duration::from_secs(10);

/// The tick at which starting is surely over: the first one comes at once, and the names are being read then.
const STARTED_TICK: u64 = 2;

/// What the pipeline is made of.
#[derive(Debug)]
pub struct Pipeline {
    /// Bytes → kills.
    pub decoder: Decoder,
    /// Names for all reports.
    pub names: NodeNames,
    /// Where this node begins in the cgroup tree.
    pub node: Node,
    /// Path → who it was.
    pub resolver: Arc<Resolver>,
    /// Kills whose names are being looked for; [`crate::attribute::PENDING_MAX`] at most.
    pub waiting: JoinSet<Waiting>,
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
    /// What the next watcher will find, where that is wanted.
    pub state: Option<StateFile>,
    /// The incident whose group kill is already in the account.
    pub audited_incident: u64,
    /// What is known of the time before the start.
    pub past: Past,
    /// What the first kill of the newest incident said of the memory.
    pub first: Option<FirstKill>,
    /// How often the tick came.
    pub ticks: u64,
}

/// What the first kill of an incident said of the memory that ran out. It holds for the whole incident: by the time that the
/// last member of a group is killed, the memory of the first may have come back.
#[derive(Clone, Debug)]
pub struct FirstKill {
    incident_ns: u64,
    memcg_path: Option<String>,
    usage_bytes: Option<u64>,
    memcg: Option<MemcgFigures>,
}

/// A kill whose names have been found, or are not to be found.
#[derive(Debug)]
pub struct Waiting {
    member: Member,
    decision: Decision,
    who: Attributed,
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
        self.take_predecessors();
        let ended = loop {
            let deadline = self.assembler.deadline();
            let state_due = self.state.as_ref().and_then(StateFile::due);
            tokio::select! {
                biased;
                () = &mut shutdown => break Ended::Shutdown,
                () = self.sinks.reader_gone() => break Ended::ReaderGone,
                read = reader.batch(|bytes| decode(&self.decoder, &self.telemetry, bytes, &mut records)) => {
                    read?;
                }
                () = until(deadline) => {
                    let members = self.assembler.expire(Instant::now());
                    self.attribute_all(members);
                }
                () = until(state_due) => self.write_state(&counters),
                Some(found) = self.waiting.join_next() => self.found(found),
                _ = tick.tick() => self.tick(&counters),
            }
            self.take(&mut records);
            self.health.reader_beat(Instant::now());
        };
        reader.drain(|bytes| decode(&self.decoder, &self.telemetry, bytes, &mut records));
        self.take(&mut records);
        let members = self.assembler.close();
        self.attribute_all(members);
        // Each search ends by itself, at its deadline.
        while let Some(found) = self.waiting.join_next().await {
            self.found(found);
        }
        self.close_state(&counters).await;
        Ok((ended, self.sinks))
    }

    fn take(&mut self, records: &mut Vec<Record>) {
        if records.is_empty() {
            return;
        }
        for record in records.drain(..) {
            match record {
                Record::Kill(kill) if self.past.is_predecessors(&kill) => self.assembler.learn(kill),
                other => self.take_one(other),
            }
        }
    }

    fn take_one(&mut self, record: Record) {
        let members = match record {
            Record::Kill(kill) => self.assembler.kill(kill, Instant::now()),
            Record::IncidentEnd(end) => self.assembler.end(&end),
        };
        self.attribute_all(members);
    }

    /// Kills whose names are known go out now, in their order; the others as soon as their names are found.
    fn attribute_all(&mut self, members: Vec<Member>) {
        for mut member in members {
            self.account(&member);
            let (mut decision, outcome) = self.attribute(&member);
            self.as_at_first(&mut member, &mut decision);
            match outcome {
                Outcome::Done(who) => self.report(&Waiting { member, decision, who }),
                Outcome::Pending(pending) => {
                    self.waiting.spawn(async move { Waiting { member, decision, who: pending.finish().await } });
                }
            }
        }
    }

    fn attribute(&self, member: &Member) -> (Decision, Outcome) {
        let levels = member.kill.cgroup.as_ref().map(|cgroup| cgroup.levels.as_slice()).unwrap_or_default();
        let segments: Vec<&str> = levels.iter().map(|level| level.name.as_str()).collect();
        let identity = identify(&segments, &self.node);
        let counters = PageCounters { page_size: self.decoder.page_size, cpus: u64::from(self.decoder.possible_cpus) };
        let mut decision = scope::decide(&identity, levels, assemble::oom_memcg(&member.kill), counters);
        if decision.level.is_some() {
            decision.usage_bytes = member.kill.entry_usage_bytes.or(decision.usage_bytes);
        }
        // Without a cgroup the victim may have been anywhere: that is "none", not "host".
        let outcome =
            if segments.is_empty() { Outcome::Done(Attributed::default()) } else { self.resolver.attribute(&identity) };
        (decision, outcome)
    }

    fn as_at_first(&mut self, member: &mut Member, decision: &mut Decision) {
        let same =
            |first: &&FirstKill| first.incident_ns == member.incident_ns && first.memcg_path == decision.memcg_path;
        if let Some(first) = self.first.as_ref().filter(same) {
            decision.usage_bytes = first.usage_bytes;
            member.kill.memcg = first.memcg;
        } else {
            self.first = Some(FirstKill {
                incident_ns: member.incident_ns,
                memcg_path: decision.memcg_path.clone(),
                usage_bytes: decision.usage_bytes,
                memcg: member.kill.memcg,
            });
        }
    }

    fn found(&mut self, found: Result<Waiting, tokio::task::JoinError>) {
        match found {
            Ok(kill) => self.report(&kill),
            Err(error) => {
                self.telemetry.count_lost(Stage::Attribute, 1);
                error!(error = &error as &dyn std::error::Error, "A search for names was lost, and its kill with it");
            }
        }
    }

    fn report(&mut self, kill: &Waiting) {
        self.telemetry.count_attribution(kill.who.attribution.result, kill.who.attribution.source);
        self.telemetry.count_passed(Stage::Attribute);
        if self.past.is_recovered(&kill.member.kill) {
            self.telemetry.count_recovered();
        }
        let report = assemble::report(&self.names, &kill.member, kill.decision.clone(), kill.who.clone());
        debug!(incident = report.incident.id, tgid = report.victim.tgid, "Reporting a kill");
        self.sinks.deliver(&report);
        if let Some(state) = &mut self.state {
            state.changed(Instant::now());
        }
    }

    /// The ring buffer was found empty a moment ago, so the kills that the kernel has counted by now are reported, but for
    /// those that wait for something: then the file waits with them.
    fn write_state(&mut self, counters: &impl Fn() -> KernelCounters) {
        if !self.waiting.is_empty() || self.assembler.deadline().is_some() {
            self.state.iter_mut().for_each(|state| state.postpone(Instant::now()));
            return;
        }
        let Some(account) = self.state_account(counters) else { return };
        if let Some(state) = &mut self.state {
            state.write(account, Instant::now());
        }
    }

    async fn close_state(&mut self, counters: &impl Fn() -> KernelCounters) {
        let account = self.state_account(counters);
        if let (Some(state), Some(account)) = (self.state.take(), account) {
            state.close(account).await;
        }
    }

    fn state_account(&self, counters: &impl Fn() -> KernelCounters) -> Option<Account> {
        // Without the kernel's count, which has been said at the start, there is no state file.
        let kernel = audit::kernel_kills(Path::new("/proc")).ok()?;
        Some(Account::new(&self.names.boot, kernel, self.past.counters_id(), audit::seen(&counters())))
    }

    /// Reports what predecessors left.
    fn take_predecessors(&mut self) {
        let mut records = Vec::new();
        for mut predecessor in self.past.predecessors() {
            predecessor.drain(|bytes| decode(&self.decoder, &self.telemetry, bytes, &mut records));
        }
        for record in records {
            match record {
                Record::Kill(kill) if !self.past.is_predecessors(&kill) => self.assembler.learn(kill),
                other => self.take_one(other),
            }
        }
    }

    /// The kernel's own count has the first victim of a group kill twice.
    fn account(&mut self, member: &Member) {
        // One of before the start is not in the account.
        if self.past.is_recovered(&member.kill) {
            return;
        }
        if member.group_kill != Some(false) && self.audited_incident != member.incident_ns {
            self.audited_incident = member.incident_ns;
            if let Some(audit) = &mut self.audit {
                audit.group_kill();
            }
        }
    }

    fn tick(&mut self, counters: &impl Fn() -> KernelCounters) {
        self.ticks += 1;
        if self.ticks == STARTED_TICK {
            memory::give_back();
        }
        // Also when nobody scrapes.
        self.metrics.catch_up(Instant::now());
        let Some(audit) = &mut self.audit else { return };
        match audit::kernel_kills(Path::new("/proc")) {
            Ok(kernel) => {
                // Kills that nobody saw are this watcher's to count, not the next one's.
                if let Some(state) = self.state.as_mut().filter(|state| state.differs(kernel)) {
                    state.changed(Instant::now());
                }
                let missed = audit.missed(kernel, &counters());
                self.telemetry.set_missed_kills(missed);
            }
            Err(error) => warn!(error = &error as &dyn std::error::Error, "Cannot audit the kills"),
        }
    }
}

fn decode(decoder: &Decoder, telemetry: &Telemetry, bytes: &[u8], records: &mut Vec<Record>) {
    // The clock may have been set since the last record, however long ago that was.
    let decoder = Decoder { boot_to_wall: boot_to_wall(), ..*decoder };
    match decoder.decode(bytes) {
        Ok(record) => {
            if matches!(record, Record::Kill(_)) {
                telemetry.count_passed(Stage::Decode);
            }
            records.push(record);
        }
        Err(error) => {
            telemetry.count_lost(Stage::Decode, u64::from(decode::may_be_kill(bytes)));
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
