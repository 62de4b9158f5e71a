use super::*;

fn account(boot_id: &str, kernel_kills: u64) -> Account {
    Account::new(boot_id, kernel_kills, 7, &KernelCounters::default())
}

fn seen(kernel_kills: u64, counters_id: u32, kills_recorded: u64) -> Account {
    Account::new("a", kernel_kills, counters_id, &recorded(kills_recorded))
}

fn recorded(kills: u64) -> KernelCounters {
    let mut counters = KernelCounters::default();
    counters[counter::KILLS_SENT as usize] = kills;
    counters
}

#[test]
fn what_a_dead_watcher_took_is_told_by_nobody() {
    let before = seen(5, 7, 3);
    let gap = seen(9, 7, 7).gap_since(&before).unwrap();
    assert_eq!(gap.untold(7, 4), 0, "all four were there to be read");
    assert_eq!(gap.untold(7, 1), 3, "three were taken");
    assert_eq!(gap.untold(8, 5), 0, "one came while they were read");
    let gap = seen(9, 7, 6).gap_since(&before).unwrap();
    assert_eq!(gap.untold(6, 2), 2, "one was not seen and one was taken");
    let others = [seen(9, 8, 1), Account::new("b", 4, 7, &recorded(4))];
    for now in others {
        assert_eq!(now.gap_since(&before).unwrap().recorded, None, "nobody had taken of other hooks before");
    }
    let older = Account { kills_recorded: None, ..before };
    assert_eq!(seen(9, 7, 7).gap_since(&older).unwrap().untold(7, 0), 0, "an older watcher's file does not say");
}

#[test]
fn what_hooks_saw_was_not_unwatched() {
    let before = seen(5, 7, 3);
    assert_eq!(seen(9, 7, 7).unseen_since(&before).unwrap(), 0, "pinned hooks saw all four");
    assert_eq!(seen(9, 7, 6).unseen_since(&before).unwrap(), 1, "and here three of four");
    assert_eq!(seen(9, 8, 1).unseen_since(&before).unwrap(), 3, "new hooks have seen one of four");
    assert_eq!(seen(5, 7, 4).unseen_since(&before).unwrap(), 0, "the kernel counts a moment later");
    assert!(matches!(seen(9, 6, 9).unseen_since(&before), Err(StateError::OtherHooks)));
    let rebooted = Account::new("b", 4, 1, &recorded(1));
    assert_eq!(rebooted.unseen_since(&before).unwrap(), 3);
}

#[test]
fn the_gap_is_what_the_kernel_counted_in_it() {
    let before = account("a", 5);
    assert_eq!(account("a", 5).unseen_since(&before).unwrap(), 0);
    assert_eq!(account("a", 8).unseen_since(&before).unwrap(), 3);
    assert_eq!(account("b", 2).unseen_since(&before).unwrap(), 2, "another boot counts from zero");
    let error = account("a", 4).unseen_since(&before).unwrap_err();
    assert_eq!(error.to_string(), "the state file has 5 kills in this boot, the kernel only 4");
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

#[tokio::test]
async fn a_state_that_cannot_be_kept_is_counted() {
    let telemetry = Arc::new(Telemetry::new());
    let mut state = StateFile::new(Path::new("/proc/no-such-directory"), Arc::clone(&telemetry));
    state.changed(Instant::now());
    assert!(state.due().is_some());
    state.write(account("a", 1), Instant::now());
    assert_eq!(state.due(), None);
    assert!(state.differs(2) && !state.differs(1));
    state.close(account("a", 2)).await;
    assert_eq!(telemetry.count_state_not_written(), 3, "both failures were counted");
}
