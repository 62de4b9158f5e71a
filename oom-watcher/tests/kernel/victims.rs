//! Who was killed, in which cgroup, with what figures; and who belongs together.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::{
    account::{Account, Expected},
    cgroup::{self, Cgroup},
    hog::Hog,
    machine,
    scenario::{Scenario, anywhere},
    session::Session,
    watcher::{number, text},
};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 20 * MIB;
/// More than the limit allows.
const TOO_MUCH: &str = "67108864";

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "leaf-limit", possible: anywhere, run: leaf_limit },
    Scenario { name: "ancestor-limit", possible: anywhere, run: ancestor_limit },
    Scenario { name: "deep-and-long-path", possible: anywhere, run: deep_and_long_path },
    Scenario { name: "ten-at-once", possible: anywhere, run: ten_at_once },
    Scenario { name: "victim-is-not-the-trigger", possible: anywhere, run: victim_is_not_the_trigger },
    Scenario { name: "a-thread-allocates", possible: anywhere, run: a_thread_allocates },
    Scenario { name: "the-leader-has-exited", possible: anywhere, run: the_leader_has_exited },
    Scenario { name: "memory-is-shared", possible: anywhere, run: memory_is_shared },
    Scenario { name: "group-kill", possible: cgroup::v2, run: group_kill },
    Scenario { name: "large-group-kill", possible: cgroup::v2, run: large_group_kill },
    Scenario { name: "group-above-the-domain", possible: cgroup::v2, run: group_above_the_domain },
];

/// What every event of a kill in a limited cgroup of the suite says.
#[track_caller]
pub(crate) fn assert_limited(event: &Value, owner: &Cgroup, victim: &Cgroup, limit: u64) {
    assert_eq!(event["schema_version"], 1);
    assert_eq!(event["node"], "test-node");
    assert_eq!(text(event, "/cgroup/path"), victim.path());
    assert_eq!(event["attribution"]["result"], "host");
    assert_eq!(event["incident"]["scope"], "cgroup", "{event:#}");
    let source = if machine::hook("out_of_memory") { "kernel" } else { "deduced" };
    assert_eq!(event["incident"]["scope_source"], source);
    assert_eq!(text(event, "/incident/memcg_path"), owner.path());
    assert_eq!(number(event, "/incident/memcg_id"), owner.id());
    assert_eq!(number(event, "/incident/limit_bytes"), limit, "the limit is exact");
    let usage = number(event, "/incident/usage_bytes");
    assert!(usage <= limit && limit - usage < MIB, "usage {usage} of {limit}");
    if machine::hook("out_of_memory") {
        assert_eq!(event["incident"]["constraint"], "memcg");
        assert!(text(event, "/incident/gfp_flags").starts_with("0x"));
        assert_eq!(event["incident"]["order"], 0);
        assert!(event["incident"]["duration_seconds"].as_f64().expect("a duration") < 10.0);
    }
}

fn leaf_limit() {
    let watcher = Session::open();
    let outer = Cgroup::new("outer");
    let leaf = outer.child("leaf");
    leaf.limit(LIMIT);
    let account = Account::open(&[&outer, &leaf]);
    let mut hog = Hog::start(&leaf, &["anon", TOO_MUCH, "321"]);
    let before = SystemTime::now();
    hog.go();
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    machine::event("leaf-limit", &event);
    assert_limited(&event, &leaf, &leaf, LIMIT);
    assert_victim(&event, &hog, before);
    assert_levels(&event, &outer, &leaf);
    assert_eq!(event["incident"]["victims"], 1);
    assert!(event["incident"].get("complete").is_none(), "the incident was complete: {event:#}");
    if machine::hook("out_of_memory") && machine::hook("memory_max_write") {
        assert_eq!(event["incident"]["cause"], "allocation");
    }
    assert_kernel_log(&event);
    assert_breakdown(&event);
    account.assert(&Expected { ran_out: &[&leaf], kills: &[(&leaf, 1)], ..Expected::default() });
    assert_metrics(&watcher);
}

