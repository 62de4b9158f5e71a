//! A running watcher: how each is started, when it says that it is attached, what its lines say, what it takes.
//!
//! Every one writes into a pipe. Those that would keep their lines until there are 4 KiB of them are told not to.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;

/// One of them compiles what it loads, which an emulated machine takes minutes for.
const PATIENCE: Duration = Duration::from_mins(10);

/// A watcher of the table.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// The agent itself and its directory of links take the places of `AGENT` and `LINKS`.
    command: &'static [&'static str],
    /// What it writes once it is attached.
    ready: &'static str,
    /// What stands in front of the victim's process id.
    pid_after: &'static str,
}

const AGENT: &str = "<agent>";
const OWN: &str = "<this program>";
const LINKS: &str = "<links>";

/// Of these, the one whose lines give the times of the kills: it looks up at its own pace, whatever the others do.
pub(super) const CLOCK: usize = 1;

pub(super) const KINDS: [Kind; 6] = [
    Kind {
        name: "oom-watcher",
        command: &[
            AGENT,
            "--output",
            "json",
            "--metrics-port",
            "0",
            "--metrics-address",
            "127.0.0.1",
            "--node-name",
            "guest",
            "--container-log-dir",
            LINKS,
        ],
        ready: "Watching for OOM kills",
        pid_after: "\"victim\":{\"pid\":",
    },
    Kind {
        name: "a loop that polls our ring every 100 ms",
        command: &[OWN, "poll", "--every", "100"],
        ready: "Polling",
        pid_after: "\"victim\":{\"pid\":",
    },
    Kind {
        name: "libbpf-tools oomkill",
        command: &["stdbuf", "-oL", "/usr/sbin/oomkill"],
        ready: "Tracing OOM kills",
        pid_after: "OOM kill of PID ",
    },
    Kind {
        name: "bcc oomkill",
        command: &["python3", "-u", "/usr/sbin/oomkill-bpfcc"],
        ready: "Tracing OOM kills",
        pid_after: "OOM kill of PID ",
    },
    Kind {
        name: "bpftrace, kprobe:oom_kill_process",
        command: &[
            "bpftrace",
            "-B",
            "line",
            "-e",
            "kprobe:oom_kill_process { printf(\"OOM kill of PID %d\\n\", ((struct oom_control *)arg0)->chosen->pid); }",
        ],
        ready: "PROBES_ATTACHED",
        pid_after: "OOM kill of PID ",
    },
    Kind {
        name: "bpftrace, tracepoint:oom:mark_victim",
        command: &[
            "bpftrace",
            "-B",
            "line",
            "-e",
            "tracepoint:oom:mark_victim { printf(\"OOM kill of PID %d\\n\", args->pid); }",
        ],
        ready: "PROBES_ATTACHED",
        pid_after: "OOM kill of PID ",
    },
];

/// What a watcher said of kills, by the victims' process ids.
#[derive(Default)]
pub(super) struct Telling {
    /// When its line was here.
    pub(super) came: HashMap<u32, Timestamp>,
    /// When the kill was, where it says so.
    pub(super) kills: HashMap<u32, Timestamp>,
}

/// What starting took.
#[derive(Serialize)]
pub(super) struct Start {
    /// From exec to the line that says it is attached.
    ms: f64,
    /// Of it, the time that its threads ran.
    cpu_ms: f64,
    peak_kib: u64,
}

#[derive(Serialize)]
pub(super) struct Memory {
    rss_kib: u64,
    pss_kib: u64,
}

/// A child that tells of kills; ended when dropped.
pub(super) struct Watcher {
    kind: &'static Kind,
    child: Child,
    lines: Receiver<(Timestamp, String)>,
    started_in: Duration,
}

