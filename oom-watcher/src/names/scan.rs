//! Reads the directory of links, whole, off the thread that handles kills.
//!
//! A machine that is out of memory may take seconds for a directory that is not in memory, so a scan runs on a thread for
//! blocking work. There is one at a time: who asks while one runs waits, and is served by the next, together with all who
//! asked meanwhile; a storm of misses costs one scan, not one each.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant as StdInstant;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Index, Names, link};

/// Directory entries that one scan reads at most: four times what the index has room for, so that links that are not of containers do
/// not keep those of containers out.
const ENTRIES_MAX: usize = 65_536;

/// Why the directory of links could not be read, or not whole. Links that were read until then are known.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The directory could not be read.
    #[error("cannot read the directory of container links {}", dir.display())]
    Read {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory was deleted, but is still mounted here: whatever replaced it cannot be seen.
    #[error("the directory of container links {} was deleted on the host; the mount shows the old one", dir.display())]
    Deleted {
        /// The directory.
        dir: PathBuf,
    },
    /// It has more entries than a scan reads.
    #[error("the directory of container links {} has more than {limit} entries", dir.display())]
    TooMany {
        /// The directory.
        dir: PathBuf,
        /// What a scan reads.
        limit: usize,
    },
}

/// Reads the directory of links into the index.
#[derive(Debug)]
pub struct Scanner {
    dir: Arc<Path>,
    names: Names,
    /// When the last scan began. Held while one runs, by the scan itself: whoever waits for it may give up.
    last_begin: Arc<Mutex<Option<Instant>>>,
}

impl Scanner {
    /// A scanner of `dir` into `names`.
    pub fn new(dir: impl Into<PathBuf>, names: Names) -> Self {
        Self { dir: dir.into().into(), names, last_begin: Arc::default() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The index that it fills.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Scans, unless another scan has begun at or after `due`.
    ///
    /// # Errors
    /// As the scan; whatever it read is in the index all the same.
    pub async fn scan_since(&self, due: Instant) -> Result<(), ScanError> {
        let mut last_begin = Arc::clone(&self.last_begin).lock_owned().await;
        if last_begin.is_some_and(|begin| begin >= due) {
            return Ok(());
        }
        let now = Instant::now();
        let (dir, names) = (Arc::clone(&self.dir), self.names.clone());
        let scan = tokio::task::spawn_blocking(move || {
            *last_begin = Some(now);
            scan(&dir, &names, now.into_std())
        });
        // A scan is only cancelled with the runtime, and then nobody waits for it.
        let result = scan.await.unwrap_or_else(|error| Err(self.read_error(io::Error::other(error))));
        if result.is_err() {
            self.names.with(|index| index.stats.errors += 1);
        }
        result
    }

    /// One link appeared (or was replaced). Reads it on this thread: it was made a moment ago, so it is in memory.
    pub(super) fn read_link(&self, file_name: &str) {
        apply(&self.dir, file_name, &self.names, Instant::now().into_std());
    }

    fn read_error(&self, source: io::Error) -> ScanError {
        ScanError::Read { dir: self.dir.to_path_buf(), source }
    }
}

/// Reads every entry; what is known already costs no more than its name.
fn scan(dir: &Path, names: &Names, now: StdInstant) -> Result<(), ScanError> {
    let failed = |source| ScanError::Read { dir: dir.to_path_buf(), source };
    let entries = std::fs::read_dir(dir).map_err(failed)?;
    // A mount keeps a directory alive that its host has deleted; no event tells.
    if std::fs::metadata(dir).map_err(failed)?.nlink() == 0 {
        return Err(ScanError::Deleted { dir: dir.to_path_buf() });
    }
    names.with(Index::begin_scan);
    for (number, entry) in entries.enumerate() {
        if number >= ENTRIES_MAX {
            return Err(ScanError::TooMany { dir: dir.to_path_buf(), limit: ENTRIES_MAX });
        }
        let file_name = entry.map_err(failed)?.file_name();
        match file_name.to_str() {
            Some(file_name) => apply(dir, file_name, names, now),
            None => names.with(|index| index.stats.ignored += 1),
        }
    }
    names.with(|index| index.end_scan(now));
    Ok(())
}

/// Puts one entry of the directory into the index.
fn apply(dir: &Path, file_name: &str, names: &Names, now: StdInstant) {
    let Some(key) = link::key(file_name) else {
        return names.with(|index| index.stats.ignored += 1);
    };
    if names.with(|index| index.touch(&key)) {
        return;
    }
    let target = std::fs::read_link(dir.join(file_name));
    if target.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return;
    }
    let target = target.ok();
    match link::parse(file_name, target.as_deref().and_then(Path::to_str)) {
        Some(link) => {
            names.with(|index| index.apply(key, link, now));
            names.link_added.notify_waiters();
        }
        None => names.with(|index| index.stats.ignored += 1),
    }
}
