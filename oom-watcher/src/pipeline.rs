//! The flow itself: bytes in, reports out.
//!
//! One task owns all of it, so stages need no locks and keep their order. It waits for the ring buffer, for the deadline of
//! kills that wait for their incident's end, for its own slow tick, and for the end; nothing it calls blocks.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use oom_watcher_common::counter;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, warn};

use crate::{
    assemble::{self, NodeNames},
    attribute::{Attributed, Outcome, Resolver},
    audit::{self, Audit},
    cgroup::{Node, identify},
    clock,
    decode::{self, Decoder, MemcgFigures, Record},
    end::{self, End},
    health::Health,
    incident::{Assembler, Member},
    kernel::{
        memory,
        reader::{BATCH_MAX, Reader},
    },
    past::Past,
    report::ScopeSource,
    scope::{self, Decision, OomMemcg, PageCounters},
    sinks::{Sinks, metrics::KillMetrics},
    state::{Account, StateFile, Unsettled},
    telemetry::{KernelCounters, Stage, Telemetry, events::RecordNotUnderstood},
    tick::Tick,
};

/// How often the watcher shows that it lives, audits itself and follows the containers' series: the only wake-up when nothing is killed
/// and the names are in order, but for a look at all of them each five minutes (`names::feed`).
pub const TICK: Duration = Duration::from_secs(10);

/// The tick at which starting is surely over: the first one comes at once, and the names are being read then.
const STARTED_TICK: u64 = 2;

/// How often the end looks again for what was killed meanwhile. Beyond it kills come faster than they can be taken.
const LAST_LOOKS: usize = 16;

/// Looks at the ring buffer that a start takes to find it at rest, at most. Each is a few microseconds, in which a kill is rare.
const BACKLOG_LOOKS_MAX: usize = 1000;

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
    /// What the watcher before left in the state file, to be compared with what it left in the ring buffer.
    pub unsettled: Option<Unsettled>,
    /// Kills that were taken out of this watcher's ring buffer, by it and by those before.
    pub taken: u64,
    /// What the first kill of the newest incident said of the memory.
    pub first: Option<FirstKill>,
    /// The timer of [`TICK`].
    pub timer: Tick,
    /// How often the tick came.
    pub ticks: u64,
}

/// What the first kill of an incident said of the memory that ran out. It holds for the whole incident: by the time that the
/// last member of a group is killed, the memory of the first may have come back.
#[derive(Clone, Debug)]
pub struct FirstKill {
    incident_ns: u64,
    decision: Decision,
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
    /// Runs until `shutdown` resolves or standard output is closed; then reports what is still there, closes the sinks and writes
    /// the state file.
    ///
    /// Fails when the ring buffer or the timer cannot be awaited any more: without the one nothing can be seen, without the other
    /// nothing is audited.
    pub async fn run(
        mut self,
        mut reader: Reader,
        counters: impl Fn() -> KernelCounters,
        shutdown: impl Future<Output = ()>,
    ) -> std::io::Result<(Ended, End)> {
        tokio::pin!(shutdown);
        let mut intake = Intake::default();
        self.take_predecessors();
        self.take_backlog(&mut reader, &counters).await;
        let ended = loop {
            let deadline = self.assembler.deadline();
            let state_due = self.state.as_ref().and_then(StateFile::due);
            tokio::select! {
                biased;
                () = &mut shutdown => break Ended::Shutdown,
                () = self.sinks.reader_gone() => break Ended::ReaderGone,
                read = reader.batch(|bytes| intake.add(&self.decoder, &self.telemetry, bytes)) => {
                    read?;
                }
                () = until(deadline) => {
                    let members = self.assembler.expire(Instant::now());
                    self.attribute_all(members);
                }
                () = until(state_due) => self.write_state(&counters),
                Some(found) = self.waiting.join_next() => self.found(found),
                tick = self.timer.next() => {
                    tick?;
                    self.tick(&counters);
                }
            }
            self.take(&mut intake);
            self.health.reader_beat(Instant::now());
        };
        let end = End::begin(Instant::now());
        self.close(reader, &counters, end).await;
        Ok((ended, end))
    }