#[track_caller]
fn assert_victim(event: &Value, hog: &Hog, before: SystemTime) {
    let pid = u64::from(hog.pid());
    assert_eq!(number(event, "/victim/pid"), pid);
    assert_eq!(number(event, "/victim/tgid"), pid);
    assert_eq!(number(event, "/victim/namespace_pid"), pid);
    assert_eq!(number(event, "/victim/uid"), 0);
    assert_eq!(number(event, "/victim/oom_score_adj"), 321);
    assert!(text(event, "/victim/comm").starts_with("kernel-") || event["victim"]["comm"] == "exe", "{event:#}");
    assert_eq!(number(event, "/trigger/tgid"), pid);
    assert_eq!(text(event, "/trigger/cgroup_path"), text(event, "/cgroup/path"));
    assert!(event["victim"].get("confirmed").is_none(), "it was told from a mark: {event:#}");
    let anon = number(event, "/victim/anon_rss_bytes");
    let error = event["victim"].get("rss_error_bytes").and_then(Value::as_u64).unwrap_or(0);
    // The rest of the limit is page tables, kernel memory and what the program touched before it was admitted.
    assert!(
        anon <= LIMIT + 2 * MIB + error && anon + 3 * MIB + error >= LIMIT,
        "anonymous memory {anon}, error {error}"
    );
    assert!(number(event, "/victim/total_vm_bytes") >= 64 * MIB);
    assert!(number(event, "/victim/page_tables_bytes") >= 4096);
    assert_eq!(number(event, "/victim/swap_bytes"), 0);
    let time = seconds(text(event, "/time"));
    let (earliest, latest) = (since_epoch(before), since_epoch(SystemTime::now()));
    assert!(time >= earliest - 1.0 && time <= latest + 1.0, "time {time} is not in {earliest}..{latest}");
    let age = time - seconds(text(event, "/victim/started_at"));
    assert!((0.0..60.0).contains(&age), "the victim was {age} s old");
}

fn since_epoch(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

fn seconds(time: &str) -> f64 {
    time.parse::<jiff::Timestamp>().expect("a time").as_duration().as_secs_f64()
}

#[track_caller]
fn assert_levels(event: &Value, outer: &Cgroup, leaf: &Cgroup) {
    let levels = event["cgroup"]["levels"].as_array().expect("levels");
    assert_eq!(levels.len(), 3, "{event:#}");
    assert_eq!(levels[0]["name"], "");
    assert_eq!(levels[1]["id"], outer.id());
    assert_eq!(levels[2]["id"], leaf.id());
    assert_eq!(levels[2]["name"], "leaf");
    assert!(levels[1].get("limit_bytes").is_none(), "no limit is absent: {event:#}");
    assert_eq!(levels[2]["limit_bytes"], LIMIT);
    assert!(number(event, "/cgroup/levels/1/usage_bytes") >= number(event, "/cgroup/levels/2/usage_bytes"));
}

/// The kernel's own line about the victim, in the kernel log, has the same figures.
#[track_caller]
fn assert_kernel_log(event: &Value) {
    let pid = number(event, "/victim/pid");
    let line = machine::kernel_log()
        .lines()
        .rev()
        .find(|line| line.contains(&format!("Killed process {pid} (")))
        .unwrap_or_else(|| panic!("the kernel log does not know process {pid}"))
        .to_owned();
    let kib = |name: &str| -> u64 {
        let value = line.split(&format!("{name}:")).nth(1).and_then(|rest| rest.split("kB").next());
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line}"))
    };
    // Where the kernel keeps a part of the counters on each CPU, its line may lack that part (6.2 to 7.1), or have it.
    let slack = 64 * 4 * machine::cpus() * 1024;
    for (name, pointer) in [
        ("anon-rss", "/victim/anon_rss_bytes"),
        ("file-rss", "/victim/file_rss_bytes"),
        ("shmem-rss", "/victim/shmem_rss_bytes"),
    ] {
        let (ours, kernels) = (number(event, pointer), kib(name) * 1024);
        assert!(ours.abs_diff(kernels) <= slack, "{pointer} {ours}, the kernel says {kernels}");
    }
    assert_eq!(number(event, "/victim/total_vm_bytes"), kib("total-vm") * 1024);
    assert_eq!(number(event, "/victim/page_tables_bytes"), kib("pgtables") * 1024);
}

