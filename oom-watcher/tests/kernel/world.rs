//! What ran out beside a plain limit: the machine, a limit that was lowered; and who asked.

use std::fs;

use crate::{
    account::{Account, Expected},
    cgroup::{self, Cgroup},
    hog::Hog,
    machine,
    scenario::Scenario,
    session::Session,
    watcher::{number, text},
};

/// More than a guest has.
const TOO_MUCH: &str = "4294967296";

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "the-machine-runs-out", possible: machine::guest, run: the_machine_runs_out },
    Scenario {
        name: "the-machine-runs-out-for-another",
        possible: machine::guest,
        run: the_machine_runs_out_for_another,
    },
    Scenario { name: "sysrq", possible: machine::guest, run: sysrq },
    Scenario { name: "the-allocating-task", possible: machine::guest, run: the_allocating_task },
    Scenario { name: "the-limit-is-lowered", possible: cgroup::v2, run: the_limit_is_lowered },
];

/// What an event says when the machine ran out.
#[track_caller]
fn assert_machine(event: &serde_json::Value) {
    assert_eq!(event["incident"]["scope"], "node", "{event:#}");
    assert!(event["incident"].get("memcg_path").is_none(), "no cgroup ran out: {event:#}");
    if machine::hook("out_of_memory") {
        assert_eq!(event["incident"]["scope_source"], "kernel");
        assert_eq!(event["incident"]["constraint"], "none");
        assert!(number(event, "/incident/limit_bytes") > 64 << 20, "the machine's size: {event:#}");
    }
}

fn the_machine_runs_out() {
    let watcher = Session::open();
    let cgroup = Cgroup::new("unlimited");
    let account = Account::open(&[&cgroup]);
    let mut hog = Hog::start(&cgroup, &["anon", TOO_MUCH, "1000"]);
    hog.go();
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    machine::event("the-machine-runs-out", &event);
    assert_machine(&event);
    assert_eq!(number(&event, "/victim/tgid"), u64::from(hog.pid()));
    assert_eq!(text(&event, "/cgroup/path"), cgroup.path());
    if machine::hook("out_of_memory") {
        assert_eq!(event["incident"]["cause"], "allocation");
    }
    account.assert(&Expected { kills: &[(&cgroup, 1)], ..Expected::default() });
}

fn the_machine_runs_out_for_another() {
    let watcher = Session::open();
    let (holding, asking) = (Cgroup::new("holding"), Cgroup::new("asking"));
    let account = Account::open(&[&holding, &asking]);
    let most = (free_bytes() / 2).to_string();
    let mut holder = Hog::start(&holding, &["anon", &most, "1000"]);
    let mut asker = Hog::start(&asking, &["anon", &most]);
    holder.go();
    holder.wait_until_full();
    // What is left is less than as much again, once the page cache is gone.
    let mut third = Hog::start(&asking, &["anon", &most]);
    asker.go();
    third.go();
    holder.must_be_killed();
    let event = watcher.event();
    assert_machine(&event);
    assert_eq!(number(&event, "/victim/tgid"), u64::from(holder.pid()));
    assert_eq!(text(&event, "/cgroup/path"), holding.path());
    let more = watcher.rest();
    assert!(more.iter().all(|event| text(event, "/cgroup/path") == asking.path()), "{more:#?}");
    account.assert(&Expected { kills: &[(&holding, 1), (&asking, more.len() as u64)], ..Expected::default() });
}

fn free_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("memory is told");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("a line MemAvailable");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn sysrq() {
    let watcher = Session::open();
    let cgroup = Cgroup::new("sysrq");
    let account = Account::open(&[&cgroup]);
    let mut hog = Hog::start(&cgroup, &["anon", "33554432", "1000"]);
    hog.go();
    hog.wait_until_full();
    fs::write("/proc/sys/kernel/sysrq", "1").expect("SysRq can be allowed");
    fs::write("/proc/sysrq-trigger", "f").expect("SysRq can be asked");
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    assert_eq!(number(&event, "/victim/tgid"), u64::from(hog.pid()));
    assert!(text(&event, "/trigger/comm").starts_with("kworker"), "{event:#}");
    if machine::hook("out_of_memory") {
        assert_machine(&event);
        assert_eq!(event["incident"]["cause"], "sysrq");
        assert!(event["incident"].get("order").is_none(), "SysRq asks for no pages: {event:#}");
    }
    account.assert(&Expected { kills: &[(&cgroup, 1)], ..Expected::default() });
}

/// A kernel thread may be the one that finds no memory; it cannot be killed, and the largest process is, as without the
/// setting. Then the scenario has not come about, and is tried again.
fn the_allocating_task() {
    fs::write("/proc/sys/vm/oom_kill_allocating_task", "1").expect("the setting is there");
    let came_about = (0..5).any(|_| the_hog_asks());
    fs::write("/proc/sys/vm/oom_kill_allocating_task", "0").expect("the setting is there");
    assert!(came_about, "each time another than the hog asked for memory");
}

/// Whether the hog itself asked, and not another.
#[track_caller]
fn the_hog_asks() -> bool {
    let watcher = Session::open();
    let cgroup = Cgroup::new("allocating");
    let account = Account::open(&[&cgroup]);
    let mut hog = Hog::start(&cgroup, &["anon", TOO_MUCH]);
    hog.go();
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    assert_eq!(number(&event, "/victim/tgid"), u64::from(hog.pid()));
    assert_machine(&event);
    account.assert(&Expected { kills: &[(&cgroup, 1)], ..Expected::default() });
    let asked = number(&event, "/trigger/tgid") == u64::from(hog.pid());
    if machine::hook("out_of_memory") {
        let said = event["incident"].get("oom_kill_allocating_task");
        assert_eq!(said.is_some_and(|said| said == true), asked, "{event:#}");
    }
    asked
}

/// Who lowers `memory.max` below the usage starts the OOM killer without asking for memory.
fn the_limit_is_lowered() {
    let watcher = Session::open();
    let cgroup = Cgroup::new("lowered");
    cgroup.limit(64 << 20);
    let account = Account::open(&[&cgroup]);
    let mut hog = Hog::start(&cgroup, &["anon", "33554432"]);
    hog.go();
    hog.wait_until_full();
    cgroup.write("memory.max", "10485760");
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    assert_eq!(number(&event, "/trigger/tgid"), u64::from(std::process::id()));
    assert_eq!(number(&event, "/victim/tgid"), u64::from(hog.pid()));
    assert_eq!(text(&event, "/incident/memcg_path"), cgroup.path());
    assert_eq!(number(&event, "/incident/limit_bytes"), 10 << 20);
    assert!(number(&event, "/incident/usage_bytes") > 10 << 20, "{event:#}");
    if machine::hook("memory_max_write") {
        assert_eq!(event["incident"]["cause"], "limit_write", "{event:#}");
    }
    // The writer asks until the usage is below the limit.
    let kills = [(&cgroup, 1)];
    account.assert(&Expected { ran_out: &[&cgroup], asked_again: true, kills: &kills, group: None });
}
