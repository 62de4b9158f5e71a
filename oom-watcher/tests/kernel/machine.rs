//! The machine under the suite, and the results as lines for the harness.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use serde_json::{Value, json};

use crate::scenario::Outcome;

/// Each line with this start holds a result as JSON; the guest harness collects them.
const RESULT: &str = "oom-watcher-result: ";

/// The agent's binary: built beside this suite, or put into the guest.
pub(crate) fn agent() -> PathBuf {
    if in_guest() { PathBuf::from("/bin/oom-watcher") } else { PathBuf::from(env!("CARGO_BIN_EXE_oom-watcher")) }
}

/// A guest has nothing but the suite: the machine may run out of memory as a whole, and settings may be changed.
pub(crate) fn in_guest() -> bool {
    std::fs::exists("/suite").unwrap_or(false)
}

/// Whether this is a guest; the reason why a scenario is not for another machine.
pub(crate) fn guest() -> Result<(), String> {
    if in_guest() { Ok(()) } else { Err("it would put the whole machine out of memory; only in a guest".to_owned()) }
}

/// What `oom-watcher check` finds.
pub(crate) fn check() -> &'static Value {
    static CHECK: OnceLock<Value> = OnceLock::new();
    CHECK.get_or_init(|| {
        let output = Command::new(agent()).args(["check", "--output", "json"]).output().expect("the agent runs");
        assert!(output.status.success(), "check fails: {}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).expect("check prints JSON")
    })
}

/// Whether the watcher has this hook here.
pub(crate) fn hook(name: &str) -> bool {
    let hooks = check()["hooks"].as_array().expect("check lists the hooks");
    let hook = hooks.iter().find(|hook| hook["hook"] == name).expect("check knows the hook");
    hook["attached"].is_string()
}

/// A guest grants memory that it does not have, so that it is the touching that fails and not the asking.
pub(crate) fn prepare() {
    if in_guest() {
        std::fs::write("/proc/sys/vm/overcommit_memory", "1").expect("the setting is there");
    }
}

/// Prints what the machine is.
pub(crate) fn describe() {
    println!("{RESULT}{}", json!({ "check": check() }));
}

/// Prints what became of a scenario.
pub(crate) fn result(name: &str, outcome: &Outcome) {
    let (word, reason) = match outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Failed => ("failed", None),
        Outcome::Impossible(reason) => ("not possible", Some(reason)),
    };
    println!("{RESULT}{}", json!({ "scenario": name, "outcome": word, "reason": reason }));
}

/// Prints the fields that an event had.
pub(crate) fn event(name: &str, event: &Value) {
    println!("{RESULT}{}", json!({ "scenario": name, "event": event }));
}

/// `oom_kill` of /proc/vmstat.
pub(crate) fn vmstat_kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").expect("vmstat is there");
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("the kernel counts kills");
    line.trim().parse().expect("a number")
}

/// CPUs of this machine.
pub(crate) fn cpus() -> u64 {
    std::thread::available_parallelism().expect("the machine has CPUs").get() as u64
}

/// The kernel log, as `dmesg` reads it.
pub(crate) fn kernel_log() -> String {
    let mut buffer = vec![0_u8; 1 << 20];
    // SAFETY: SYSLOG_ACTION_READ_ALL (3) fills at most the given length of the buffer.
    let length = unsafe { libc::klogctl(3, buffer.as_mut_ptr().cast(), 1 << 20) };
    assert!(length >= 0, "klogctl: {}", std::io::Error::last_os_error());
    String::from_utf8_lossy(&buffer[..length as usize]).into_owned()
}
