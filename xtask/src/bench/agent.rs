//! A running agent, seen from outside: its lines with the time at which they came, its port, its figures in /proc.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, gettid, sched_setaffinity};
use serde_json::{Value, json};

use super::{kills, machine, mappings};
use crate::process;

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A child that writes a line for each kill; ended when dropped.
pub(super) struct Watcher {
    child: Child,
    lines: Receiver<(SystemTime, Value)>,
    /// From exec to the line that says it watches.
    pub(super) started_in: Duration,
    port: u16,
}

impl Watcher {
    /// Starts the agent, on CPU `cpu`, and waits until it watches.
    pub(super) fn agent(program: &Path, cpu: Option<usize>) -> Result<Self> {
        Self::agent_with(program, cpu, &[], &[])
    }

    /// Starts it with more arguments and variables than it needs.
    pub(super) fn agent_with(
        program: &Path,
        cpu: Option<usize>,
        arguments: &[&str],
        environment: &[(&str, &Path)],
    ) -> Result<Self> {
        let fixed =
            ["--output", "json", "--metrics-port", "0", "--metrics-address", "127.0.0.1", "--node-name", "bench"];
        Self::start(program, cpu, &[&fixed, arguments].concat(), environment, "Watching for OOM kills")
    }

    /// Starts the polling loop.
    pub(super) fn polling(program: &Path, cpu: Option<usize>, every: Duration) -> Result<Self> {
        Self::start(program, cpu, &["poll", "--every", &every.as_millis().to_string()], &[], "Polling")
    }

    fn start(
        program: &Path,
        cpu: Option<usize>,
        arguments: &[&str],
        environment: &[(&str, &Path)],
        ready: &str,
    ) -> Result<Self> {
        let mut command = match cpu {
            // It becomes the program: the process id stays.
            Some(cpu) => {
                let mut taskset = Command::new("taskset");
                taskset.args(["-c", &cpu.to_string()]).arg(program);
                taskset
            }
            None => Command::new(program),
        };
        command.envs(environment.iter().copied());
        command.args(arguments).env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let lines = follow(child.stdout.take().context("it is piped")?, cpu);
        let mut log = BufReader::new(child.stderr.take().context("it is piped")?).lines();
        let mut watcher = Self { child, lines, started_in: Duration::ZERO, port: 0 };
        for line in &mut log {
            let line = line.context("cannot read the log")?;
            if line.contains(ready) {
                watcher.started_in = started.elapsed();
                watcher.port = port(&line);
                // What it logs from now on has to go somewhere.
                thread::spawn(move || log.for_each(drop));
                return Ok(watcher);
            }
        }
        bail!("{} does not watch", program.display())
    }

    /// The next line about a kill of the bench: how many milliseconds after the time of the kill, which it gives, it came.
    pub(super) fn latency_ms(&self) -> Result<f64> {
        let (came, line) = loop {
            let next = self.lines.recv_timeout(PATIENCE).context("no line")?;
            if next.1["cgroup"]["path"].as_str().is_some_and(|path| path.contains(kills::CONTAINERS)) {
                break next;
            }
        };
        let time = line["time"].as_str().context("a line without a time")?;
        let killed: jiff::Timestamp = time.parse().with_context(|| format!("{time:?} is no time"))?;
        let came = jiff::Timestamp::try_from(came)?;
        Ok(came.duration_since(killed).as_secs_f64() * 1e3)
    }

    /// The page of /metrics.
    pub(super) fn scrape(&self) -> Result<String> {
        self.get("/metrics")
    }

