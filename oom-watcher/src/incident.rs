//! Kills → incidents: which victims belong to one decision of the OOM killer.
//!
//! Pure: the clock comes in as an argument. A kill that is surely alone goes out at once; one that may have company (a
//! group kill, memory shared with other processes) waits for the end of its incident, at most [`HOLD`], so that each victim
//! is reported with the number of all. `oom_lock` lets one incident run at a time, so one is open at most.
//!
//! The kernel program says only once in an incident what is in a cgroup; here its other victims get it back.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::warn;

use crate::{
    decode::{IncidentEnd, MemcgFigures, OomKill},
    report::Cgroup,
};

/// How long kills wait for the end of their incident. A group kill takes about 0.25 ms a victim, or 30 ms with a serial
/// console printing each; whoever comes later is reported at once, with the count so far.
pub const HOLD: Duration = Duration::from_millis(250);

/// Kills that wait at most; more are reported at once, with the count so far. Four group kills of 1,000 processes; some 2 KiB each.
pub const HELD_MAX: usize = 4096;

/// Victims of one incident that are remembered to tell a second report of the same process, 16 bytes each: sixty
/// times the largest group kill that is tested. Beyond it, one might be told twice.
const SEEN_MAX: usize = 65_536;

/// Without the hooks of `out_of_memory`: kills of a group by the same trigger belong together when no more time than this
/// lies between them. Within one call the kernel goes from victim to victim without sleeping.
const DEDUCED_GAP_NS: u64 = 100_000_000;

/// One kill with what is known of its incident.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The kill.
    pub kill: Box<OomKill>,
    /// The incident's identity: its start in nanoseconds since boot (of the first kill where the start is not known).
    pub incident_ns: u64,
    /// Victims of the incident.
    pub victims: u32,
    /// The incident had ended, so `victims` counts all.
    pub complete: bool,
    /// A whole cgroup was killed together (`memory.oom.group`); `None` where the kernel did not give enough to tell.
    pub group_kill: Option<bool>,
    /// From the start of the incident to the last kill known; `None` where the start is not known.
    pub duration: Option<Duration>,
}

/// An incident that has begun.
#[derive(Debug)]
struct Open {
    incident_ns: u64,
    start_known: bool,
    trigger: (u32, u32),
    group_kill: Option<bool>,
    #[expect(clippy::vec_box, reason = "a kill moves in and out of here several times; only its address does")]
    held: Vec<Box<OomKill>>,
    deadline: Option<Instant>,
    seen: HashSet<(u32, u64)>,
    victims: u32,
    first_ns: u64,
    last_ns: u64,
}

/// What the newest kill with levels said of its cgroup; those after it refer to no older one.
#[derive(Debug)]
struct Said {
    at_ns: u64,
    incident_ns: Option<u64>,
    cgroup: Option<Arc<Cgroup>>,
    oom_level: Option<usize>,
    memcg: Option<MemcgFigures>,
    trigger: (u32, u32),
    trigger_path: Option<String>,
}

/// Puts kills together.
#[derive(Debug, Default)]
pub struct Assembler {
    open: Option<Open>,
    said: Option<Said>,
    duplicates: u64,
    /// Kills whose cgroup only another record has, which did not come.
    without_cgroup: u64,
}

impl Assembler {
    /// Takes a kill; what is ready to be reported comes back.
    pub fn kill(&mut self, mut kill: Box<OomKill>, now: Instant) -> Vec<Member> {
        self.complete(&mut kill);
        let mut ready = Vec::new();
        if !self.open.as_ref().is_some_and(|open| open.takes(&kill)) {
            ready.extend(self.close());
            self.open = Some(Open::new(&kill));
        }
        let Some(open) = self.open.as_mut() else { return ready };
        if !open.first_sight(&kill) {
            open.correct(&kill);
            self.duplicates += 1;
            return ready;
        }
        open.victims += 1;
        open.last_ns = open.last_ns.max(kill.time_ns);
        let hold = open.may_have_company(&kill) && open.held.len() < HELD_MAX;
        let in_time = open.deadline.is_none_or(|deadline| now < deadline);
        if hold && in_time {
            open.deadline.get_or_insert(now + HOLD);
            open.held.push(kill);
        } else {
            let complete = open.group_kill == Some(false) && !open.may_have_company(&kill);
            ready.push(open.member(kill, complete));
        }
        ready
    }

    /// Remembers what a kill that is not to be reported says of its cgroup: others may refer to it.
    pub fn learn(&mut self, mut kill: Box<OomKill>) {
        self.complete(&mut kill);
    }

    /// Gives a kill what another one of the same cgroup said, or remembers what it says itself.
    fn complete(&mut self, kill: &mut OomKill) {
        match (kill.levels_of_ns, &self.said) {
            (None, said) => {
                if let Some(said) = said.as_ref().filter(|said| said.has_trigger_of(kill)) {
                    kill.trigger.cgroup_path.clone_from(&said.trigger_path);
                }
                self.said = Some(Said::by(kill));
            }
            (Some(at_ns), Some(said)) if said.at_ns == at_ns => said.complete(kill),
            // The watcher before has read it and is gone.
            (Some(_), _) => {
                self.without_cgroup += 1;
                if self.without_cgroup.is_power_of_two() {
                    let (pid, count) = (kill.victim.pid, self.without_cgroup);
                    warn!(pid, count, "A kill's cgroup is not known: the record that has it is missing");
                }
            }
        }
    }

    /// Takes the end of an incident.
    pub fn end(&mut self, end: &IncidentEnd) -> Vec<Member> {
        match self.open.as_mut() {
            Some(open) if open.start_known && open.incident_ns == end.incident_ns => {
                // Those whose record was lost are victims all the same.
                open.victims = open.victims.saturating_add(end.kills_lost);
                self.close()
            }
            _ => Vec::new(),
        }
    }