    /// Reports all that is there, and what comes while names are searched. What is written to the ring buffer after that is in
    /// the account.
    async fn close(mut self, mut reader: Reader, counters: &impl Fn() -> KernelCounters, end: End) {
        self.drain(&mut reader);
        // Each search ends by itself, at its deadline.
        while let Some(found) = self.waiting.join_next().await {
            self.found(found);
        }
        self.resolver.end_searches();
        for _ in 0..LAST_LOOKS {
            if self.drain(&mut reader) == 0 {
                break;
            }
        }
        let untold = self.sinks.close(end::left(end.of_sinks())).await;
        if let Some(state) = self.state.take()
            && let Some(account) = account(&self.names.boot, &self.past, counters, self.taken, untold)
        {
            state.close(account, end.of_state()).await;
        }
    }

    /// Takes all that is in the ring buffer now, to the end of its incidents; how many records there were.
    fn drain(&mut self, reader: &mut Reader) -> usize {
        let (mut intake, mut drained) = (Intake::default(), 0);
        loop {
            let count = reader.take(BATCH_MAX, |bytes| intake.add(&self.decoder, &self.telemetry, bytes));
            self.take(&mut intake);
            drained += count;
            if count < BATCH_MAX {
                break;
            }
        }
        let members = self.assembler.close();
        self.attribute_all(members);
        drained
    }

    fn take(&mut self, intake: &mut Intake) {
        self.taken += std::mem::take(&mut intake.kills);
        for record in intake.records.drain(..) {
            match record {
                Record::Kill(kill) if self.past.is_predecessors(&kill) => self.assembler.learn(kill),
                other => self.take_one(other),
            }
        }
        self.telemetry.set_duplicate_records(self.assembler.duplicates());
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
                Outcome::Done(who) => self.report(Waiting { member, decision, who }),
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
        // The usage at the entry is that of the memcg that the kernel named.
        if decision.source == ScopeSource::Kernel && decision.level.is_some() {
            decision.usage_bytes = member.kill.entry_usage_bytes.or(decision.usage_bytes);
        }
        // Without a cgroup the victim may have been anywhere: that is "none", not "host".
        let outcome =
            if segments.is_empty() { Outcome::Done(Attributed::default()) } else { self.resolver.attribute(&identity) };
        (decision, outcome)
    }

    fn as_at_first(&mut self, member: &mut Member, decision: &mut Decision) {
        let elsewhere = assemble::oom_memcg(&member.kill) == OomMemcg::Elsewhere;
        let first = self.first.as_ref().filter(|first| first.incident_ns == member.incident_ns);
        match first {
            // A level is one of the first one's path.
            Some(first) if elsewhere => *decision = Decision { level: None, ..first.decision.clone() },
            Some(first) if first.decision.memcg_path == decision.memcg_path => {
                decision.usage_bytes = first.decision.usage_bytes;
                member.kill.memcg = first.memcg;
            }
            _ => {
                let (incident_ns, memcg) = (member.incident_ns, member.kill.memcg);
                self.first = Some(FirstKill { incident_ns, decision: decision.clone(), memcg });
            }
        }
    }

