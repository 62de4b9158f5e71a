//! The commands, and bad input, as a user meets them.

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    account::{Account, Expected},
    cgroup::{self, Cgroup},
    hog::Hog,
    machine,
    scenario::{Scenario, anywhere},
    session::Session,
    watcher::{Watcher, number},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "nobody-reads", possible: anywhere, run: nobody_reads },
    Scenario { name: "output-is-full", possible: anywhere, run: output_is_full },
    Scenario { name: "two-watchers", possible: anywhere, run: two_watchers },
    Scenario { name: "no-privilege-is-kept", possible: anywhere, run: no_privilege_is_kept },
    Scenario { name: "drill", possible: anywhere, run: drill },
    Scenario { name: "interrupted-drill", possible: anywhere, run: interrupted_drill },
    Scenario { name: "without-capabilities", possible: anywhere, run: without_capabilities },
    Scenario { name: "port-taken", possible: anywhere, run: port_taken },
];

/// How paths of drills begin, where the suite is at the root.
const DRILL: &str = "/oom-watcher-drill";
/// How long a command of the agent may take in an emulated guest.
const DEADLINE: Duration = Duration::from_mins(2);

fn agent(arguments: &[&str]) -> Command {
    let mut command = Command::new(machine::agent());
    command.args(arguments).stdin(Stdio::null());
    command
}

#[track_caller]
fn run(command: &mut Command) -> (bool, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the agent runs");
    (status.success(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

/// Cgroups that drills have left.
fn drill_cgroups() -> Vec<String> {
    let entries = fs::read_dir(cgroup::hierarchy().mount).expect("the hierarchy is there");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("oom-watcher-drill")).collect()
}

/// Its kill is a kill like any other: counted by the kernel, and reported by the watcher that runs.
fn drill() {
    let watcher = Session::with(DRILL);
    let (success, stdout, stderr) = run(&mut agent(&["drill", "--timeout", "60"]));
    assert!(success, "{stdout}{stderr}");
    assert!(stdout.starts_with("The kernel killed ") && stdout.contains(" ms later"), "{stdout}");
    assert_eq!(drill_cgroups(), Vec::<String>::new());
    let event = watcher.exactly(1).remove(0);
    assert_eq!(event["incident"]["scope"], "cgroup", "{event:#}");
}

/// Interrupted at some point of its short life: it ends, and nothing is left.
fn interrupted_drill() {
    let watcher = Session::with(DRILL);
    for delay_ms in [5, 40, 120] {
        let mut child = agent(&["drill", "--timeout", "60"]).stderr(Stdio::null()).spawn().expect("the agent runs");
        thread::sleep(Duration::from_millis(delay_ms));
        kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
        child.wait().expect("it ends");
        assert_eq!(drill_cgroups(), Vec::<String>::new(), "after {delay_ms} ms");
    }
    assert!(watcher.rest().len() <= 3, "one kill for each at most");
}

/// As a user without rights: the error names what is missing and the remedy.
fn without_capabilities() {
    for arguments in [&["--metrics-port", "0"][..], &["check"]] {
        let (success, stdout, stderr) = run(agent(arguments).uid(65534).gid(65534));
        assert!(!success);
        let said = format!("{stdout}{stderr}");
        assert!(said.contains("CAP_BPF") && said.contains("CAP_PERFMON") && said.contains("run as root"), "{said}");
    }
}

fn port_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (success, _, stderr) = run(&mut agent(&["--metrics-address", "127.0.0.1", "--metrics-port", &port]));
    assert!(!success);
    assert!(stderr.contains(&port) && stderr.contains("METRICS_PORT"), "{stderr}");
}

/// `oom-watcher | head -0`: it ends quietly at the next kill.
fn nobody_reads() {
    let watcher = Session::open();
    let mut child = start_with(Stdio::piped());
    drop(child.stdout.take());
    kill_one();
    let status = wait(&mut child);
    assert!(status, "a closed pipe is a quiet end");
    watcher.exactly(1);
}

/// Standard output cannot be written: an error that names it, and it goes on watching.
fn output_is_full() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full is there");
    let watcher = Session::open();
    let mut child = start_with(full.into());
    kill_one();
    let mut stderr = child.stderr.take().expect("it is piped");
    thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().expect("it can be asked").is_none(), "it goes on");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    assert!(wait(&mut child));
    let mut log = String::new();
    stderr.read_to_string(&mut log).expect("a log");
    assert!(log.contains("standard output") && log.contains("No space left on device"), "{log}");
    watcher.exactly(1);
}

/// Starts a watcher with this output and waits until it watches.
#[track_caller]
fn start_with(stdout: Stdio) -> Child {
    let mut child = agent(&["--metrics-address", "127.0.0.1", "--metrics-port", "0"])
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent runs");
    let stderr = child.stderr.as_mut().expect("it is piped");
    let mut log = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&log).contains("Watching for OOM kills") {
        assert_eq!(stderr.read(&mut byte).expect("a log"), 1, "{}", String::from_utf8_lossy(&log));
        log.push(byte[0]);
    }
    child
}

/// Waits for the end of a command: whether it was a success.
#[track_caller]
fn wait(child: &mut Child) -> bool {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("it can be asked") {
            return status.success();
        }
        assert!(Instant::now() < deadline, "it does not end");
        thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn kill_one() -> Hog {
    let cgroup = Cgroup::new("one");
    cgroup.limit(20 << 20);
    let account = Account::open(&[&cgroup]);
    let mut hog = Hog::start(&cgroup, &["anon", "67108864"]);
    hog.go();
    hog.must_be_killed();
    account.assert(&Expected { ran_out: &[&cgroup], kills: &[(&cgroup, 1)], ..Expected::default() });
    hog
}

/// Two by mistake, or during an update: each reports every kill, once. The second knows what was before it.
fn two_watchers() {
    let first = Session::open();
    let before = machine::vmstat_kills();
    let second = Watcher::start();
    let hog = kill_one();
    for event in [first.exactly(1).remove(0), second.exactly(1).remove(0)] {
        assert_eq!(number(&event, "/victim/tgid"), u64::from(hog.pid()));
    }
    assert!((second.metric("oom_watcher_kills_before_start") - before as f64).abs() < 0.1);
}

/// The scheduler's slice of a thread, where the kernel lets a thread choose it (Linux 6.12) and tells it (`CONFIG_SCHED_DEBUG`).
fn slice_ns(task: &Path) -> Option<u64> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    if (parts.next()?, parts.next()?) < (6, 12) {
        return None;
    }
    let text = fs::read_to_string(task.join("sched")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("se.slice"))?;
    line.trim_start_matches([' ', ':']).parse().ok()
}

/// Once it watches, no thread of it has a capability, and none can gain one; each has the short slice that takes none; and still
/// it sees kills.
fn no_privilege_is_kept() {
    let watcher = Session::open();
    let tasks = fs::read_dir(format!("/proc/{}/task", watcher.pid())).expect("it runs");
    for task in tasks.map(|task| task.expect("a thread").path()) {
        let status = fs::read_to_string(task.join("status")).expect("its status");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t0000000000000000")), "{set} of {}: {status}", task.display());
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        let slice = slice_ns(&task);
        assert!(slice.is_none_or(|slice| slice == 100_000), "{slice:?} of {}", task.display());
    }
    kill_one();
    watcher.exactly(1);
    assert!(watcher.grown("oom_watcher_marks_total") >= 1.0, "the counters can be read without capabilities");
}
