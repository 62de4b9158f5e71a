//! The feed of container names against real directories, links and inotify.
#![expect(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use oom_watcher::cgroup::ContainerId;
use oom_watcher::names::{Feed, Health, Limits, Names, Problem, ScanError, Scanner};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// A directory of links, and a feed of it.
struct Fixture {
    base: TempDir,
    names: Names,
    health: watch::Receiver<Health>,
}

impl Fixture {
    /// A feed of a directory that `prepare` may make.
    async fn start(prepare: impl FnOnce(&Path)) -> Self {
        Self::start_with(Limits::default(), prepare).await
    }

    async fn start_with(limits: Limits, prepare: impl FnOnce(&Path)) -> Self {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("containers");
        prepare(&dir);
        let names = Names::new(limits);
        let (feed, mut health) = Feed::new(Arc::new(Scanner::new(dir, names.clone())));
        tokio::spawn(feed.run());
        timeout(Duration::from_secs(10), health.wait_for(|health| health.filled)).await.unwrap().unwrap();
        Self { base, names, health }
    }

    async fn start_empty() -> Self {
        Self::start(|dir| fs::create_dir(dir).unwrap()).await
    }

    fn dir(&self) -> PathBuf {
        self.base.path().join("containers")
    }

    fn pod_of(&self, number: u32) -> Option<String> {
        let id = ContainerId::parse(&id(number)).unwrap();
        self.names.with(|index| index.by_id(&id, None).map(|container| container.name.pod.clone()))
    }

    fn live(&self) -> usize {
        self.names.stats().live
    }

    fn problem(&self) -> Option<Problem> {
        self.health.borrow().problem
    }
}

fn id(number: u32) -> String {
    format!("{number:064x}")
}

fn link_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("pod-{number}_default_app-{}.log", id(number)))
}

fn add(dir: &Path, number: u32) {
    let target = format!("/var/log/pods/default_pod-{number}_uid-{number}/app/0.log");
    symlink(target, link_path(dir, number)).unwrap();
}

/// Waits for what must come true by itself.
#[track_caller]
fn eventually(condition: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let end = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < end, "{caller}: did not come true");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn links_that_exist_and_that_appear_are_known_at_once() {
    let fixture = Fixture::start(|dir| {
        fs::create_dir(dir).unwrap();
        add(dir, 1);
    })
    .await;
    assert_eq!(fixture.pod_of(1).as_deref(), Some("pod-1"));
    add(&fixture.dir(), 2);
    let appeared = Instant::now();
    eventually(|| fixture.pod_of(2).is_some()).await;
    assert!(appeared.elapsed() < Duration::from_secs(1), "by an event, not by a scan: {:?}", appeared.elapsed());
    assert_eq!(fixture.names.stats().scans, 1);
}

#[tokio::test]
async fn a_link_that_is_deleted_or_moved_away_is_gone_but_known() {
    let fixture = Fixture::start_empty().await;
    for number in 1..=3 {
        add(&fixture.dir(), number);
    }
    eventually(|| fixture.live() == 3).await;
    fs::remove_file(link_path(&fixture.dir(), 1)).unwrap();
    fs::rename(link_path(&fixture.dir(), 2), fixture.base.path().join("elsewhere")).unwrap();
    eventually(|| fixture.live() == 1).await;
    assert_eq!(fixture.pod_of(1).as_deref(), Some("pod-1"));
    fs::rename(fixture.base.path().join("elsewhere"), link_path(&fixture.dir(), 2)).unwrap();
    eventually(|| fixture.live() == 2).await;
    let changes = fixture.names.take_changes();
    assert_eq!((changes.added.len(), changes.gone.len()), (2, 0), "the one that came and went was never told");
}

