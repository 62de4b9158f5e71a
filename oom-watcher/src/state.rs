//! The state file: how far the kernel's count of kills was, and how far they were told, for the next watcher.
//!
//! Without it the kills between two watchers are silent: the kernel counts them, and nobody knows from where to count. So are
//! those that a watcher had read and not yet told when it was killed: they waited for the end of their incident, for their
//! names, or for somebody to read standard output. It is written a moment after a kill and at the end, never while nothing
//! happens but when the last write has failed, and by a thread that may be stuck on a disk without anybody waiting for it. It is
//! renamed into place, so a reader finds the old or the new one. It is not forced to the disk: what it says holds for one boot
//! only, and the page cache outlives the process.

use std::{
    cmp::Ordering,
    fs,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{self, AtomicBool},
    },
    time::{Duration, Instant},
};

use oom_watcher_common::counter;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::{
    audit,
    telemetry::{
        KernelCounters, Telemetry,
        events::{StateNotRead, StateNotWritten},
    },
};

/// From a kill to its place in the file, and from one look at what is not told yet to the next: a burst is one write, not
/// thousands. Killed with SIGKILL within it, a watcher leaves kills that it has told, and the next one counts them as unwatched.
pub const SETTLE: Duration = Duration::from_millis(250);
/// The file is some hundred bytes; more is not ours.
const BYTES_MAX: u64 = 4096;
/// Of the file's form.
const VERSION: u32 = 1;

/// Why the state of the watcher before is not known.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not what a watcher writes.
    #[error("{} is not a state file", path.display())]
    Garbage {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Another version of the watcher wrote it.
    #[error("{} has version {version}, not {VERSION}", path.display())]
    Version {
        /// Which.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It counts more kills than the kernel: it was copied, or the machine was set back to a snapshot.
    #[error("the state file has {before} kills in this boot, the kernel only {now}")]
    Ahead {
        /// Kills by the file.
        before: u64,
        /// Kills by the kernel.
        now: u64,
    },
    /// Hooks were taken over that were pinned before the file was written, by a watcher that they did not serve.
    #[error("the state file was written by a watcher without the pinned hooks, while they were attached")]
    OtherHooks,
}

/// Why the state could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct WriteError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// How far the kernel's and the kernel program's counts were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    version: u32,
    /// The boot that the figures are of.
    pub boot_id: String,
    /// `oom_kill` of /proc/vmstat.
    pub kernel_kills: u64,
    /// Which counters the next figure is of: the kernel's identifier of their map, which rises within a boot.
    pub counters_id: u32,
    /// Kills that the hooks have seen and that the kernel counts.
    pub kills_seen: u64,
    /// What became of the records of kills that these hooks have written. A version of the watcher that did not know of it may
    /// have written the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<Records>,
}

/// What became of the records of kills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Written into the ring buffer.
    pub written: u64,
    /// Of those, taken out of it by a watcher.
    pub taken: u64,
    /// Of those, not told on standard output by that watcher when it wrote this: it was not done with them, or gave them up at its end.
    pub untold: u64,
}

/// Kills between two watchers that nobody told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// No hook saw them. As the kernel counts: the first victim of a group kill twice.
    pub unwatched: u64,
    /// The watcher before had them, or their records went with its ring buffer, and it did not come to tell of them.
    pub untold: u64,
}

impl Account {
    /// The account of now, before anything was taken.
    pub fn new(boot_id: &str, kernel_kills: u64, counters_id: u32, counters: &KernelCounters) -> Self {
        let written = counters[counter::KILLS_SENT as usize];
        Self {
            version: VERSION,
            boot_id: boot_id.to_owned(),
            kernel_kills,
            counters_id,
            kills_seen: audit::seen(counters),
            records: Some(Records { written, taken: 0, untold: 0 }),
        }
    }

    /// With what became of the records.
    #[must_use]
    pub fn with_records(mut self, taken: u64, untold: u64) -> Self {
        self.records = self.records.map(|records| Records { taken, untold, ..records });
        self
    }

    /// Kills since `before` that nobody told. This is the account of a start: its records are those of hooks that were there
    /// before, as far as watchers before have taken them.
    pub fn gap_since(&self, before: &Self) -> Result<Gap, StateError> {
        Ok(Gap { unwatched: self.unwatched_since(before)?, untold: self.untold_since(before) })
    }

    fn untold_since(&self, before: &Self) -> u64 {
        let Some(left) = before.records else { return 0 };
        let same_hooks = self.boot_id == before.boot_id && self.counters_id == before.counters_id;
        let taken_in_the_end = match self.records {
            // What is still in the ring buffer will be told.
            Some(records) if same_hooks => records.taken,
            // It is gone with its hooks. What they wrote after `before` is among the kills that no hook saw.
            _ => left.written,
        };
        taken_in_the_end.saturating_sub(left.taken) + left.untold
    }

    /// Kills since `before` that no hook saw, as the kernel counts them: the first victim of a group kill twice. Both begin at
    /// zero with each boot.
    fn unwatched_since(&self, before: &Self) -> Result<u64, StateError> {
        if self.boot_id != before.boot_id {
            return Ok(self.kernel_kills.saturating_sub(self.kills_seen));
        }
        let ahead = StateError::Ahead { before: before.kernel_kills, now: self.kernel_kills };
        let counted = self.kernel_kills.checked_sub(before.kernel_kills).ok_or(ahead)?;
        let seen_before = match self.counters_id.cmp(&before.counters_id) {
            // Pinned hooks have gone on counting.
            Ordering::Equal => before.kills_seen,
            // They were attached after `before` was written.
            Ordering::Greater => 0,
            Ordering::Less => return Err(StateError::OtherHooks),
        };
        Ok(counted.saturating_sub(self.kills_seen.saturating_sub(seen_before)))
    }
}

