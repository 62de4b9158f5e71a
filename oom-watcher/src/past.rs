//! The time before this watcher: what pinned hooks recorded meanwhile, and which of it is whose to tell.

use oom_watcher_common::counter;

use crate::{
    audit::{self, Audit},
    decode::{self, OomKill},
    kernel::pin::Predecessor,
    state::Account,
};

/// What is known of the time before the start.
#[derive(Default)]
pub struct Past {
    started_ns: u64,
    counters_id: u32,
    handed_over_ns: u64,
    predecessors: Vec<Predecessor>,
    /// What watchers before have taken of the ring buffer of the newest predecessor.
    predecessor_taken: Option<u64>,
}

impl std::fmt::Debug for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { started_ns, counters_id, handed_over_ns, predecessors: _, predecessor_taken: _ } = self;
        f.debug_struct("Past")
            .field("started_ns", started_ns)
            .field("counters_id", counters_id)
            .field("handed_over_ns", handed_over_ns)
            .finish_non_exhaustive()
    }
}

impl Past {
    /// `started_ns`: when the watcher started, in nanoseconds since boot. `counters_id`: identifies the counters of its hooks.
    pub fn new(started_ns: u64, counters_id: u32) -> Self {
        Self { started_ns, counters_id, ..Self::default() }
    }

    /// With what watchers with other programs left. `handed_over_ns` is a moment, in nanoseconds since boot, at which both
    /// their hooks and this watcher's were attached: what was killed before it is theirs to tell, what came after is this
    /// watcher's. A kill in the very microsecond, timed by the one before and by the other after it, is told twice or by none.
    #[must_use]
    pub fn after(self, predecessors: Vec<Predecessor>, handed_over_ns: u64) -> Self {
        let handed_over_ns = if predecessors.is_empty() { 0 } else { handed_over_ns };
        Self { handed_over_ns, predecessors, ..self }
    }

    /// The hooks are others than those that it was made for.
    #[must_use]
    pub fn with_counters(self, counters_id: u32) -> Self {
        Self { counters_id, ..self }
    }

    /// Identifies the counters of the hooks.
    pub fn counters_id(&self) -> u32 {
        self.counters_id
    }

    /// Kills for which their ring buffers had no room. They go on in this watcher's count, as the predecessor's did.
    pub fn lost(&self) -> u64 {
        self.predecessors.iter().map(|predecessor| predecessor.counters().read()[counter::KILLS_LOST as usize]).sum()
    }

    /// The account at the start, to be compared with that of the watcher before: what the kernel had counted until this
    /// watcher's hooks saw it, and what the newest hooks of before have seen.
    pub fn account(&self, boot_id: &str, audit: &Audit) -> Account {
        match self.predecessors.iter().max_by_key(|predecessor| predecessor.counters_id()) {
            None => {
                let counters = audit.counters_at_start();
                Account::new(boot_id, audit.kills_before_start(), self.counters_id, counters)
            }
            Some(newest) => {
                let kernel_kills = audit.kills_before_start().saturating_sub(audit::seen(audit.counters_at_start()));
                Account::new(boot_id, kernel_kills, newest.counters_id(), &newest.counters().read())
            }
        }
    }

    /// Hands over each record that watchers with other programs left; once.
    pub fn drain_predecessors(&mut self, mut take: impl FnMut(&[u8])) {
        let mut predecessors = std::mem::take(&mut self.predecessors);
        predecessors.sort_by_key(Predecessor::counters_id);
        for mut predecessor in predecessors {
            let mut left = 0;
            predecessor.drain(|bytes| {
                left += u64::from(decode::may_be_kill(bytes));
                take(bytes);
            });
            let written = predecessor.counters().read()[counter::KILLS_SENT as usize];
            self.predecessor_taken = Some(written.saturating_sub(left));
        }
    }

    /// Records of the hooks that [`Self::account`] is of, taken by watchers before; `own` is what they have taken of this
    /// watcher's own ring buffer.
    pub fn taken(&self, own: u64) -> u64 {
        self.predecessor_taken.unwrap_or(own)
    }

    /// The predecessor's record of this is the one that counts. Incidents of both have different names, so their ends do no
    /// harm.
    pub fn is_predecessors(&self, kill: &OomKill) -> bool {
        kill.time_ns < self.handed_over_ns
    }

    /// Nobody was there at this kill.
    pub fn is_recovered(&self, kill: &OomKill) -> bool {
        kill.time_ns < self.started_ns
    }
}