#[tokio::test]
async fn a_directory_that_is_missing_is_filled_with_nothing_and_found_when_it_appears() {
    let fixture = Fixture::start(|_| ()).await;
    assert_eq!(fixture.problem(), Some(Problem::Missing));
    fs::create_dir(fixture.dir()).unwrap();
    add(&fixture.dir(), 1);
    eventually(|| fixture.pod_of(1).is_some() && fixture.problem().is_none()).await;
    add(&fixture.dir(), 2);
    eventually(|| fixture.pod_of(2).is_some()).await;
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_followed_again() {
    let fixture = Fixture::start_empty().await;
    add(&fixture.dir(), 1);
    eventually(|| fixture.live() == 1).await;
    fs::rename(fixture.dir(), fixture.base.path().join("old")).unwrap();
    fs::create_dir(fixture.dir()).unwrap();
    add(&fixture.dir(), 2);
    eventually(|| fixture.pod_of(2).is_some() && fixture.live() == 1).await;
    assert_eq!(fixture.pod_of(1).as_deref(), Some("pod-1"), "as a tombstone");
    add(&fixture.base.path().join("old"), 3);
    add(&fixture.dir(), 4);
    eventually(|| fixture.pod_of(4).is_some()).await;
    assert_eq!(fixture.pod_of(3), None, "the old directory is nobody's");
}

#[tokio::test]
async fn a_directory_that_is_deleted_is_stated_and_its_names_stay() {
    let fixture = Fixture::start_empty().await;
    add(&fixture.dir(), 1);
    eventually(|| fixture.live() == 1).await;
    fs::remove_dir_all(fixture.dir()).unwrap();
    eventually(|| fixture.problem() == Some(Problem::Missing)).await;
    assert_eq!(fixture.pod_of(1).as_deref(), Some("pod-1"));
}

#[tokio::test]
async fn a_directory_that_may_not_be_read_is_stated_until_it_may() {
    // Root reads everything by these two; the thread that scans inherits what this one has.
    for capability in [caps::Capability::CAP_DAC_OVERRIDE, caps::Capability::CAP_DAC_READ_SEARCH] {
        caps::drop(None, caps::CapSet::Effective, capability).unwrap();
    }
    let fixture = Fixture::start(|dir| {
        fs::create_dir(dir).unwrap();
        add(dir, 1);
        fs::set_permissions(dir, fs::Permissions::from_mode(0o000)).unwrap();
    })
    .await;
    assert_eq!(fixture.problem(), Some(Problem::Unreadable));
    assert!(fixture.names.stats().errors > 0);
    fs::set_permissions(fixture.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    eventually(|| fixture.pod_of(1).is_some() && fixture.problem().is_none()).await;
}

#[tokio::test]
async fn a_file_in_the_place_of_the_directory_is_stated() {
    let fixture = Fixture::start(|dir| fs::write(dir, "").unwrap()).await;
    assert_eq!(fixture.problem(), Some(Problem::Missing));
}

#[tokio::test]
async fn ten_thousand_links_and_hostile_names_are_read() {
    let fixture = Fixture::start(|dir| {
        fs::create_dir(dir).unwrap();
        for number in 0..10_000 {
            add(dir, number);
        }
        for hostile in ["README", "a_b_c-0.log", "new\nline_n_c-.log", "ünïcode.log"] {
            fs::write(dir.join(hostile), "").unwrap();
        }
        fs::write(dir.join("x".repeat(255)), "").unwrap();
        fs::create_dir(dir.join(format!("p_n_directory-{}.log", id(99_999)))).unwrap();
        let not_utf8 = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff\xfe.log");
        fs::write(dir.join(not_utf8), "").unwrap();
    })
    .await;
    let stats = fixture.names.stats();
    // A directory or file of a right name has no target, but nothing else is wrong with it.
    assert_eq!((stats.live, stats.ignored, stats.refused), (10_001, 6, 0));
    assert_eq!(fixture.pod_of(9999).as_deref(), Some("pod-9999"));
    add(&fixture.dir(), 10_000);
    eventually(|| fixture.pod_of(10_000).is_some()).await;
}

#[tokio::test]
async fn events_that_the_kernel_dropped_are_made_up_for_by_a_scan() {
    let queue: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let fixture = Fixture::start_empty().await;
    let dir = fixture.dir();
    add(&dir, 1);
    eventually(|| fixture.live() == 1).await;
    // One thread: the feed reads nothing while this one makes more events than the queue holds.
    for number in 0..u32::try_from(queue / 2 + 100).unwrap() {
        add(&dir, 1_000_000 + number);
        fs::remove_file(link_path(&dir, 1_000_000 + number)).unwrap();
    }
    fs::remove_file(link_path(&dir, 1)).unwrap();
    add(&dir, 2);
    eventually(|| fixture.names.stats().overflows == 1 && fixture.pod_of(2).is_some()).await;
    assert_eq!(fixture.live(), 1, "the link whose deletion was dropped is gone too");
}

#[tokio::test]
async fn a_directory_that_only_a_mount_keeps_is_told_apart_from_an_empty_one() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("containers");
    fs::create_dir(&dir).unwrap();
    let open = fs::File::open(&dir).unwrap();
    fs::remove_dir(&dir).unwrap();
    // An open directory outlives its name just as a mounted one does.
    let kept = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
    let scanner = Scanner::new(kept, Names::default());
    assert!(matches!(scanner.scan_since(Instant::now()).await, Err(ScanError::Deleted { .. })));
}

#[tokio::test]
async fn scans_that_are_due_at_the_same_time_are_one() {
    let base = tempfile::tempdir().unwrap();
    add(base.path(), 1);
    let names = Names::new(Limits::default());
    let scanner = Arc::new(Scanner::new(base.path(), names.clone()));
    let due = Instant::now();
    let askers: Vec<_> = (0..50)
        .map(|_| {
            let scanner = Arc::clone(&scanner);
            tokio::spawn(async move { scanner.scan_since(due).await })
        })
        .collect();
    for asker in askers {
        asker.await.unwrap().unwrap();
    }
    assert_eq!((names.stats().scans, names.stats().live), (1, 1));
}

#[tokio::test]
async fn more_links_than_the_index_holds_are_stated_until_they_fit() {
    let fixture = Fixture::start_with(Limits { live: 2, ..Limits::default() }, |dir| {
        fs::create_dir(dir).unwrap();
        for number in 1..=3 {
            add(dir, number);
        }
    })
    .await;
    let stats = fixture.names.stats();
    assert_eq!((fixture.problem(), stats.live, stats.refused), (Some(Problem::IndexFull), 2, 2), "at both scans");
    fs::rename(fixture.dir(), fixture.base.path().join("old")).unwrap();
    fs::create_dir(fixture.dir()).unwrap();
    add(&fixture.dir(), 4);
    eventually(|| fixture.pod_of(4).is_some() && fixture.problem().is_none()).await;
}

/// The limits of inotify are a user's, on the whole machine: they are lowered in a user namespace, in which another process
/// runs the test below.
#[test]
fn the_limits_of_inotify_are_stated_and_made_up_for() {
    let in_namespace = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user"]);
        command
    };
    if !in_namespace().arg("true").status().is_ok_and(|status| status.success()) {
        println!("not possible here: no user namespace can be made");
        return;
    }
    let output = in_namespace()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "within_low_limits_of_inotify"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "it lowers its user's limits: the test above runs it in a user namespace"]
