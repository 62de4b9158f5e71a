//! The agent as a process that can be stopped, killed and confined.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};
use serde_json::Value;

use crate::cgroup::{Cgroup, is_own};

/// A guest under software emulation takes seconds to load the programs.
const PATIENCE: Duration = Duration::from_secs(90);
/// Bytes of a standard output that nobody reads, the least that there is: a line takes one or two KiB.
const PIPE_BYTES: usize = 4096;
/// How long it must stay silent for "no more events" to be believed.
const SILENCE: Duration = Duration::from_millis(700);

/// The agent's binary: built beside this suite, or put into the guest.
pub(crate) fn binary() -> PathBuf {
    if std::fs::exists("/suite").unwrap_or(false) {
        PathBuf::from("/bin/oom-watcher")
    } else {
        PathBuf::from(env!("CARGO_BIN_EXE_oom-watcher"))
    }
}

/// How one is started.
pub(crate) struct Launch {
    command: Command,
    cgroup: Option<PathBuf>,
    unread: bool,
}

/// A running agent; ended when dropped.
pub(crate) struct Agent {
    child: Child,
    unread: Option<ChildStdout>,
    events: Receiver<Value>,
    log: Receiver<String>,
    said: Vec<String>,
    port: u16,
}

impl Launch {
    /// With these arguments beside those that every agent of the suite has.
    pub(crate) fn new<A: AsRef<OsStr>>(arguments: &[A]) -> Self {
        Self::of(&binary(), arguments)
    }

    /// Another program than the agent that is tested.
    pub(crate) fn of<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> Self {
        let mut command = Command::new(program);
        command
            .args(["--output=json", "--metrics-port=0", "--metrics-address=127.0.0.1"])
            .args(arguments)
            .env_clear()
            .env("SECCOMP", "kill")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self { command, cgroup: None, unread: false }
    }

    /// Nobody reads its standard output, which holds a few lines.
    pub(crate) fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// In a directory of a cgroup from its first instruction on.
    pub(crate) fn inside(mut self, procs: PathBuf) -> Self {
        self.cgroup = Some(procs);
        self
    }

    /// With no more open files than that.
    pub(crate) fn open_files(mut self, count: u64) -> Self {
        let limit = Rlimit { current: Some(count), maximum: Some(count) };
        // SAFETY: between fork and exec only a system call is made.
        unsafe { self.command.pre_exec(move || setrlimit(Resource::Nofile, limit).map_err(Into::into)) };
        self
    }

    fn spawn(&mut self) -> Child {
        if let Some(procs) = self.cgroup.take() {
            // SAFETY: between fork and exec a file is written: nothing here takes a lock of another thread.
            unsafe { self.command.pre_exec(move || std::fs::write(&procs, "0")) };
        }
        self.command.spawn().expect("the agent starts")
    }

    /// Runs it to its end, which must be a failure; what it said of it.
    #[track_caller]
    pub(crate) fn must_fail(mut self) -> String {
        let output = self.spawn().wait_with_output().expect("it ends");
        assert!(!output.status.success(), "it runs");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Starts it and waits until it watches.
    #[track_caller]
    pub(crate) fn start(mut self) -> Agent {
        let mut child = self.spawn();
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (sender, events) = channel();
        let stdout = child.stdout.take().expect("it is piped");
        let unread = if self.unread {
            rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES).expect("a pipe can be made smaller");
            Some(stdout)
        } else {
            thread::spawn(move || read_events(stdout, &sender));
            None
        };
        let (sender, log) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut agent = Agent { child, unread, events, log, said: Vec::new(), port: 0 };
        let line = agent.wait_for_log("address=127.0.0.1:");
        let digits = line.split("address=127.0.0.1:").nth(1).unwrap_or_default();
        let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
        agent.port = digits.parse().expect("a port");
        agent
    }
}

impl Agent {
    /// Starts one with these arguments.
    #[track_caller]
    pub(crate) fn start<A: AsRef<OsStr>>(arguments: &[A]) -> Self {
        Launch::new(arguments).start()
    }