    /// Kills that wait for the end of their incident.
    pub fn held(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.held.len())
    }

    /// When [`Self::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.open.as_ref().filter(|open| !open.held.is_empty()).and_then(|open| open.deadline)
    }

    /// Gives out what has waited long enough.
    pub fn expire(&mut self, now: Instant) -> Vec<Member> {
        match self.open.as_mut() {
            Some(open) if open.deadline.is_some_and(|deadline| deadline <= now) => {
                // Without the hooks of `out_of_memory` no end will come: silence is the end.
                let complete = !open.start_known;
                open.release(complete)
            }
            _ => Vec::new(),
        }
    }

    /// Gives out all, at shutdown.
    pub fn close(&mut self) -> Vec<Member> {
        self.open.take().map(|mut open| open.release(true)).unwrap_or_default()
    }

    /// Second records of a process in one incident: one killed for sharing memory may then be killed as a group's member.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }
}

impl Open {
    fn new(kill: &OomKill) -> Self {
        Self {
            incident_ns: kill.incident_ns.unwrap_or(kill.time_ns),
            start_known: kill.incident_ns.is_some(),
            trigger: (kill.trigger.tgid, kill.trigger.pid),
            group_kill: group_kill(kill),
            held: Vec::new(),
            deadline: None,
            seen: HashSet::new(),
            victims: 0,
            first_ns: kill.time_ns,
            last_ns: kill.time_ns,
        }
    }

    fn takes(&self, kill: &OomKill) -> bool {
        match kill.incident_ns {
            Some(incident) => self.start_known && self.incident_ns == incident,
            None => {
                !self.start_known
                    && self.trigger == (kill.trigger.tgid, kill.trigger.pid)
                    && kill.time_ns.saturating_sub(self.last_ns) <= DEDUCED_GAP_NS
                    && (kill.victim.shared_mm || (self.group_kill != Some(false) && !kill.chosen_alone()))
            }
        }
    }

    /// False when this process was already reported in this incident.
    fn first_sight(&mut self, kill: &OomKill) -> bool {
        let (Some(tgid), Some(start)) = (kill.victim.tgid, kill.start_boottime_ns) else { return true };
        self.seen.len() >= SEEN_MAX || self.seen.insert((tgid, start))
    }

    /// A member of a group that was killed for sharing a victim's memory comes once more, as the victim that it is as well.
    fn correct(&mut self, again: &OomKill) {
        let same = |held: &&mut Box<OomKill>| {
            held.victim.tgid == again.victim.tgid && held.start_boottime_ns == again.start_boottime_ns
        };
        if let Some(held) = self.held.iter_mut().find(same) {
            held.victim.shared_mm &= again.victim.shared_mm;
        }
    }

    fn may_have_company(&self, kill: &OomKill) -> bool {
        self.group_kill != Some(false) && self.start_known
            || self.group_kill == Some(true)
            || kill.mm_shared
            || kill.victim.shared_mm
    }

    fn release(&mut self, complete: bool) -> Vec<Member> {
        let held = std::mem::take(&mut self.held);
        held.into_iter().map(|kill| self.member(kill, complete)).collect()
    }

    fn member(&self, kill: Box<OomKill>, complete: bool) -> Member {
        let start = if self.start_known { self.incident_ns } else { self.first_ns };
        Member {
            kill,
            incident_ns: self.incident_ns,
            victims: self.victims,
            complete,
            group_kill: self.group_kill,
            duration: self.start_known.then(|| Duration::from_nanos(self.last_ns.saturating_sub(start))),
        }
    }
}

impl Said {
    fn by(kill: &OomKill) -> Self {
        Self {
            at_ns: kill.time_ns,
            incident_ns: kill.incident_ns,
            cgroup: kill.cgroup.clone(),
            oom_level: kill.oom_level,
            memcg: kill.memcg,
            trigger: (kill.trigger.tgid, kill.trigger.pid),
            trigger_path: kill.trigger.cgroup_path.clone(),
        }
    }

    fn complete(&self, kill: &mut OomKill) {
        kill.cgroup.clone_from(&self.cgroup);
        kill.oom_level = self.oom_level;
        kill.memcg = self.memcg;
        kill.trigger.cgroup_path.clone_from(&self.trigger_path);
    }

    /// The trigger's cgroup is not told again with a process that is killed for sharing the victim's memory.
    fn has_trigger_of(&self, kill: &OomKill) -> bool {
        kill.victim.shared_mm
            && kill.trigger.cgroup_path.is_none()
            && self.incident_ns == kill.incident_ns
            && self.trigger == (kill.trigger.tgid, kill.trigger.pid)
    }
}

impl OomKill {
    /// Whether `memory.oom.group` is on no level, so that nobody was killed with it.
    fn chosen_alone(&self) -> bool {
        self.cgroup.as_ref().is_some_and(|cgroup| !cgroup.levels.iter().any(|level| level.oom_group))
    }
}

/// Whether the kill is a group's: `memory.oom.group` on a level of the victim's cgroup, not above the cgroup that ran out
/// (mm/memcontrol.c, `mem_cgroup_get_oom_group`). The root has no such switch.
fn group_kill(kill: &OomKill) -> Option<bool> {
    let cgroup = kill.cgroup.as_ref()?;
    if kill.chosen_alone() {
        return Some(false);
    }
    let control = kill.control?;
    let domain = if control.memcg { kill.oom_level? } else { 0 };
    Some(cgroup.levels.iter().skip(domain).any(|level| level.oom_group))
}

#[cfg(test)]
mod tests;