/// What filled the memory, where this kernel allows a route to it.
#[track_caller]
fn assert_breakdown(event: &Value) {
    let Some(memory) = event.get("memory") else {
        let missing = machine::check()["missing"].as_array().expect("check lists what is missing");
        assert!(missing.iter().any(|missing| missing["costs"] == "memory"), "the breakdown is absent without a reason");
        return;
    };
    let anon = memory["anon_bytes"].as_u64().expect("anonymous memory");
    assert!(anon <= LIMIT && anon + 3 * MIB >= LIMIT, "anonymous memory of the cgroup {anon}");
    assert!(memory["shmem_bytes"].as_u64().expect("shared memory") < MIB);
    let kernel = memory["kernel_stack_bytes"].as_u64().expect("kernel stacks");
    // Its own stack was charged where it was started.
    assert!(kernel < MIB, "kernel stacks {kernel}");
}

#[track_caller]
fn assert_metrics(watcher: &Session) {
    let labels = r#"{node="test-node",namespace="",pod="",container=""}"#;
    assert!((watcher.grown("oom_watcher_marks_total") - 1.0).abs() < 0.1);
    assert!((watcher.grown(&format!("oom_kills_total{labels}")) - 1.0).abs() < 0.1);
    assert!((watcher.grown(r#"oom_kills_per_node_total{node="test-node"}"#) - 1.0).abs() < 0.1);
    let incidents = r#"oom_incidents_total{node="test-node",namespace="",pod="",container="",scope="cgroup"}"#;
    assert!((watcher.grown(incidents) - 1.0).abs() < 0.1);
    let last = watcher.metric(&format!("oom_last_timestamp{labels}"));
    assert!((since_epoch(SystemTime::now()) - last).abs() < 120.0);
    assert!((watcher.metric(r#"oom_watcher_lost_events_total{stage="ring_buffer"}"#)).abs() < 0.1);
    assert!(watcher.get("/readyz").starts_with("HTTP/1.1 200"));
    assert!(watcher.get("/livez").starts_with("HTTP/1.1 200"));
}

fn ancestor_limit() {
    let watcher = Session::open();
    let owner = Cgroup::new("owner");
    let middle = owner.child("middle");
    let leaf = middle.child("leaf");
    owner.limit(LIMIT);
    let account = Account::open(&[&owner, &middle, &leaf]);
    let mut hog = Hog::start(&leaf, &["anon", TOO_MUCH]);
    hog.go();
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    assert_limited(&event, &owner, &leaf, LIMIT);
    account.assert(&Expected { ran_out: &[&owner], kills: &[(&leaf, 1)], ..Expected::default() });
}

/// Sixteen levels of names of 120 bytes, and none of it is cut.
fn deep_and_long_path() {
    let watcher = Session::open();
    let mut levels = vec![Cgroup::new("deep")];
    for depth in 0..15 {
        let name = format!("{depth:02}-{}", "n".repeat(117));
        let next = levels[depth].child(&name);
        levels.push(next);
    }
    let leaf = &levels[15];
    leaf.limit(LIMIT);
    let account = Account::open(&[&levels[0], &levels[14], leaf]);
    let mut hog = Hog::start(leaf, &["anon", TOO_MUCH]);
    hog.go();
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    assert_limited(&event, leaf, leaf, LIMIT);
    assert_eq!(event["cgroup"]["levels"].as_array().expect("levels").len(), 17);
    account.assert(&Expected { ran_out: &[leaf], kills: &[(leaf, 1)], ..Expected::default() });
    drop(hog);
    while levels.pop().is_some() {}
}

fn ten_at_once() {
    let watcher = Session::open();
    let cgroups: Vec<Cgroup> = (0..10).map(|number| Cgroup::new(&format!("n{number}"))).collect();
    let mut hogs: Vec<Hog> = cgroups
        .iter()
        .map(|cgroup| {
            cgroup.limit(LIMIT);
            Hog::start(cgroup, &["anon", TOO_MUCH])
        })
        .collect();
    let all: Vec<&Cgroup> = cgroups.iter().collect();
    let account = Account::open(&all);
    hogs.iter_mut().for_each(Hog::go);
    hogs.iter_mut().for_each(Hog::must_be_killed);
    let events = watcher.exactly(10);
    let mut incidents = Vec::new();
    for (cgroup, hog) in cgroups.iter().zip(&hogs) {
        let event = events.iter().find(|event| event["cgroup"]["path"] == cgroup.path()).expect("each has its event");
        assert_limited(event, cgroup, cgroup, LIMIT);
        assert_eq!(number(event, "/victim/tgid"), u64::from(hog.pid()));
        assert_eq!(event["incident"]["victims"], 1);
        incidents.push(text(event, "/incident/id"));
    }
    incidents.sort_unstable();
    incidents.dedup();
    assert_eq!(incidents.len(), 10, "each is an incident of its own");
    let kills: Vec<(&Cgroup, u64)> = cgroups.iter().map(|cgroup| (cgroup, 1)).collect();
    // Who finds the killer busy with another's limit asks again.
    account.assert(&Expected { ran_out: &all, asked_again: true, kills: &kills, group: None });
}

/// One holds the memory and offers itself; another asks for more.
fn victim_is_not_the_trigger() {
    let watcher = Session::open();
    let outer = Cgroup::new("outer");
    outer.limit(LIMIT);
    let (holding, asking) = (outer.child("holding"), outer.child("asking"));
    let account = Account::open(&[&outer, &holding, &asking]);
    let mut holder = Hog::start(&holding, &["anon", "12582912", "1000"]);
    let mut asker = Hog::start(&asking, &["anon", "12582912"]);
    holder.go();
    holder.wait_until_full();
    asker.go();
    holder.must_be_killed();
    let event = watcher.event();
    assert_limited(&event, &outer, &holding, LIMIT);
    assert_eq!(number(&event, "/victim/tgid"), u64::from(holder.pid()));
    assert_eq!(number(&event, "/trigger/tgid"), u64::from(asker.pid()));
    assert_eq!(text(&event, "/trigger/cgroup_path"), asking.path());
    // Some kernels kill the asker too, before the holder's memory has come back.
    let more = watcher.rest();
    assert!(more.len() <= 1 && more.iter().all(|event| text(event, "/cgroup/path") == asking.path()), "{more:#?}");
    let kills = [(&holding, 1), (&asking, more.len() as u64)];
    account.assert(&Expected { ran_out: &[&outer], asked_again: true, kills: &kills, group: None });
}

fn a_thread_allocates() {
    let watcher = Session::open();
    let cgroup = Cgroup::new("threads");
    cgroup.limit(LIMIT);
    let account = Account::open(&[&cgroup]);
    let mut hog = Hog::start(&cgroup, &["thread", TOO_MUCH]);
    hog.go();
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    assert_limited(&event, &cgroup, &cgroup, LIMIT);
    assert_eq!(text(&event, "/victim/comm"), "the-leader");
    assert_eq!(text(&event, "/trigger/comm"), "the-thread");
    assert_eq!(number(&event, "/victim/tgid"), u64::from(hog.pid()));
    assert_eq!(number(&event, "/trigger/tgid"), u64::from(hog.pid()));
    assert_ne!(number(&event, "/trigger/pid"), u64::from(hog.pid()));
    account.assert(&Expected { ran_out: &[&cgroup], kills: &[(&cgroup, 1)], ..Expected::default() });
}

/// The kernel marks a thread that is not the leader; the process is still the leader's.
fn the_leader_has_exited() {
    let watcher = Session::open();
    let cgroup = Cgroup::new("leaderless");
    cgroup.limit(LIMIT);
    let account = Account::open(&[&cgroup]);
    let mut hog = Hog::start(&cgroup, &["leader-exits", TOO_MUCH]);
    hog.go();
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    assert_limited(&event, &cgroup, &cgroup, LIMIT);
    assert_eq!(number(&event, "/victim/tgid"), u64::from(hog.pid()));
    assert_ne!(number(&event, "/victim/pid"), u64::from(hog.pid()));
    assert_eq!(text(&event, "/victim/comm"), "dead-leader");
    assert_eq!(text(&event, "/trigger/comm"), "the-survivor");
    account.assert(&Expected { ran_out: &[&cgroup], kills: &[(&cgroup, 1)], ..Expected::default() });
}

/// A process that shares the victim's memory dies with it; the kernel neither marks nor counts it.
fn memory_is_shared() {
    let watcher = Session::open();
    let cgroup = Cgroup::new("shared");
    cgroup.limit(LIMIT);
    let account = Account::open(&[&cgroup]);
    let mut hog = Hog::start(&cgroup, &["shared-mm", TOO_MUCH]);
    hog.go();
    let sharer: u64 = hog.expect_line("sharer").parse().expect("a pid");
    hog.must_be_killed();
    let events = watcher.exactly(2);
    let pids: Vec<u64> = events.iter().map(|event| number(event, "/victim/tgid")).collect();
    assert!(pids.contains(&sharer) && pids.contains(&u64::from(hog.pid())), "{pids:?}");
    let sharers: Vec<&Value> = events.iter().filter(|event| event["victim"]["shared_mm"] == true).collect();
    assert_eq!(sharers.len(), 1, "{events:#?}");
    assert_eq!(events[0]["incident"]["id"], events[1]["incident"]["id"]);
    assert!(events.iter().all(|event| event["incident"]["victims"] == 2), "{events:#?}");
    // The kernel counts one of them.
    account.assert(&Expected { ran_out: &[&cgroup], kills: &[(&cgroup, 1)], ..Expected::default() });
}

fn group_kill() {
    group_of(5);
}

fn large_group_kill() {
    group_of(300);
}

/// `memory.oom.group`: the one that asked and all members die together, in one incident.
#[track_caller]
fn group_of(members: u64) {
    let watcher = Session::open();
    let cgroup = Cgroup::new("group");
    let limit = LIMIT + members * MIB;
    cgroup.limit(limit);
    cgroup.write("memory.oom.group", "1");
    let account = Account::open(&[&cgroup]);
    let too_much = (limit + 64 * MIB).to_string();
    let mut hog = Hog::start(&cgroup, &["group", &too_much, &members.to_string()]);
    hog.go();
    hog.must_be_killed();
    let victims = members as usize + 1;
    let events = watcher.exactly(victims);
    let id = text(&events[0], "/incident/id");
    let mut pids = Vec::new();
    for event in &events {
        // Figures of the memory are those of the decision, for every victim.
        assert_limited(event, &cgroup, &cgroup, limit);
        assert_eq!(text(event, "/incident/id"), id);
        assert_eq!(number(event, "/trigger/tgid"), u64::from(hog.pid()));
        if machine::hook("out_of_memory") {
            assert_eq!(event["incident"]["group_kill"], true);
        }
        if event["incident"].get("complete").is_none() {
            assert_eq!(number(event, "/incident/victims"), victims as u64);
        }
        pids.push(number(event, "/victim/tgid"));
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), victims, "each process once");
    if members < 100 {
        assert!(events.iter().all(|event| event["incident"].get("complete").is_none()), "{events:#?}");
    }
    // The one that was chosen is counted a second time when its turn as a member comes.
    let kills = [(&cgroup, victims as u64 + 1)];
    // Members that were just starting may have asked too.
    account.assert(&Expected { ran_out: &[&cgroup], asked_again: true, kills: &kills, group: Some(&cgroup) });
    let incidents = r#"oom_incidents_total{node="test-node",namespace="",pod="",container="",scope="cgroup"}"#;
    assert!((watcher.grown(incidents) - 1.0).abs() < 0.1, "one incident");
    assert!((watcher.grown(r#"oom_kills_per_node_total{node="test-node"}"#) - victims as f64).abs() < 0.1);
}

/// The switch above the cgroup that ran out does not count.
fn group_above_the_domain() {
    let watcher = Session::open();
    let above = Cgroup::new("above");
    above.write("memory.oom.group", "1");
    let limited = above.child("limited");
    limited.limit(LIMIT);
    let beside = above.child("beside");
    let bystander = Hog::start(&beside, &["anon", "4096"]);
    let account = Account::open(&[&above, &limited, &beside]);
    let mut hog = Hog::start(&limited, &["anon", TOO_MUCH]);
    hog.go();
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    assert_limited(&event, &limited, &limited, LIMIT);
    assert_eq!(event["incident"]["victims"], 1);
    if machine::hook("out_of_memory") {
        assert_eq!(event["incident"]["group_kill"], false);
    }
    account.assert(&Expected { ran_out: &[&limited], kills: &[(&limited, 1)], ..Expected::default() });
    drop(bystander);
}