    /// Waits for a line of its log with this in it.
    #[track_caller]
    pub(crate) fn wait_for_log(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.said.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            let Ok(line) = self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                panic!("it does not say {part:?} ({:?}), but:\n{}", self.child.try_wait(), self.said.join("\n"))
            };
            self.said.push(line);
        }
    }

    /// All that it has said up to now.
    pub(crate) fn said(&mut self) -> String {
        self.said.extend(self.log.try_iter());
        self.said.join("\n")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sends it a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Exactly these many events, and then silence.
    #[track_caller]
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while events.len() < count {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => events.push(event),
                Err(RecvTimeoutError::Timeout) => panic!("{} events of {count}\n{}", events.len(), self.said()),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended ({:?}) after {} events:\n{}", self.child.try_wait(), events.len(), self.said())
                }
            }
        }
        events.extend(self.rest());
        assert_eq!(events.len(), count, "events that nobody was killed for: {events:#?}");
        events
    }

    /// Every event until it has been silent for a while.
    pub(crate) fn rest(&self) -> Vec<Value> {
        std::iter::from_fn(|| self.events.recv_timeout(SILENCE).ok()).collect()
    }

    /// Asks for /metrics and takes what comes, if anything does.
    pub(crate) fn scrape(&self) -> String {
        let mut page = Vec::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            // What it could not send is not there.
            let _ = write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
            let _ = stream.read_to_end(&mut page);
        }
        String::from_utf8_lossy(&page).into_owned()
    }

    /// The value of a sample on /metrics; none: it is not there.
    #[track_caller]
    pub(crate) fn metric(&self, sample: &str) -> Option<f64> {
        let page = self.scrape();
        assert!(page.contains("# EOF"), "it answers with all: {page}");
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        Some(value.trim().parse().expect("a number"))
    }

    /// The status that /livez answers with; none: no answer within a second, which is what a kubelet waits.
    pub(crate) fn livez(&self) -> Option<u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a time can be set");
        write!(stream, "GET /livez HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).ok()?;
        std::str::from_utf8(&status).ok()?.strip_prefix("HTTP/1.1 ")?.parse().ok()
    }

    /// The text of one of its files in /proc.
    #[track_caller]
    pub(crate) fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("it runs")
    }

    /// Waits until a sample has this value.
    #[track_caller]
    pub(crate) fn wait_for_metric(&mut self, sample: &str, wanted: f64) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric(sample) != Some(wanted) {
            assert!(Instant::now() < deadline, "{sample} is {:?}\n{}", self.metric(sample), self.said());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills it, as no one can refuse.
    #[track_caller]
    pub(crate) fn kill(mut self) -> Vec<Value> {
        self.signal(Signal::KILL);
        self.child.wait().expect("it ends");
        self.events.iter().collect()
    }

    /// Waits for an end that somebody else brings about; its last events.
    #[track_caller]
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<Value>) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.has_ended() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.said());
            thread::sleep(Duration::from_millis(10));
        };
        (status, self.events.iter().collect())
    }

    /// The events that nobody has read, of one that has ended. The last line may have been cut off by the end: it is none.
    #[track_caller]
    pub(crate) fn read_at_last(&mut self) -> Vec<Value> {
        assert!(self.has_ended().is_some(), "it runs");
        let mut said = String::new();
        let mut stdout = self.unread.take().expect("nobody has read it");
        stdout.read_to_string(&mut said).expect("it can be read");
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events = whole.lines().map(|line| serde_json::from_str(line).expect("a line is JSON"));
        events.filter(is_ours).collect()
    }

    /// How it has ended; none: it runs.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be asked")
    }

    /// Asks it to stop; its last events.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Vec<Value> {
        self.signal(Signal::TERM);
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "it ended with {status}:\n{}", self.said());
        self.events.iter().collect()
    }
}

/// Sends the events of this suite until nobody wants them.
fn read_events(stdout: ChildStdout, sender: &Sender<Value>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
        if is_ours(&event) && sender.send(event).is_err() {
            break;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A kill in a cgroup of this suite: others on the machine may be killed too.
fn is_ours(event: &Value) -> bool {
    event.pointer("/cgroup/path").and_then(Value::as_str).is_some_and(is_own)
}

/// The process that was killed, of an event.
#[track_caller]
pub(crate) fn tgid(event: &Value) -> u64 {
    event.pointer("/victim/tgid").and_then(Value::as_u64).unwrap_or_else(|| panic!("no process in {event:#}"))
}

/// The file that takes a process into this cgroup.
pub(crate) fn procs(cgroup: &Cgroup) -> PathBuf {
    let mount = crate::cgroup::hierarchy().mount;
    mount.join(cgroup.path().trim_start_matches('/')).join("cgroup.procs")
}
