//! Least power: what the agent may do once it watches, seen from outside, and the filter of system calls tried from inside.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, ExitCode},
};

use oom_watcher::{config::Seccomp, seccomp};

use crate::{
    Scenario,
    agent::Agent,
    anywhere,
    kills::{kill, victims},
    world::{self, Disk},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    anywhere("no-power-is-kept", no_power_is_kept),
    anywhere("the-filter-can-be-off", the_filter_can_be_off),
    anywhere("forbidden-calls", forbidden_calls),
    anywhere("allowed-calls", allowed_calls),
];

/// What a watcher with a state file can do beside; a filter cannot see which file it is.
const FOR_STATE: &[&str] = &["open-for-writing", "rename"];

/// First argument of a process of this suite that installs the filter and tries a call: `errno` or `kill`, `state` or
/// `stateless`, the call.
pub(crate) const WORD: &str = "--try";

/// What a watcher must not be able to do, and a call that would do it. None of the arguments would harm if it went through.
const FORBIDDEN: &[&str] = &[
    "execve",
    "ptrace",
    "bpf",
    "mount",
    "unshare",
    "setns",
    "kill",
    "perf_event_open",
    "fork",
    "socket-packet",
    "map-executable",
    "unlink",
    "init_module",
    "io_uring_setup",
    "prctl-capability",
];

#[track_caller]
fn status(agent: &Agent) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("it runs");
    let statuses =
        tasks.map(|task| fs::read_to_string(task.expect("a thread").path().join("status")).expect("its status"));
    statuses.collect()
}

/// The value of a line of a status.
#[track_caller]
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    value.unwrap_or_else(|| panic!("no {name} in {status}"))
}

/// Every thread, with every option that makes it do more.
fn no_power_is_kept() {
    let (disk, state) = (Disk::bpf("power"), world::directory("power-state"));
    let pins = format!("--pin-dir={}", disk.path().join("pins").display());
    let mut agent = Agent::start(&[pins, format!("--state-dir={}", state.display())]);
    let killed = kill(1);
    assert_eq!(victims(&agent.exactly(1)), killed);
    let own = fs::read_to_string("/proc/self/status").expect("it can be read");
    // Two beside those that it was started with. The number is told since Linux 5.9.
    let filters = (field(&own, "Seccomp_filters").parse::<u32>().expect("a number") + 2).to_string();
    for status in status(&agent) {
        for (name, value) in [("Seccomp", "2"), ("Seccomp_filters", &filters), ("NoNewPrivs", "1")] {
            assert_eq!(field(&status, name), value, "{name} in {status}");
        }
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(&status, set), "0000000000000000", "{set} in {status}");
        }
    }
    assert_eq!(agent.metric("oom_watcher_seccomp"), Some(1.0));
    agent.stop();
}

fn the_filter_can_be_off() {
    let agent = Agent::start(&["--seccomp=off"]);
    let own = fs::read_to_string("/proc/self/status").expect("it can be read");
    for status in status(&agent) {
        for name in ["Seccomp", "Seccomp_filters"] {
            assert_eq!(field(&status, name), field(&own, name), "as it was started");
        }
    }
    assert_eq!(agent.metric("oom_watcher_seccomp"), Some(0.0));
    agent.stop();
}

#[track_caller]
fn attempt(action: &str, state: &str, call: &str) -> std::process::ExitStatus {
    Command::new("/proc/self/exe").args([WORD, action, state, call]).status().expect("the suite starts itself")
}

fn forbidden_calls() {
    for state in ["stateless", "state"] {
        for call in FORBIDDEN {
            let refused = attempt("errno", state, call);
            assert_eq!(refused.code(), Some(libc::EPERM), "{call} is refused with EPERM ({state})");
            let killed = attempt("kill", state, call);
            assert_eq!(killed.signal(), Some(libc::SIGSYS), "{call} ends the process ({state})");
        }
    }
    for call in FOR_STATE {
        assert_eq!(attempt("errno", "stateless", call).code(), Some(libc::EPERM), "{call} is refused with EPERM");
        assert_eq!(attempt("kill", "stateless", call).signal(), Some(libc::SIGSYS), "{call} ends the process");
        // It goes through, and there is nothing at the path.
        assert_eq!(attempt("kill", "state", call).code(), Some(libc::ENOENT), "{call} is for a state file");
    }
}

