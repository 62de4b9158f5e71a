//! The state file: how far the kernel's count of kills was when the last kill was reported, for the next watcher.
//!
//! Without it the kills between two watchers are silent: the kernel counts them, and nobody knows from where to count. It is
//! written a moment after a kill and at the end, never while nothing happens, and by a thread that may be stuck on a disk
//! without anybody waiting for it. It is renamed into place, so a reader finds the old or the new one. It is not forced to
//! the disk: what it says holds for one boot only, and the page cache outlives the process.

use std::{
    cmp::Ordering,
    fs,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
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

/// From a kill to its place in the file: a burst is one write, not thousands. Killed with SIGKILL within it, a watcher leaves
/// kills of which nobody knows whether it has reported them, and the next one counts them as unwatched.
pub const SETTLE: Duration = Duration::from_millis(250);
/// The file is some hundred bytes; more is not ours.
const BYTES_MAX: u64 = 4096;
/// How long the last write may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
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
    /// Kills that the hooks have put into the ring buffer. None: the file is of a watcher that did not keep it.
    #[serde(default)]
    pub kills_recorded: Option<u64>,
}

/// What is known of the kills since the watcher before kept its account, before what hooks have recorded is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Kills that no hook saw, as the kernel counts them.
    pub unseen: u64,
    /// Whose hooks the next figure is of.
    pub counters_id: u32,
    /// Kills that these had recorded by then. None: it is not known, or nobody can have taken a record of theirs since.
    pub recorded: Option<u64>,
}

impl Gap {
    /// Kills that are told by nobody, once what was to be read has been: of `recorded` kills in all `taken` were read now, so
    /// the others since the account were taken by a watcher that died before it kept the next. It may have told of them.
    pub fn untold(&self, recorded: u64, taken: u64) -> u64 {
        let by_the_dead = self.recorded.map_or(0, |before| recorded.saturating_sub(before).saturating_sub(taken));
        self.unseen + by_the_dead
    }
}

impl Account {
    /// The account of now.
    pub fn new(boot_id: &str, kernel_kills: u64, counters_id: u32, counters: &KernelCounters) -> Self {
        Self {
            version: VERSION,
            boot_id: boot_id.to_owned(),
            kernel_kills,
            counters_id,
            kills_seen: audit::seen(counters),
            kills_recorded: Some(counters[counter::KILLS_SENT as usize]),
        }
    }

    /// What became of the kills since `before`.
    pub fn gap_since(&self, before: &Self) -> Result<Gap, StateError> {
        let unseen = self.unseen_since(before)?;
        let same = self.boot_id == before.boot_id && self.counters_id == before.counters_id;
        let recorded = before.kills_recorded.filter(|_| same);
        Ok(Gap { unseen, counters_id: self.counters_id, recorded })
    }

    /// Kills since `before` that no hook saw, as the kernel counts them: the first victim of a group kill twice. Both begin at
    /// zero with each boot.
    fn unseen_since(&self, before: &Self) -> Result<u64, StateError> {
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
}

impl StateFile {
    /// The file in `dir`, which is not touched yet.
    pub fn new(dir: &Path, telemetry: Arc<Telemetry>) -> Self {
        Self { path: dir.join("state.json"), telemetry, due: None, written: None, writing: None }
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

    /// Not all kills are reported yet.
    pub fn postpone(&mut self, now: Instant) {
        self.due = Some(now + SETTLE);
    }

    /// The kernel's count has changed since the file was written.
    pub fn differs(&self, kernel_kills: u64) -> bool {
        self.written.as_ref().is_none_or(|written| written.kernel_kills != kernel_kills)
    }

    /// When [`Self::write`] is to be called.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Starts to write, beside the pipeline. While a write is stuck, the next waits.
    pub fn write(&mut self, account: Account, now: Instant) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            self.due = Some(now + SETTLE);
            return;
        }
        self.due = None;
        self.start(account);
    }

    fn start(&mut self, account: Account) {
        self.written = Some(account.clone());
        let (path, telemetry) = (self.path.clone(), Arc::clone(&self.telemetry));
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = write(&path, &account) {
                StateNotWritten { error: &error }.emit(&telemetry);
            }
        }));
    }

    /// Writes for the last time; a disk that is stuck is not waited for.
    pub async fn close(mut self, account: Account) {
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
        if tokio::time::timeout(CLOSE_DEADLINE, written).await.is_err() {
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
