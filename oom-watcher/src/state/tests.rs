use super::*;

fn account(boot_id: &str, kernel_kills: u64) -> Account {
    Account::new(boot_id, kernel_kills, 7, &KernelCounters::default())
}

/// Nothing of what the hooks saw was lost.
fn seen(kernel_kills: u64, counters_id: u32, kills_seen: u64) -> Account {
    Account::new("a", kernel_kills, counters_id, &counters(kills_seen))
}

fn counters(kills: u64) -> KernelCounters {
    let mut counters = KernelCounters::default();
    counters[counter::KILLS_SENT as usize] = kills;
    counters
}

#[test]
fn what_hooks_saw_was_not_unwatched() {
    let before = seen(5, 7, 3);
    assert_eq!(seen(9, 7, 7).unwatched_since(&before).unwrap(), 0, "pinned hooks saw all four");
    assert_eq!(seen(9, 7, 6).unwatched_since(&before).unwrap(), 1, "and here three of four");
    assert_eq!(seen(9, 8, 1).unwatched_since(&before).unwrap(), 3, "new hooks have seen one of four");
    assert_eq!(seen(5, 7, 4).unwatched_since(&before).unwrap(), 0, "the kernel counts a moment later");
    assert!(matches!(seen(9, 6, 9).unwatched_since(&before), Err(StateError::OtherHooks)));
    let rebooted = Account::new("b", 4, 1, &counters(1));
    assert_eq!(rebooted.unwatched_since(&before).unwrap(), 3);
}

#[test]
fn the_gap_is_what_the_kernel_counted_in_it() {
    let before = account("a", 5);
    assert_eq!(account("a", 5).unwatched_since(&before).unwrap(), 0);
    assert_eq!(account("a", 8).unwatched_since(&before).unwrap(), 3);
    assert_eq!(account("b", 2).unwatched_since(&before).unwrap(), 2, "another boot counts from zero");
    let error = account("a", 4).unwatched_since(&before).unwrap_err();
    assert_eq!(error.to_string(), "the state file has 5 kills in this boot, the kernel only 4");
}

#[test]
fn what_a_watcher_had_and_did_not_tell_is_in_the_gap() {
    let before = seen(9, 7, 7).with_records(7, 2);
    let untold = |now: Account| now.gap_since(&before).unwrap().untold;
    assert_eq!(untold(seen(9, 7, 7).with_records(7, 0)), 2, "they waited when the file was written");
    assert_eq!(untold(seen(12, 7, 10).with_records(7, 0)), 2, "three are in the ring buffer, and will be told");
    assert_eq!(untold(seen(12, 7, 10).with_records(9, 0)), 4, "two more were taken after the file was written");
    let unread = seen(9, 7, 7).with_records(4, 1);
    let gap = seen(12, 8, 1).gap_since(&unread).unwrap();
    assert_eq!(gap, Gap { unwatched: 2, untold: 4 }, "the ring buffer went with its hooks, three unread");
    let rebooted = Account::new("b", 4, 7, &counters(1)).with_records(1, 0);
    assert_eq!(rebooted.gap_since(&unread).unwrap(), Gap { unwatched: 3, untold: 4 });
    let silent = Account { records: None, ..seen(9, 7, 7) };
    assert_eq!(seen(9, 7, 7).with_records(99, 0).gap_since(&silent).unwrap(), Gap::default(), "not known");
}

#[test]
fn the_gap_is_one_number() {
    let telemetry = Telemetry::new();
    let before = seen(9, 7, 7).with_records(7, 2);
    Unsettled { before, now: seen(13, 8, 1) }.settle(0, &telemetry);
    assert_eq!(telemetry.unwatched_kills(), Some(5), "three that no hook saw, and two");
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    assert_eq!(read(&path).unwrap(), None, "the first start has no state");
    for kills in [7, 8] {
        write(&path, &account("a", kills)).unwrap();
        assert_eq!(read(&path).unwrap(), Some(account("a", kills)));
    }
    let known = account("a", 9).with_records(2, 1);
    write(&path, &known).unwrap();
    assert_eq!(read(&path).unwrap(), Some(known));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no part is left behind");
}