/// What the watcher before left, and the account of now without what it left in the ring buffer.
#[derive(Debug)]
pub struct Unsettled {
    /// What it left.
    pub before: Account,
    /// The account of the start.
    pub now: Account,
}

impl Unsettled {
    /// Says how many kills nobody told. `taken`: records of the hooks that `now` is of, taken by watchers before.
    pub fn settle(self, taken: u64, telemetry: &Telemetry) {
        let Self { before, now } = self;
        let rebooted = before.boot_id != now.boot_id;
        match now.with_records(taken, 0).gap_since(&before) {
            Ok(Gap { unwatched, untold }) => {
                telemetry.set_unwatched_kills(unwatched + untold);
                tracing::info!(unwatched, untold, rebooted, "Kills since the watcher before, not reported");
            }
            Err(error) => StateNotRead { error: &error }.emit(telemetry),
        }
    }
}

/// Keeps the file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    telemetry: Arc<Telemetry>,
    /// When what has changed is to be written.
    due: Option<Instant>,
    /// What was written last, or is being written.
    written: Option<Account>,
    writing: Option<JoinHandle<()>>,
    /// The last write that has ended has failed: the file is older than `written`.
    failed: Arc<AtomicBool>,
}

impl StateFile {
    /// The file in `dir`, which is not touched yet.
    pub fn new(dir: &Path, telemetry: Arc<Telemetry>) -> Self {
        Self {
            path: dir.join("state.json"),
            telemetry,
            due: None,
            written: None,
            writing: None,
            failed: Arc::default(),
        }
    }

    /// What the watcher before left; none: there is no file, or it cannot be used, which is counted and said.
    pub fn read(&self) -> Option<Account> {
        match read(&self.path) {
            Ok(account) => account,
            Err(error) => {
                StateNotRead { error: &error }.emit(&self.telemetry);
                None
            }
        }
    }

    /// A kill was reported: the file is out of date.
    pub fn changed(&mut self, now: Instant) {
        self.due.get_or_insert(now + SETTLE);
    }

    /// The kernel's count has changed since the file was written, or it could not be written.
    pub fn differs(&self, kernel_kills: u64) -> bool {
        self.failed.load(atomic::Ordering::Relaxed)
            || self.written.as_ref().is_none_or(|written| written.kernel_kills != kernel_kills)
    }

    /// When [`Self::write`] is to be called.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Starts to write, beside the pipeline. While a write is stuck, the next waits; while a kill is not told yet, there will be
    /// another.
    pub fn write(&mut self, account: Account, now: Instant) {
        let stuck = self.writing.as_ref().is_some_and(|writing| !writing.is_finished());
        let unsettled = account.records.is_some_and(|records| records.untold > 0);
        self.due = (stuck || unsettled).then_some(now + SETTLE);
        if !stuck && (self.written.as_ref() != Some(&account) || self.failed.load(atomic::Ordering::Relaxed)) {
            self.start(account);
        }
    }

    fn start(&mut self, account: Account) {
        self.written = Some(account.clone());
        let (path, telemetry, failed) = (self.path.clone(), Arc::clone(&self.telemetry), Arc::clone(&self.failed));
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let written = write(&path, &account);
            if let Err(error) = &written {
                StateNotWritten { error }.emit(&telemetry);
            }
            failed.store(written.is_err(), atomic::Ordering::Relaxed);
        }));
    }

    /// Writes for the last time; a disk that is stuck is not waited for any longer.
    pub async fn close(mut self, account: Account, deadline: Instant) {
        let written = async {
            if let Some(writing) = self.writing.take() {
                // An error is a panic of the write, which has told of itself.
                let _ = writing.await;
            }
            self.start(account);
            if let Some(writing) = self.writing.take() {
                let _ = writing.await;
            }
        };
        if tokio::time::timeout_at(deadline.into(), written).await.is_err() {
            tracing::warn!("The state file could not be written in time: the next watcher counts from an older one");
        }
    }
}

fn read(path: &Path) -> Result<Option<Account>, StateError> {
    let failed = |source| StateError::Read { path: path.to_owned(), source };
    // A pipe in its place would be waited for.
    let opened = fs::OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    let garbage = |source| StateError::Garbage { path: path.to_owned(), source };
    let account: Account = serde_json::from_slice(&bytes).map_err(garbage)?;
    if account.version != VERSION {
        return Err(StateError::Version { path: path.to_owned(), version: account.version });
    }
    Ok(Some(account))
}

fn write(path: &Path, account: &Account) -> Result<(), WriteError> {
    let fresh = path.with_extension("new");
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| WriteError { operation, path, source }
    };
    let text = serde_json::to_vec(account).map_err(io::Error::from).map_err(failed("express", path))?;
    fs::write(&fresh, text).map_err(failed("write", &fresh))?;
    fs::rename(&fresh, path).map_err(failed("replace", path))
}

#[cfg(test)]
mod tests;