impl Watcher {
    /// Starts it, and waits until it is attached.
    pub(super) fn start(kind: &'static Kind, agent: &Path, log_dir: &Path) -> Result<Self> {
        let own = std::env::current_exe().context("cannot find this program")?;
        let word = |word: &&str| match *word {
            AGENT => agent.as_os_str().to_owned(),
            OWN => own.as_os_str().to_owned(),
            LINKS => log_dir.as_os_str().to_owned(),
            word => word.into(),
        };
        let words: Vec<_> = kind.command.iter().map(word).collect();
        let mut command = Command::new(&words[0]);
        // bpftrace's own tests wait for it in this way.
        command.args(&words[1..]).env("__BPFTRACE_NOTIFY_PROBES_ATTACHED", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {}", words[0].display()))?;
        let (sender, lines) = channel();
        follow(child.stdout.take().context("it is piped")?, sender.clone());
        follow(child.stderr.take().context("it is piped")?, sender);
        let mut watcher = Self { kind, child, lines, started_in: Duration::ZERO };
        let mut said = Vec::new();
        while let Ok((_, line)) = watcher.lines.recv_timeout(PATIENCE.saturating_sub(started.elapsed())) {
            eprintln!("  {line}");
            if line.contains(kind.ready) {
                watcher.started_in = started.elapsed();
                return Ok(watcher);
            }
            said.push(line);
        }
        let status = watcher.child.try_wait().context("cannot wait for it")?;
        let ended = status.map_or_else(|| "it says nothing more".to_owned(), |status| status.to_string());
        bail!("it does not attach: {ended}: {}", said.join(" / "))
    }

    /// Takes the lines that are here; whether there were any.
    pub(super) fn take(&self, telling: &mut Telling) -> bool {
        let mut any = false;
        for (came, line) in self.lines.try_iter() {
            any = true;
            let Some(pid) = number_after(&line, self.kind.pid_after) else { continue };
            telling.came.entry(pid).or_insert(came);
            let time = serde_json::from_str::<Value>(&line).ok().and_then(|line| line["time"].as_str()?.parse().ok());
            telling.kills.extend(time.map(|time| (pid, time)));
        }
        any
    }

    /// Lets it run, or not: what it is told meanwhile waits in the kernel.
    pub(super) fn set_running(&self, running: bool) -> Result<()> {
        let signal = if running { Signal::CONT } else { Signal::STOP };
        kill_process(Pid::from_child(&self.child), signal).context("cannot stop a watcher")
    }

    /// What starting took.
    pub(super) fn started(&self) -> Result<Start> {
        Ok(Start {
            ms: self.started_in.as_secs_f64() * 1e3,
            cpu_ms: self.switches_and_ns()?.1 as f64 / 1e6,
            peak_kib: self.kib("status", "VmHWM:")?,
        })
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        // Not those of `status`, which leave out what each CPU has not yet added up.
        let [rss_kib, pss_kib] = ["Rss:", "Pss:"].map(|name| self.kib("smaps_rollup", name));
        Ok(Memory { rss_kib: rss_kib?, pss_kib: pss_kib? })
    }

    /// Times that its threads were switched to, and the time that they ran, in nanoseconds.
    pub(super) fn switches_and_ns(&self) -> Result<(u64, u64)> {
        let mut total = (0, 0);
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id())).context("a watcher is gone")? {
            let text = fs::read_to_string(task?.path().join("schedstat")).context("cannot read schedstat")?;
            let fields: Vec<u64> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
            let [ran, _, switches] = fields[..] else { bail!("schedstat is {text:?}") };
            total = (total.0 + switches, total.1 + ran);
        }
        Ok(total)
    }

    fn kib(&self, file: &str, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/{file}", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{name} is no number"))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines as they come, each with its time.
fn follow(source: impl Read + Send + 'static, sender: Sender<(Timestamp, String)>) {
    thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if sender.send((Timestamp::now(), line)).is_err() {
                break;
            }
        }
    });
}

fn number_after(line: &str, mark: &str) -> Option<u32> {
    let (_, rest) = line.split_once(mark)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_victim_is_read_from_every_kind_of_line() {
        for (line, mark) in [
            ("10:00:00 Triggered by PID 41 (\"a\"), OOM kill of PID 42 (\"b\"), 8 pages", KINDS[2].pid_after),
            (r#"{"time":"2026-01-01T00:00:00Z","victim":{"pid":42,"tgid":42}}"#, KINDS[0].pid_after),
        ] {
            assert_eq!(number_after(line, mark), Some(42), "{line}");
        }
        assert_eq!(number_after("Tracing OOM kills", KINDS[2].pid_after), None);
    }
}