    /// What it answers, with the head of the answer.
    pub(super) fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).context("cannot connect")?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page).context("cannot read the page")?;
        Ok(page)
    }

    /// What it takes of memory, in KiB. Not as `status` has it, which leaves out what each CPU has not yet added up.
    pub(super) fn memory(&self) -> Result<Value> {
        let process = format!("/proc/{}", self.child.id());
        let program = fs::read_link(format!("{process}/exe")).context("the agent is gone")?;
        let smaps = machine::read(&format!("{process}/smaps"))?;
        Ok(json!({
            "mappings_kib": mappings::of(&smaps, &program.to_string_lossy()),
            "rss_kib": self.kib("smaps_rollup", "Rss:")?,
            "anonymous_kib": self.kib("smaps_rollup", "Anonymous:")?,
            "pss_kib": self.kib("smaps_rollup", "Pss:")?,
        }))
    }

    pub(super) fn peak_kib(&self) -> Result<u64> {
        self.kib("status", "VmHWM:")
    }

    fn kib(&self, file: &str, name: &str) -> Result<u64> {
        let text = machine::read(&format!("/proc/{}/{file}", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        line.trim().trim_end_matches(" kB").parse().context("not a number")
    }

    /// What each of its threads did so far, with its name.
    pub(super) fn threads(&self) -> Result<BTreeMap<PathBuf, (String, Ran)>> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id())).context("the agent is gone")? {
            let task = task?.path();
            let read = |name: &str| fs::read_to_string(task.join(name)).with_context(|| format!("cannot read {name}"));
            let text = read("schedstat")?;
            let fields: Vec<u64> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
            let [ns, _, runs] = fields[..] else { bail!("schedstat is {text:?}") };
            let status = read("status")?;
            let switches = |kind: &str| -> Result<u64> {
                let line = status.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix("_ctxt_switches:"));
                line.with_context(|| format!("no {kind} switches"))?.trim().parse().context("not a number")
            };
            let now = Ran { ns, runs, voluntary: switches("voluntary")?, involuntary: switches("nonvoluntary")? };
            let name = read("comm")?.trim().to_owned();
            threads.insert(task, (name, now));
        }
        Ok(threads)
    }

    /// The kernel programs that it holds.
    pub(super) fn programs(&self) -> Result<Vec<Program>> {
        let (mut programs, mut names) = (Vec::new(), BTreeMap::new());
        for file in fs::read_dir(format!("/proc/{}/fdinfo", self.child.id())).context("the agent is gone")? {
            let text = fs::read_to_string(file?.path()).unwrap_or_default();
            let text_of = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
            let field = |name: &str| text_of(name)?.parse::<u64>().ok();
            let Some(id) = field("prog_id:") else { continue };
            if let (Some(runs), Some(ns)) = (field("run_cnt:"), field("run_time_ns:")) {
                programs.push((id, runs, ns));
            } else if let Some(name) = text_of("tp_name:") {
                names.insert(id, name);
            }
        }
        // A link says what its program is attached to, where that is a tracepoint; this agent's others are of out_of_memory.
        let name = |id| names.get(&id).cloned().unwrap_or_else(|| format!("out_of_memory ({id})"));
        Ok(programs.into_iter().map(|(id, runs, ns)| Program { name: name(id), runs, ns }).collect())
    }
}

/// What a thread did.
#[derive(Clone, Copy, Default)]
pub(super) struct Ran {
    pub(super) ns: u64,
    /// Times that a CPU was given to it.
    pub(super) runs: u64,
    /// Times that it gave the CPU up itself, to wait, and that it was taken from it.
    pub(super) voluntary: u64,
    pub(super) involuntary: u64,
}

impl Ran {
    pub(super) fn and(&self, other: &Self) -> Self {
        Self {
            ns: self.ns + other.ns,
            runs: self.runs + other.runs,
            voluntary: self.voluntary + other.voluntary,
            involuntary: self.involuntary + other.involuntary,
        }
    }

    /// What it did since then.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            ns: self.ns - before.ns,
            runs: self.runs - before.runs,
            voluntary: self.voluntary - before.voluntary,
            involuntary: self.involuntary - before.involuntary,
        }
    }
}

/// A kernel program, how often it ran and for how long, since the kernel counts it.
pub(super) struct Program {
    pub(super) name: String,
    pub(super) runs: u64,
    pub(super) ns: u64,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines as they come, each with its time; on the CPU of who writes them, if that is bound to one, and before all others there.
/// On that of the victim the kernel would first take the victim's memory back, which is a millisecond or two and nobody's latency, and
/// on a busy one this thread would wait for its own turn.
fn follow(stdout: ChildStdout, cpu: Option<usize>) -> Receiver<(SystemTime, Value)> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        if let Some(cpu) = cpu {
            // Refused, the figures are worse than they need be.
            if let Err(error) = go_first_on(cpu) {
                eprintln!("the lines are read whenever the machine has time: {error:#}");
            }
        }
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let came = SystemTime::now();
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            // What the API adds to a kill is another line.
            if line["type"] != "enrichment" && sender.send((came, line)).is_err() {
                break;
            }
        }
    });
    lines
}

/// Binds the calling thread to a CPU, on which it goes before every ordinary one.
fn go_first_on(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).context("cannot bind a thread to a CPU")?;
    let thread = gettid().as_raw_nonzero().to_string();
    process::output(Command::new("chrt").args(["--fifo", "--pid", "1", &thread])).map(drop)
}

/// The port that the agent says it listens on; the polling loop has none.
fn port(line: &str) -> u16 {
    let digits = line.split("address=127.0.0.1:").nth(1).map(|rest| rest.split(' ').next().unwrap_or_default());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