/// What the C library can do without is refused quietly even where unexpected calls kill, and threads can be started.
fn allowed_calls() {
    for (call, code) in [("socket-netlink", libc::ENOSYS), ("clone3", libc::ENOSYS), ("thread", 0), ("read", 0)] {
        assert_eq!(attempt("kill", "stateless", call).code(), Some(code), "{call}");
    }
}

/// The process that tries: its exit code is the error number.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let action = if arguments[0] == "kill" { Seccomp::Kill } else { Seccomp::Errno };
    seccomp::install(action, arguments[1] == "state").expect("the filter is installed");
    let failed = match arguments[2].as_str() {
        "thread" => std::thread::Builder::new().spawn(|| {}).map_or(true, |thread| thread.join().is_err()),
        "read" => !Path::new("/proc/self/status").exists() || fs::read("/proc/vmstat").is_err(),
        call => return try_call(call),
    };
    ExitCode::from(u8::from(failed))
}

fn try_call(call: &str) -> ExitCode {
    let (number, [first, second, third, fourth, fifth]) = system_call(call);
    // SAFETY: no call is given anything to write to: every pointer is null or to a string that lives for ever.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth, 0) };
    let code = if result == -1 { std::io::Error::last_os_error().raw_os_error().unwrap_or(255) } else { 254 };
    ExitCode::from(code as u8)
}

/// A call by its number, with the arguments that it would be made with.
fn system_call(call: &str) -> (libc::c_long, [usize; 5]) {
    let path = c"/nonexistent".as_ptr() as usize;
    let here = libc::AT_FDCWD as usize;
    let (none, nothing) = (usize::MAX, [0; 5]);
    let socket = |family: i32| (libc::SYS_socket, [family as usize, libc::SOCK_RAW as usize, 0, 0, 0]);
    match call {
        "execve" => (libc::SYS_execve, [path, 0, 0, 0, 0]),
        "ptrace" => (libc::SYS_ptrace, [libc::PTRACE_TRACEME as usize, 0, 0, 0, 0]),
        "bpf" => (libc::SYS_bpf, nothing),
        "mount" => (libc::SYS_mount, [path, path, 0, 0, 0]),
        "unshare" => (libc::SYS_unshare, nothing),
        "setns" => (libc::SYS_setns, [none, 0, 0, 0, 0]),
        "kill" => (libc::SYS_kill, [std::process::id() as usize, 0, 0, 0, 0]),
        "perf_event_open" => (libc::SYS_perf_event_open, [0, 0, none, none, 0]),
        "fork" => (libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0]),
        "clone3" => (libc::SYS_clone3, nothing),
        "socket-packet" => socket(libc::AF_PACKET),
        "socket-netlink" => socket(libc::AF_NETLINK),
        "open-for-writing" => (libc::SYS_openat, [here, path, libc::O_WRONLY as usize, 0, 0]),
        "map-executable" => {
            let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            (libc::SYS_mmap, [0, 4096, protection as usize, flags as usize, none])
        }
        "rename" => (libc::SYS_renameat, [here, path, here, path, 0]),
        "unlink" => (libc::SYS_unlinkat, [here, path, 0, 0, 0]),
        "init_module" => (libc::SYS_init_module, [0, 0, path, 0, 0]),
        "io_uring_setup" => (libc::SYS_io_uring_setup, nothing),
        "prctl-capability" => (libc::SYS_prctl, [libc::PR_CAP_AMBIENT as usize, 0, 0, 0, 0]),
        other => panic!("no such call: {other}"),
    }
}