#[test]
fn what_is_no_state_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    let large = " ".repeat(BYTES_MAX as usize)
        + r#"{"version":1,"boot_id":"a","kernel_kills":1,"counters_id":1,"kills_seen":1}"#;
    for (text, message) in [
        ("", "is not a state file"),
        ("\0\0\0\0", "is not a state file"),
        (r#"{"version":1,"boot_id":"a"}"#, "is not a state file"),
        (r#"{"version":1,"boot_id":"a","kernel_kills":-1,"counters_id":1,"kills_seen":1}"#, "is not a state file"),
        (r#"{"version":2,"boot_id":"a","kernel_kills":1,"counters_id":1,"kills_seen":1}"#, "has version 2, not 1"),
        (&large, "is not a state file"),
    ] {
        fs::write(&path, text).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("state.json") && error.contains(message), "{error}");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(read(&path), Err(StateError::Read { .. })));
}

/// The file of a version that knew nothing of records, and its view of one that has them.
#[test]
fn versions_read_each_others_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    let old = r#"{"version":1,"boot_id":"a","kernel_kills":1,"counters_id":7,"kills_seen":0}"#;
    fs::write(&path, old).unwrap();
    let silent = Account { records: None, ..account("a", 1) };
    assert_eq!(read(&path).unwrap(), Some(silent.clone()));
    write(&path, &silent).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), old);
    write(&path, &Account::new("a", 1, 7, &counters(0)).with_records(2, 1)).unwrap();
    let new = fs::read_to_string(&path).unwrap();
    let records = r#""records":{"written":0,"taken":2,"untold":1}"#;
    assert_eq!(new, old.replace('}', &format!(",{records}}}")), "a field more, which the old one does not look at");
}

#[tokio::test]
async fn what_is_not_told_yet_is_looked_at_again_and_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = StateFile::new(dir.path(), Arc::new(Telemetry::new()));
    let waiting = account("a", 1).with_records(1, 1);
    let now = Instant::now();
    state.write(waiting.clone(), now);
    assert_eq!(state.due(), Some(now + SETTLE));
    state.writing.take().unwrap().await.unwrap();
    state.write(waiting.clone(), now);
    assert!(state.writing.is_none(), "nothing has changed");
    assert_eq!(state.due(), Some(now + SETTLE));
    let told = account("a", 1).with_records(1, 0);
    state.write(told.clone(), now);
    assert_eq!(state.due(), None);
    state.close(told.clone(), now + Duration::from_mins(1)).await;
    assert_eq!(read(&dir.path().join("state.json")).unwrap(), Some(told));
}

#[tokio::test]
async fn what_could_not_be_written_is_tried_again() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("late");
    let mut state = StateFile::new(&dir, Arc::new(Telemetry::new()));
    let account = account("a", 1).with_records(1, 0);
    state.write(account.clone(), Instant::now());
    state.writing.take().unwrap().await.unwrap();
    assert!(state.differs(1));
    fs::create_dir(&dir).unwrap();
    state.write(account.clone(), Instant::now());
    state.writing.take().unwrap().await.unwrap();
    assert!(!state.differs(1));
    assert_eq!(read(&dir.join("state.json")).unwrap(), Some(account));
}

#[test]
fn a_directory_in_its_place_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = read(dir.path()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}", dir.path().display()));
}

/// A file that nobody can open for writing without waiting: a pipe that nobody reads.
#[tokio::test]
async fn a_disk_that_is_stuck_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("state.new");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let mut state = StateFile::new(dir.path(), Arc::new(Telemetry::new()));
    let now = Instant::now();
    state.write(account("a", 1), now);
    state.write(account("a", 2), now);
    assert_eq!(state.due(), Some(now + SETTLE), "the next one waits for it");
    state.close(account("a", 3), now + Duration::from_millis(50)).await;
    // The thread is let go.
    drop(fs::File::options().read(true).write(true).open(&fifo).unwrap());
}

#[tokio::test]
async fn a_state_that_cannot_be_kept_is_counted() {
    let telemetry = Arc::new(Telemetry::new());
    let mut state = StateFile::new(Path::new("/proc/no-such-directory"), Arc::clone(&telemetry));
    state.changed(Instant::now());
    assert!(state.due().is_some());
    state.write(account("a", 1), Instant::now());
    assert_eq!(state.due(), None);
    state.writing.take().unwrap().await.unwrap();
    assert!(state.differs(2) && state.differs(1), "it is to be tried again");
    state.close(account("a", 2), Instant::now() + Duration::from_mins(1)).await;
    assert_eq!(telemetry.count_state_not_written(), 3, "both failures were counted");
}
