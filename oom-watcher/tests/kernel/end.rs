//! The end of the suite: what only shows when all kinds of kills have been seen.

use std::{thread, time::Duration};

use serde_json::Value;

use crate::{
    account::{Account, Expected, since_last_kill},
    cgroup::Cgroup,
    hog::Hog,
    scenario::{Scenario, anywhere},
    session::Session,
};

/// A difference counts when it is there at two audits, ten seconds apart.
const TWO_AUDITS: Duration = Duration::from_secs(21);

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario { name: "nothing-was-missed", possible: anywhere, run: nothing_was_missed }];

/// The kernel's own count and the watcher's agree over all that happened since the watcher was started, and it has nothing
/// more to say when it ends.
fn nothing_was_missed() {
    let watcher = Session::open();
    if since_last_kill().is_none() {
        kill_one();
        watcher.exactly(1);
    }
    thread::sleep(TWO_AUDITS.saturating_sub(since_last_kill().unwrap_or_default()));
    assert!(watcher.metric("oom_watcher_missed_kills_total").abs() < 0.1);
    assert!((watcher.metric("oom_watcher_kills_before_start") - watcher.kills_before() as f64).abs() < 0.1);
    let page = watcher.get("/metrics");
    let losses: Vec<&str> = page.lines().filter(|line| line.starts_with("oom_watcher_lost_events_total{")).collect();
    assert!(!losses.is_empty() && losses.iter().all(|line| line.ends_with(" 0")), "{losses:?}");
    assert_eq!(watcher.stop(), Vec::<Value>::new());
}

/// Run alone, it would have nothing to look back at.
#[track_caller]
fn kill_one() {
    let cgroup = Cgroup::new("audit");
    cgroup.limit(20 << 20);
    let account = Account::open(&[&cgroup]);
    let mut hog = Hog::start(&cgroup, &["anon", "67108864"]);
    hog.go();
    hog.must_be_killed();
    account.assert(&Expected { ran_out: &[&cgroup], kills: &[(&cgroup, 1)], ..Expected::default() });
}