async fn within_low_limits_of_inotify() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let writer = std::sync::Mutex::new(log.reopen().unwrap());
    let _log = tracing::subscriber::set_default(tracing_subscriber::fmt().with_writer(writer).finish());
    for limit in ["max_inotify_instances", "max_inotify_watches"] {
        let limit = Path::new("/proc/sys/user").join(limit);
        fs::write(&limit, "0").unwrap();
        let fixture = Fixture::start(|dir| {
            fs::create_dir(dir).unwrap();
            add(dir, 1);
        })
        .await;
        assert_eq!(fixture.problem(), Some(Problem::WatchLimit));
        assert_eq!(fixture.pod_of(1).as_deref(), Some("pod-1"), "the directory is read all the same");
        add(&fixture.dir(), 2);
        eventually(|| fixture.pod_of(2).is_some()).await;
        assert_eq!(fixture.problem(), Some(Problem::WatchLimit));
        eventually(|| fixture.names.stats().errors >= 2).await;
        fs::write(&limit, "128").unwrap();
        eventually(|| fixture.problem().is_none()).await;
        let scans = fixture.names.stats().scans;
        add(&fixture.dir(), 3);
        eventually(|| fixture.pod_of(3).is_some()).await;
        assert_eq!(fixture.names.stats().scans, scans, "by an event again");
        let log = fs::read_to_string(log.path()).unwrap();
        let dir = format!("dir={}", fixture.dir().display());
        for text in ["Container names may be missing or old", "Container names are up to date again"] {
            let lines = log.lines().filter(|line| line.contains(text) && line.contains(&dir));
            assert_eq!(lines.count(), 1, "{log}");
        }
    }
}