    fn found(&mut self, found: Result<Waiting, JoinError>) {
        match found {
            Ok(kill) => self.report(kill),
            // A bug, and as any other of the agent its end: the next one's account has the kill.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn report(&mut self, kill: Waiting) {
        let recovered = self.past.is_recovered(&kill.member.kill);
        let attribution = kill.who.attribution;
        let after = Duration::from_nanos(clock::boot_ns().saturating_sub(kill.member.kill.time_ns));
        self.telemetry.count_attribution(attribution.result, attribution.source, (!recovered).then_some(after));
        self.telemetry.count_passed(Stage::Attribute);
        if recovered {
            self.telemetry.count_recovered();
        }
        let report = assemble::report(&self.names, kill.member, kill.decision, kill.who);
        debug!(incident = report.incident.id, tgid = report.victim.tgid, "Reporting a kill");
        self.sinks.deliver(&report);
        if let Some(state) = &mut self.state {
            state.changed(Instant::now());
        }
    }

    fn write_state(&mut self, counters: &impl Fn() -> KernelCounters) {
        let untold = (self.assembler.held() + self.waiting.len()) as u64 + self.sinks.untold();
        let account = account(&self.names.boot, &self.past, counters, self.taken, untold);
        if let (Some(state), Some(account)) = (&mut self.state, account) {
            state.write(account, Instant::now());
        }
    }

    /// Reports what predecessors left.
    fn take_predecessors(&mut self) {
        let mut intake = Intake::default();
        self.past.drain_predecessors(|bytes| intake.add(&self.decoder, &self.telemetry, bytes));
        for record in intake.records {
            match record {
                Record::Kill(kill) if !self.past.is_predecessors(&kill) => self.assembler.learn(kill),
                other => self.take_one(other),
            }
        }
    }

    /// Reads what is in the ring buffer at the start, and so learns what watchers before have taken of it: what the hooks have
    /// written less what is left.
    async fn take_backlog(&mut self, reader: &mut Reader, counters: &impl Fn() -> KernelCounters) {
        let written = || counters()[counter::KILLS_SENT as usize];
        let mut intake = Intake::default();
        for look in 1.. {
            let before = written();
            let read = reader.take(BATCH_MAX, |bytes| intake.add(&self.decoder, &self.telemetry, bytes));
            // Both figures are of one moment if nothing was written meanwhile.
            let at_rest = read < BATCH_MAX && written() == before;
            self.take(&mut intake);
            if at_rest || look == BACKLOG_LOOKS_MAX {
                let taken_before = before.saturating_sub(self.taken);
                self.taken += taken_before;
                if let Some(unsettled) = self.unsettled.take() {
                    unsettled.settle(self.past.taken(taken_before), &self.telemetry);
                }
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The kernel's own count has the first victim of a group kill twice.
    fn account(&mut self, member: &Member) {
        // One of before the start is not in the account.
        if self.past.is_recovered(&member.kill) {
            return;
        }
        // With its start known, the kernel program was there and has counted what the kernel counted twice.
        let unsure = member.group_kill != Some(false) && member.kill.incident_ns.is_none();
        if unsure && self.audited_incident != member.incident_ns {
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

/// What was read of a ring buffer and not taken in yet.
#[derive(Default)]
struct Intake {
    records: Vec<Record>,
    /// Records of kills, understood or not.
    kills: u64,
}

impl Intake {
    fn add(&mut self, decoder: &Decoder, telemetry: &Telemetry, bytes: &[u8]) {
        let may_be_kill = u64::from(decode::may_be_kill(bytes));
        self.kills += may_be_kill;
        // The clock may have been set since the last record, however long ago that was.
        let decoder = Decoder { boot_to_wall: clock::boot_to_wall(), ..*decoder };
        match decoder.decode(bytes) {
            Ok(record) => {
                if matches!(record, Record::Kill(_)) {
                    telemetry.count_passed(Stage::Decode);
                }
                self.records.push(record);
            }
            Err(error) => {
                RecordNotUnderstood { kills: may_be_kill, error: &error }.emit(telemetry);
            }
        }
    }
}

/// The account of now. Without the kernel's count, which has been said at the start, there is none.
fn account(
    boot: &str,
    past: &Past,
    counters: &impl Fn() -> KernelCounters,
    taken: u64,
    untold: u64,
) -> Option<Account> {
    // The kernel counts before the hooks do: a kill in between is counted twice by the next watcher, rather than not at all.
    let kernel = audit::kernel_kills(Path::new("/proc")).ok()?;
    Some(Account::new(boot, kernel, past.counters_id(), &counters()).with_records(taken, untold))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
