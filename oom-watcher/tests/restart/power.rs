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

/// First argument of a process of this suite that installs the filter and tries a call.
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
    "open-for-writing",
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

/// Every thread, with every option that makes it do more.
fn no_power_is_kept() {
    let (disk, state) = (Disk::bpf("power"), world::directory("power-state"));
    let pins = format!("--pin-dir={}", disk.path().join("pins").display());
    let mut agent = Agent::start(&[pins, format!("--state-dir={}", state.display())]);
    let killed = kill(1);
    assert_eq!(victims(&agent.exactly(1)), killed);
    for status in status(&agent) {
        for line in ["Seccomp:\t2", "Seccomp_filters:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
            // The number of filters is told since Linux 5.9.
            assert!(status.contains(line), "{line} is not in {status}");
        }
    }
    assert_eq!(agent.metric("oom_watcher_seccomp"), Some(1.0));
    agent.stop();
}

fn the_filter_can_be_off() {
    let agent = Agent::start(&["--seccomp=off"]);
    assert!(status(&agent).iter().all(|status| status.contains("Seccomp:\t0")));
    assert_eq!(agent.metric("oom_watcher_seccomp"), Some(0.0));
    agent.stop();
}

#[track_caller]
fn attempt(action: &str, call: &str) -> std::process::ExitStatus {
    Command::new("/proc/self/exe").args([WORD, action, call]).status().expect("the suite starts itself")
}

fn forbidden_calls() {
    for call in FORBIDDEN {
        let refused = attempt("errno", call);
        assert_eq!(refused.code(), Some(libc::EPERM), "{call} is refused with EPERM");
        let killed = attempt("kill", call);
        assert_eq!(killed.signal(), Some(libc::SIGSYS), "{call} ends the process");
    }
}

/// What the C library can do without is refused quietly even where unexpected calls kill, and threads can be started.
fn allowed_calls() {
    for (call, code) in [("socket-netlink", libc::ENOSYS), ("clone3", libc::ENOSYS), ("thread", 0), ("read", 0)] {
        assert_eq!(attempt("kill", call).code(), Some(code), "{call}");
    }
}

/// The process that tries: its exit code is the error number.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let action = if arguments[0] == "kill" { Seccomp::Kill } else { Seccomp::Errno };
    seccomp::install(action, false).expect("the filter is installed");
    let failed = match arguments[1].as_str() {
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
        "unlink" => (libc::SYS_unlinkat, [here, path, 0, 0, 0]),
        "init_module" => (libc::SYS_init_module, [0, 0, path, 0, 0]),
        "io_uring_setup" => (libc::SYS_io_uring_setup, nothing),
        "prctl-capability" => (libc::SYS_prctl, [libc::PR_CAP_AMBIENT as usize, 0, 0, 0, 0]),
        other => panic!("no such call: {other}"),
    }
}
