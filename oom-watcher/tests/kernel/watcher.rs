//! The agent as a user runs it: events from its standard output, counters from its port.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use jsonschema::Validator;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{cgroup::Cgroup, machine};

/// A guest under software emulation takes seconds to load the programs.
const START: Duration = Duration::from_secs(90);
/// How long an event may take. The watcher needs milliseconds; a guest with two emulated CPUs under load may need more.
const EVENT: Duration = Duration::from_secs(30);
/// How long it must stay silent for "no more events" to be believed.
const SILENCE: Duration = Duration::from_millis(600);

/// Bytes that a watcher holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident, with pages of code: these come and go as the kernel likes.
    pub(crate) resident: u64,
    /// Its own, resident or swapped out: what grows when it leaks.
    pub(crate) own: u64,
    /// The most that was ever resident.
    pub(crate) peak: u64,
}

/// A running watcher; stopped when dropped.
pub(crate) struct Watcher {
    child: Child,
    events: Receiver<(SystemTime, Value)>,
    log: Receiver<String>,
    port: u16,
}

impl Watcher {
    /// Starts it and waits until it watches.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts it with more arguments than it needs, and waits until it watches.
    #[track_caller]
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_with_environment(arguments, &[])
    }

    /// Starts it with more arguments and environment variables than it needs, and waits until it watches.
    #[track_caller]
    pub(crate) fn start_with_environment(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut watcher = Self::spawn(arguments, environment);
        watcher.read_lines();
        watcher.port = watcher.wait_for_port();
        watcher
    }

    /// Has it started by a program that becomes it, and waits until it watches.
    #[track_caller]
    pub(crate) fn start_by(program: &[&str], arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(machine::agent());
        let mut watcher = Self::spawn_by(command, arguments, environment);
        watcher.read_lines();
        watcher.port = watcher.wait_for_port();
        watcher
    }

    /// Starts it in a cgroup, from its first instruction on, and waits until it watches.
    #[track_caller]
    pub(crate) fn start_in(cgroup: &Cgroup) -> Self {
        let procs = cgroup.directory().join("cgroup.procs");
        let mut agent = Command::new(machine::agent());
        // SAFETY: between fork and exec a file is written: nothing here takes a lock of another thread.
        unsafe { agent.pre_exec(move || std::fs::write(&procs, "0")) };
        let mut watcher = Self::spawn_by(agent, &[], &[]);
        watcher.read_lines();
        watcher.port = watcher.wait_for_port();
        watcher
    }

    /// Starts it and waits until it watches; its standard output stays unread until [`Self::read_lines`].
    #[track_caller]
    pub(crate) fn start_unread() -> Self {
        let mut watcher = Self::spawn(&[], &[]);
        watcher.port = watcher.wait_for_port();
        watcher
    }

    #[track_caller]
    fn spawn(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn_by(Command::new(machine::agent()), arguments, environment)
    }

    #[track_caller]
    fn spawn_by(mut agent: Command, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = agent
            .args([
                "--output",
                "json",
                "--metrics-port",
                "0",
                "--metrics-address",
                "127.0.0.1",
                "--node-name",
                "test-node",
            ])
            .args(arguments)
            .env_remove("RUST_LOG")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let stderr = child.stderr.take().expect("it is piped");
        let (log_sender, log) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if log_sender.send(line).is_err() {
                    break;
                }
            }
        });
        let (_, events) = channel();
        Self { child, events, log, port: 0 }
    }

    /// Begins to read its standard output.
    pub(crate) fn read_lines(&mut self) {
        let stdout = self.child.stdout.take().expect("it is piped, and read by nobody yet");
        let (sender, events) = channel();
        self.events = events;
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let came = SystemTime::now();
                let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
                assert_schema(&event);
                if sender.send((came, event)).is_err() {
                    break;
                }
            }
        });
    }

    fn wait_for_port(&self) -> u16 {
        let deadline = Instant::now() + START;
        let mut seen = Vec::new();
        while let Ok(line) = self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if let Some(rest) = line.split("address=127.0.0.1:").nth(1) {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                return digits.parse().expect("a port");
            }
            seen.push(line);
        }
        panic!("the watcher did not start to watch:\n{}", seen.join("\n"));
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it holds of the machine's memory.
    #[track_caller]
    pub(crate) fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
        };
        Memory { resident: bytes("VmRSS:"), own: bytes("RssAnon:") + bytes("VmSwap:"), peak: bytes("VmHWM:") }
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The next `count` events, in their order.
    #[track_caller]
    pub(crate) fn events(&self, count: usize) -> Vec<Value> {
        self.events_and_times(count).into_iter().map(|(_, event)| event).collect()
    }

    /// The next `count` events, and when each line came.
    #[track_caller]
    pub(crate) fn events_and_times(&self, count: usize) -> Vec<(SystemTime, Value)> {
        let deadline = Instant::now() + EVENT;
        let mut events = Vec::new();
        while events.len() < count {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => events.push(event),
                Err(RecvTimeoutError::Timeout) => panic!("{} events of {count}: {events:#?}", events.len()),
                Err(RecvTimeoutError::Disconnected) => panic!("the watcher has ended: {:?}", self.log_lines()),
            }
        }
        events
    }

    /// The next event.
    #[track_caller]
    pub(crate) fn event(&self) -> Value {
        self.events(1).remove(0)
    }

    /// Exactly these many events, and then silence.
    #[track_caller]
    pub(crate) fn exactly(&self, count: usize) -> Vec<Value> {
        let events = self.events(count);
        self.silent();
        events
    }

    /// Every event until it has been silent for a while.
    pub(crate) fn rest(&self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Ok((_, event)) = self.events.recv_timeout(SILENCE) {
            events.push(event);
        }
        events
    }

    /// Events that have come already.
    pub(crate) fn waiting(&self) -> Vec<Value> {
        self.events.try_iter().map(|(_, event)| event).collect()
    }

    /// Every event of this time.
    pub(crate) fn rest_within(&self, time: Duration) -> Vec<Value> {
        let deadline = Instant::now() + time;
        let mut events = Vec::new();
        while let Ok((_, event)) = self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            events.push(event);
        }
        events
    }

    /// No event comes.
    #[track_caller]
    pub(crate) fn silent(&self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "events that nobody was killed for: {rest:#?}");
    }

    /// The value of a sample on /metrics: its name with labels, as it stands there; 0 when it is not there.
    #[track_caller]
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        sample_of(&self.get("/metrics"), sample)
    }

    /// The body of a page.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the watcher listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("it takes the request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    fn log_lines(&self) -> Vec<String> {
        self.log.try_iter().collect()
    }

    /// Asks it to stop; all that it has logged.
    #[track_caller]
    pub(crate) fn stop_for_log(mut self) -> Vec<String> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        self.child.wait().expect("it ends");
        // Until its standard error has ended.
        self.log.iter().collect()
    }

    /// Asks it to stop; its last events, and whether it ended well.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Vec<Value> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "the watcher ended with {status}: {:?}", self.log_lines());
        self.events.iter().map(|(_, event)| event).collect()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every line is as its schema in `docs/` says. A panic here ends the events, which no test overlooks.
fn assert_schema(event: &Value) {
    static EVENT: LazyLock<Validator> = LazyLock::new(|| schema(include_str!("../../../docs/event.schema.json")));
    static ENRICHMENT: LazyLock<Validator> =
        LazyLock::new(|| schema(include_str!("../../../docs/enrichment.schema.json")));
    let schema: &Validator = if event["type"] == "enrichment" { &ENRICHMENT } else { &EVENT };
    let errors: Vec<String> = schema.iter_errors(event).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}: {event:#}");
}

fn schema(text: &str) -> Validator {
    jsonschema::validator_for(&serde_json::from_str(text).expect("JSON")).expect("a schema")
}

/// The value of a sample on a page of metrics; 0 when it is not there.
#[track_caller]
pub(crate) fn sample_of(page: &str, sample: &str) -> f64 {
    let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.trim().parse().expect("a number"))
}

/// A number of an event, by JSON pointer.
#[track_caller]
pub(crate) fn number(event: &Value, pointer: &str) -> u64 {
    event.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number {pointer} in {event:#}"))
}

/// A text of an event, by JSON pointer.
#[track_caller]
pub(crate) fn text<'a>(event: &'a Value, pointer: &str) -> &'a str {
    event.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text {pointer} in {event:#}"))
}
