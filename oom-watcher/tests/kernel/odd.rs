//! What looks like a kill and is none, and what fills memory without being anybody's.

use std::{thread, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    account::{Account, Expected},
    cgroup::Cgroup,
    hog::Hog,
    machine,
    scenario::{Scenario, anywhere},
    session::Session,
    watcher::{number, text},
};

const MIB: u64 = 1 << 20;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "a-file-in-memory", possible: anywhere, run: a_file_in_memory },
    Scenario { name: "already-exiting", possible: anywhere, run: already_exiting },
    Scenario { name: "nobody-can-be-killed", possible: protection, run: nobody_can_be_killed },
];

/// Whether processes can be protected from the killer here.
fn protection() -> Result<(), String> {
    let capabilities = machine::check()["capabilities"].as_array().expect("check lists capabilities");
    if capabilities.iter().any(|name| name == "CAP_SYS_RESOURCE") {
        Ok(())
    } else {
        Err("a process cannot be protected without CAP_SYS_RESOURCE".to_owned())
    }
}

/// Shared memory that no process maps: the victim itself is small.
fn a_file_in_memory() {
    let watcher = Session::open();
    let cgroup = Cgroup::new("shmem");
    cgroup.limit(20 * MIB);
    let account = Account::open(&[&cgroup]);
    let mut hog = Hog::start(&cgroup, &["shmem", "67108864"]);
    hog.go();
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    machine::event("a-file-in-memory", &event);
    assert_eq!(text(&event, "/incident/memcg_path"), cgroup.path());
    assert!(number(&event, "/victim/anon_rss_bytes") < 4 * MIB, "{event:#}");
    account.assert(&Expected { ran_out: &[&cgroup], kills: &[(&cgroup, 1)], ..Expected::default() });
    if let Some(memory) = event.get("memory") {
        let shmem = memory["shmem_bytes"].as_u64().expect("shared memory");
        assert!(shmem + 3 * MIB >= 20 * MIB && shmem <= 20 * MIB, "shared memory {shmem}");
        assert!(memory["file_bytes"].as_u64().expect("page cache") >= shmem, "page cache has shared memory in it");
    }
}

/// Rounds in which the kernel may kill the process that asks after all, before that is a failure.
const ROUNDS: usize = 4;

/// The largest process is past its exit and only held by a tracer: it is marked, for its memory will come back, and nobody
/// is killed.
///
/// The kernel itself may lose a race here. The reaper takes the marked process's memory without the killer's lock, so it can be done
/// after the killer has found the cgroup still full and before it looks for a victim, finds the marked one drained, and takes the next:
/// the process that asks (`mem_cgroup_out_of_memory`, `oom_evaluate_task`). That kill is one, and is reported as one; it is excused
/// only where the kernel's log has the reaper first.
fn already_exiting() {
    for round in 1..=ROUNDS {
        match ask_beside_one_that_leaves() {
            Asked::Went => return,
            Asked::Killed => eprintln!("round {round}: the kernel took the process that asked"),
        }
    }
    panic!("the process that asks was killed {ROUNDS} times");
}

/// What became of the process that asks.
enum Asked {
    Went,
    Killed,
}

fn ask_beside_one_that_leaves() -> Asked {
    let watcher = Session::open();
    let cgroup = Cgroup::new("exiting");
    cgroup.limit(20 * MIB);
    let account = Account::open(&[&cgroup]);
    let mut leaving = Hog::start(&cgroup, &["exits", "12582912"]);
    leaving.go();
    leaving.wait_until_full();
    let held = Held::at_exit(leaving.pid());
    leaving.go();
    wait_for_exit_stop(leaving.pid());
    let mut asking = Hog::start(&cgroup, &["anon", "12582912"]);
    asking.go();
    let is_full = asking.is_full();
    let kills = if is_full {
        watcher.silent();
        0
    } else {
        asking.must_be_killed();
        let event = watcher.exactly(1).remove(0);
        assert_eq!(number(&event, "/victim/pid"), u64::from(asking.pid()), "{event:#}");
        assert_reaped_before(leaving.pid(), asking.pid());
        1
    };
    account.assert(&Expected {
        ran_out: &[&cgroup],
        asked_again: true,
        kills: &[(&cgroup, kills)],
        ..Expected::default()
    });
    assert!(watcher.grown("oom_watcher_marks_without_kill_total") >= 1.0);
    drop(held);
    if is_full { Asked::Went } else { Asked::Killed }
}

/// The kernel's log says that the reaper had taken the memory of one process when the other was killed.
#[track_caller]
fn assert_reaped_before(reaped: u32, killed: u32) {
    let log = machine::kernel_log();
    let place = |text: &str| log.rfind(text).unwrap_or_else(|| panic!("the kernel's log has no {text:?}"));
    let (reaped, killed) = (format!("oom_reaper: reaped process {reaped} ("), format!("Killed process {killed} ("));
    assert!(place(&reaped) < place(&killed), "{killed:?} comes before {reaped:?}");
}

/// A process that is held at its exit, with its memory; nothing but its tracer can end it there. Released when dropped.
struct Held {
    pid: u32,
}

impl Held {
    fn at_exit(pid: u32) -> Self {
        let options = libc::PTRACE_O_TRACEEXIT as usize as *mut libc::c_void;
        // SAFETY: the request takes no memory of ours: the address is null and the options go by value.
        let result = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, pid as libc::pid_t, std::ptr::null_mut::<libc::c_void>(), options)
        };
        assert_eq!(result, 0, "ptrace: {}", std::io::Error::last_os_error());
        Self { pid }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: the request takes no memory of ours. It fails when the process is not stopped, and then nothing holds it.
        unsafe { libc::ptrace(libc::PTRACE_CONT, self.pid as libc::pid_t, nothing, nothing) };
    }
}

fn wait_for_exit_stop(pid: u32) {
    let mut status = 0;
    // SAFETY: the status is ours to be written.
    let waited = unsafe { libc::waitpid(pid as libc::pid_t, &raw mut status, libc::__WALL) };
    assert_eq!(waited, pid as libc::pid_t);
    assert!(libc::WIFSTOPPED(status), "it stops at its exit: {status:#x}");
}

/// The only process is protected: the killer is called again and again, finds nobody, and nothing is reported as a kill.
fn nobody_can_be_killed() {
    let watcher = Session::open();
    let cgroup = Cgroup::new("protected");
    cgroup.limit(20 * MIB);
    let account = Account::open(&[&cgroup]);
    let mut hog = Hog::start(&cgroup, &["anon", "67108864", "-1000"]);
    hog.go();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(watcher.rest(), Vec::<Value>::new());
    account.assert(&Expected { ran_out: &[&cgroup], asked_again: true, ..Expected::default() });
    if machine::hook("out_of_memory") {
        assert!(watcher.grown(r#"oom_watcher_oom_invocations_total{result="no_victim"}"#) >= 1.0);
    }
    let pid = Pid::from_raw(hog.pid().cast_signed()).expect("a pid");
    kill_process(pid, Signal::KILL).expect("it can be ended");
    hog.must_be_killed();
    // The kernel may mark it while it dies of our signal; that is no kill either.
    watcher.silent();
}
