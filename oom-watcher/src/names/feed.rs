//! Keeps the index as the directory is: a watch, a scan, then the kernel's events.
//!
//! Nothing is polled while that works. What breaks it (events dropped, the directory replaced or gone, no permission, no
//! inotify instance left) ends the session, and the next one begins with a scan again, after a pause that grows with each
//! failure. A scan every five minutes corrects what no event told.

use std::convert::Infallible;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use super::{ScanError, Scanner, link};

/// A session lasts so long, then the directory is watched and scanned anew.
const SESSION: Duration = Duration::from_mins(5);
/// Pause after a session that the directory ended: a flood of events costs four scans a second at most.
const PAUSE: Duration = Duration::from_millis(250);
/// Pauses after a failure: they double from the first to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// Events handled in one turn, before other tasks get theirs.
const EVENTS_PER_TURN: usize = 256;
/// Bytes of events read at once; one event takes 272 at most.
const EVENT_BUFFER: usize = 16 << 10;

/// What the feed can say of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The directory was tried once: the index holds what there is. A missing directory fills it with nothing.
    pub filled: bool,
    /// Why the index may be out of date.
    pub problem: Option<Problem>,
}

/// Why the index may be out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// There is no such directory, or only what a mount keeps of it.
    Missing,
    /// It may not be read.
    Unreadable,
    /// The kernel's limits on inotify instances, watches or files are reached; the directory is scanned at each retry.
    WatchLimit,
    /// It has more entries than a scan reads.
    TooManyEntries,
    /// It has more links than the index holds.
    IndexFull,
    /// Anything else.
    Other,
}

impl Problem {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Missing, Self::Unreadable, Self::WatchLimit, Self::TooManyEntries, Self::IndexFull, Self::Other];

    /// Short name, for a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::WatchLimit => "watch_limit",
            Self::TooManyEntries => "too_many_entries",
            Self::IndexFull => "index_full",
            Self::Other => "other",
        }
    }
}

/// Why a session ended early.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("cannot create an inotify instance")]
    Instance(#[source] io::Error),
    #[error("cannot watch the directory of container links {}", dir.display())]
    Watch {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the events of the directory of container links")]
    Events(#[source] io::Error),
    #[error(transparent)]
    Scan(#[from] ScanError),
}

impl FeedError {
    fn problem(&self) -> Problem {
        let error = match self {
            Self::Instance(source)
            | Self::Watch { source, .. }
            | Self::Events(source)
            | Self::Scan(ScanError::Read { source, .. }) => source,
            Self::Scan(ScanError::Deleted { .. }) => return Problem::Missing,
            Self::Scan(ScanError::TooMany { .. }) => return Problem::TooManyEntries,
        };
        match Errno::from_io_error(error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Problem::Missing,
            Some(Errno::ACCESS | Errno::PERM) => Problem::Unreadable,
            Some(Errno::NOSPC | Errno::MFILE | Errno::NFILE) => Problem::WatchLimit,
            _ => Problem::Other,
        }
    }
}

/// The task that keeps the index.
#[derive(Debug)]
pub struct Feed {
    scanner: Arc<Scanner>,
    health: watch::Sender<Health>,
}

impl Feed {
    /// A feed of the scanner's index, and what it will say of itself.
    pub fn new(scanner: Arc<Scanner>) -> (Self, watch::Receiver<Health>) {
        let (health, receiver) = watch::channel(Health::default());
        (Self { scanner, health }, receiver)
    }

    /// Runs until it is dropped, which it may be at any await.
    pub async fn run(self) -> Infallible {
        let mut retry = RETRY_FIRST;
        loop {
            match self.session().await {
                Ok(End::Due) => retry = RETRY_FIRST,
                Ok(End::Restart) => {
                    retry = RETRY_FIRST;
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    self.report(&error);
                    sleep(retry).await;
                    retry = RETRY_LAST.min(retry * 2);
                }
            }
        }
    }

    /// Watches, scans, follows. The watch comes first, so that nothing falls between the two; and the scan comes even if
    /// there is no watch, since names that may be old are better than none.
    async fn session(&self) -> Result<End, FeedError> {
        let watch = Watch::new(self.scanner.dir());
        let scanned = self.scan_fits().await;
        let mut watch = watch?;
        // What is gone is known at the end of a scan, so only the next one finds its places free.
        if scanned? || self.scan_fits().await? {
            self.recover();
        } else {
            self.state(Problem::IndexFull, None);
        }
        let due = Instant::now() + SESSION;
        loop {
            tokio::select! {
                () = sleep_until(due) => return Ok(End::Due),
                ready = watch.turn(|event| self.handle(event)) => {
                    if let Some(end) = ready? {
                        return Ok(end);
                    }
                    // A flood of events must not keep the tasks that report kills from running.
                    yield_now().await;
                }
            }
        }
    }

    /// Scans, and says whether the index had room for all.
    async fn scan_fits(&self) -> Result<bool, ScanError> {
        let before = self.scanner.names().stats().refused;
        self.scanner.scan_since(Instant::now()).await?;
        Ok(self.scanner.names().stats().refused == before)
    }

    /// One event of the directory.
    fn handle(&self, event: &inotify::Event<'_>) -> Option<End> {
        let flags = event.events();
        let names = self.scanner.names();
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            names.with(|index| index.stats.overflows += 1);
            return Some(End::Restart);
        }
        let directory_went = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
        if flags.intersects(directory_went) {
            return Some(End::Restart);
        }
        let Some(file_name) = event.file_name().and_then(|name| name.to_str().ok()) else {
            names.with(|index| index.stats.ignored += 1);
            return None;
        };
        if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            self.scanner.read_link(file_name);
        } else if let Some(key) = link::key(file_name) {
            names.with(|index| index.delete(&key, Instant::now().into_std()));
        }
        None
    }

    fn recover(&self) {
        let before = self.health.send_replace(Health { filled: true, problem: None });
        if before.problem.is_some() {
            let dir = self.scanner.dir().display();
            tracing::info!(%dir, "Container names are up to date again");
        }
    }

    /// Counts and states the problem.
    fn report(&self, error: &FeedError) {
        if !matches!(error, FeedError::Scan(_)) {
            self.scanner.names().with(|index| index.stats.errors += 1);
        }
        self.state(error.problem(), Some(error));
    }

    /// States a problem, and logs it if it is another one than before.
    fn state(&self, problem: Problem, error: Option<&(dyn std::error::Error + 'static)>) {
        let before = self.health.send_replace(Health { filled: true, problem: Some(problem) });
        if before.problem != Some(problem) {
            let dir = self.scanner.dir().display();
            tracing::warn!(error, problem = problem.as_str(), %dir, "Container names may be missing or old; trying again");
        }
    }
}

/// How a session ends without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It lasted its time.
    Due,
    /// The directory is another one, or events were lost.
    Restart,
}

/// A watch of one directory.
struct Watch {
    inotify: AsyncFd<OwnedFd>,
    buffer: Box<[MaybeUninit<u8>]>,
}

impl Watch {
    fn new(dir: &Path) -> Result<Self, FeedError> {
        let instance = |error: Errno| FeedError::Instance(error.into());
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(instance)?;
        let what = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::MOVED_FROM;
        let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, dir, what | itself)
            .map_err(|error| FeedError::Watch { dir: dir.to_path_buf(), source: error.into() })?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe, for types whose descriptor may change; OwnedFd's cannot"
        )]
        let inotify = AsyncFd::with_interest(inotify, Interest::READABLE).map_err(FeedError::Instance)?;
        Ok(Self { inotify, buffer: vec![MaybeUninit::uninit(); EVENT_BUFFER].into() })
    }

    /// Waits for events and handles them, up to one turn's. Cancel-safe: what was read is handled before the next await.
    async fn turn(
        &mut self,
        mut handle: impl FnMut(&inotify::Event<'_>) -> Option<End>,
    ) -> Result<Option<End>, FeedError> {
        let mut ready = self.inotify.readable().await.map_err(FeedError::Events)?;
        let mut reader = inotify::Reader::new(ready.get_inner(), &mut self.buffer);
        let mut handled = 0;
        let end = loop {
            match reader.next() {
                Ok(event) => {
                    if let Some(end) = handle(&event) {
                        break Some(end);
                    }
                }
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    break None;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(FeedError::Events(error.into())),
            }
            handled += 1;
            if handled >= EVENTS_PER_TURN && reader.is_buffer_empty() {
                break None;
            }
        };
        Ok(end)
    }
}
