//! Names that are instructions to a terminal, clients that mean no good, and what an agent must never tell.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use oom_watcher::escape::is_unsafe;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    account::{Account, Expected},
    cgroup::Cgroup,
    hog::Hog,
    machine, openmetrics,
    scenario::{Scenario, anywhere},
    session::Session,
    watcher::{Watcher, number, text},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "hostile-names", possible: anywhere, run: hostile_names },
    Scenario { name: "flood-under-kills", possible: anywhere, run: flood_under_kills },
    Scenario { name: "no-secret-in-the-log", possible: anywhere, run: no_secret_in_the_log },
];

const LIMIT: u64 = 8 << 20;
/// More than the limit allows.
const TOO_MUCH: &str = "33554432";

/// A name of a process: a line's end, a cleared screen, a quote, a byte that is no UTF-8.
const COMM: &[u8] = b"\n\x1b[2J\"\xff\x9b31m";
/// What becomes of it: the bytes that are no UTF-8 are replaced.
const COMM_TEXT: &str = "\n\u{1b}[2J\"\u{fffd}\u{fffd}31m";
/// Names of cgroups. The kernel refuses a line's end and a slash, and nothing else.
const OUTER: &[u8] = b"a\"b'\\\x1b]0;t\x07{}=,\xff";
const INNER: &[u8] = b"\xe2\x80\xae\r\t\x1b[31m#\x7f ";
/// A directory that is not there; the agent's log names it.
const DIRECTORY: &str = "/nonexistent/\u{1b}[2J\"\u{9b}31m";

/// A process, its cgroup and the agent's own settings have names that no person would give: each output keeps its form.
fn hostile_names() {
    let watcher = Session::open();
    let for_a_person = Reader::start();
    let outer = Cgroup::new("hostile");
    let middle = outer.child(OsStr::from_bytes(OUTER));
    let inner = middle.child(OsStr::from_bytes(INNER));
    // As long as a name may be.
    let leaf = inner.child(OsStr::from_bytes(&[b"\x1b[41m\xfe".as_slice(), &[b'x'; 249]].concat()));
    leaf.limit(LIMIT);
    let account = Account::open(&[&leaf]);
    let mut hog = Hog::start(&leaf, &["named", TOO_MUCH, &hexadecimal(COMM)]);
    hog.go();
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    assert_eq!(text(&event, "/victim/comm"), COMM_TEXT);
    assert_eq!(text(&event, "/trigger/comm"), COMM_TEXT);
    assert_eq!(text(&event, "/cgroup/path"), leaf.path());
    account.assert(&Expected { ran_out: &[&leaf], kills: &[(&leaf, 1)], ..Expected::default() });
    assert_page(&watcher.get("/metrics"));
    // It is told by now: the other agent, which does the same, has told it.
    let (out, log) = for_a_person.stop();
    let lines: Vec<&str> = out.lines().filter(|line| line.contains(&format!("(pid {})", hog.pid()))).collect();
    assert_eq!(lines.len(), 1, "one kill is one line: {out:?}");
    assert!(lines[0].contains("OOM kill: \\n\\x1b[2J\"\u{fffd}\u{fffd}31m (pid "), "{}", lines[0]);
    for said in [&out, &log] {
        assert!(said.lines().all(|line| !line.contains(is_unsafe)), "{said:?}");
    }
    assert!(log.contains("/nonexistent/\\x1b[2J"), "the log names the directory: {log}");
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Every line of a page is a sample or a comment.
#[track_caller]
fn assert_page(answer: &str) {
    let (_, page) = answer.split_once("\r\n\r\n").expect("a head and a body");
    for line in page.lines() {
        assert!(!line.contains(is_unsafe), "{line:?}");
        assert!(line.starts_with("# ") || openmetrics::sample(line).is_some(), "not a sample: {line}");
    }
    assert!(page.ends_with("# EOF\n"));
}

/// An agent that writes for a person; all that it says, as bytes.
struct Reader {
    child: Child,
    threads: [JoinHandle<Vec<u8>>; 2],
}

impl Reader {
    #[track_caller]
    fn start() -> Self {
        let mut child = Command::new(machine::agent())
            .args(["--output=text", "--metrics-port=0", "--metrics-address=127.0.0.1", "--container-log-dir"])
            .arg(DIRECTORY)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let mut out = child.stdout.take().expect("it is piped");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut said = Vec::new();
        while !said.windows(8).any(|word| word == b"Watching") {
            let read = log.read_until(b'\n', &mut said).expect("a log");
            assert!(read > 0, "it did not start to watch: {}", String::from_utf8_lossy(&said));
        }
        let read_out = thread::spawn(move || {
            let mut bytes = Vec::new();
            out.read_to_end(&mut bytes).expect("it can be read");
            bytes
        });
        let read_log = thread::spawn(move || {
            log.read_to_end(&mut said).expect("it can be read");
            said
        });
        Self { child, threads: [read_out, read_log] }
    }

    /// Ends it: what it wrote, and its log.
    #[track_caller]
    fn stop(mut self) -> (String, String) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        assert!(self.child.wait().expect("it ends").success());
        let [out, log] = self.threads.map(|thread| thread.join().expect("all is read"));
        (String::from_utf8(out).expect("text"), String::from_utf8(log).expect("text"))
    }
}

/// Connections of the flood, threads that make them, and kills meanwhile.
const CONNECTIONS: u64 = 5000;
const CLIENTS: u64 = 4;
const KILLS: usize = 50;
/// Connections that one thread holds at a time.
const HELD: usize = 100;

/// Thousands of connections, slow ones, huge requests, readers that do not read: no kill is late by them or lost.
fn flood_under_kills() {
    let watcher = Session::open();
    let cgroup = Cgroup::new("flooded");
    cgroup.limit(LIMIT);
    let account = Account::open(&[&cgroup]);
    let flood = Flood::start(watcher.port());
    let (mut made, mut reported, mut amid) = (Vec::new(), Vec::new(), 0);
    while made.len() < KILLS || !flood.is_over() {
        let mut hog = Hog::start(&cgroup, &["anon", TOO_MUCH]);
        hog.go();
        hog.must_be_killed();
        made.push(u64::from(hog.pid()));
        reported.extend(watcher.events(1).iter().map(|event| number(event, "/victim/tgid")));
        amid += u64::from(!flood.is_over());
        // Spread over the flood, and not one more than the guest's patience allows.
        flood.wait_for(CONNECTIONS * made.len() as u64 / KILLS as u64);
    }
    let opened = flood.end();
    watcher.silent();
    assert_eq!(reported, made, "each once, in their order");
    // With the last of them the flood may end.
    assert!(amid >= KILLS as u64 / 2, "only {amid} were reported while the flood was on");
    account.assert(&Expected { ran_out: &[&cgroup], kills: &[(&cgroup, made.len() as u64)], ..asked_again() });
    let turned_away = watcher.grown(r#"oom_watcher_http_rejected_total{reason="too_many_connections"}"#) as u64;
    println!(
        "{opened} connections, {turned_away} turned away; {} kills, all reported, {amid} in the midst of it",
        made.len()
    );
    assert!(opened >= CONNECTIONS && turned_away > 0, "it was a flood");
    assert!(watcher.get("/livez").starts_with("HTTP/1.1 200 "));
    assert_page(&watcher.get("/metrics"));
    for stage in ["ring_buffer", "decode", "attribute", "sink_stdout", "sink_metrics"] {
        let lost = watcher.grown(&format!("oom_watcher_lost_events_total{{stage=\"{stage}\"}}"));
        assert!(lost < 0.5, "{lost} lost in {stage}");
    }
}

/// Whoever finds the killer busy asks again.
fn asked_again() -> Expected<'static> {
    Expected { asked_again: true, ..Expected::default() }
}

/// Clients that mean no good, each in a thread.
struct Flood {
    opened: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(port: u16) -> Self {
        let opened: Arc<AtomicU64> = Arc::default();
        let client = |_| {
            let opened = Arc::clone(&opened);
            thread::spawn(move || {
                let mut held = std::collections::VecDeque::new();
                for number in 0..CONNECTIONS / CLIENTS {
                    let connection = connect(port);
                    opened.fetch_add(1, Ordering::Relaxed);
                    misbehave(&connection, number);
                    held.push_back(connection);
                    if held.len() > HELD {
                        held.pop_front();
                    }
                }
            })
        };
        let threads = (0..CLIENTS).map(client).collect();
        Self { opened, threads }
    }

    fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until so many connections have been opened.
    fn wait_for(&self, connections: u64) {
        while !self.is_over() && self.opened.load(Ordering::Relaxed) < connections {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many connections there were.
    fn end(self) -> u64 {
        for thread in self.threads {
            thread.join().expect("the agent goes on listening");
        }
        self.opened.load(Ordering::Relaxed)
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the agent listens");
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a time can be set");
    stream
}

/// One of the things that a client should not do. What becomes of it is not this client's: it may be cut off at any time.
fn misbehave(mut connection: &TcpStream, number: u64) {
    let _ = match number % 6 {
        0 => Ok(()),
        1 => connection.write_all(b"GET /metrics HT"),
        2 => connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
        3 => connection.write_all(format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000)).as_bytes()),
        4 => connection
            .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n")
            .and_then(|()| connection.write_all("x".repeat(65_536).as_bytes())),
        _ => connection.write_all(b"\x16\x03\x01\x02\0\x01\0\xff\xfe\r\n\r\n"),
    };
}

/// What nobody may read in a log.
const TOKEN: &str = "secret-token-of-the-service-account";
const UID: &str = "00000000-0000-4000-8000-00000000ffff";

/// The API refuses the token, then takes it; all the while the agent logs as much as it can.
fn no_secret_in_the_log() {
    let session = Session::open();
    let server = Refusing::start();
    let folder = tempfile::tempdir().expect("a directory");
    let kubeconfig = folder.path().join("config");
    // Never shown, but a client wants one, and a guest has none of its own.
    let authority = folder.path().join("ca.crt");
    let shown = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate is made");
    fs::write(&authority, shown.cert.pem()).expect("it is written");
    fs::write(&kubeconfig, server.kubeconfig(&authority)).expect("it is written");
    let id = "d".repeat(64);
    symlink(format!("/var/log/pods/shop_cart_{UID}/app/0.log"), folder.path().join(format!("cart_shop_app-{id}.log")))
        .expect("the link is made");
    let links = folder.path().to_str().expect("the path is text");
    let arguments = ["--kubernetes-enrichment=true", "--kubernetes-events=true", "--container-log-dir", links];
    let environment = [("KUBECONFIG", &*format!("{links}/config")), ("RUST_LOG", "trace")];
    let watcher = Watcher::start_with_environment(&arguments, &environment);
    let node = Cgroup::new("node");
    let kubepods = node.child("kubepods");
    let pod = kubepods.child(format!("pod{UID}"));
    let container = pod.child(&id);
    container.limit(LIMIT);
    let mut hog = Hog::start(&container, &["anon", TOO_MUCH]);
    hog.go();
    hog.must_be_killed();
    for event in [watcher.exactly(1).remove(0), session.exactly(1).remove(0)] {
        assert_eq!(number(&event, "/victim/tgid"), u64::from(hog.pid()));
    }
    // Twice refused, asked again; then the Event.
    server.wait_for(4);
    let log = watcher.stop_for_log();
    assert!(log.iter().any(|line| line.contains(" TRACE ")), "it logs what it can: {log:#?}");
    let told: Vec<&String> = log.iter().filter(|line| line.contains(TOKEN)).collect();
    assert!(told.is_empty(), "{told:#?}");
}

/// An API server that does not know the token at first.
struct Refusing {
    port: u16,
    /// What each request had for its authorization.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Refusing {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut authorization = String::new();
                for line in BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                    if line.to_ascii_lowercase().starts_with("authorization:") {
                        authorization = line;
                    }
                }
                let mut asked = log.lock().expect("nobody panics with it");
                asked.push(authorization);
                let status = if asked.len() <= 2 { "401 Unauthorized" } else { "403 Forbidden" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
                let _ = (&stream).write_all(answer.as_bytes());
            }
        });
        Self { port, asked }
    }

    fn kubeconfig(&self, authority: &Path) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             clusters: [{{ name: a, cluster: {{ server: 'http://127.0.0.1:{}', certificate-authority: '{}' }} }}]\n\
             contexts: [{{ name: a, context: {{ cluster: a, user: a }} }}]\n\
             users: [{{ name: a, user: {{ token: {TOKEN} }} }}]\n",
            self.port,
            authority.display()
        )
    }

    /// Waits until it was asked so often, each time with the token.
    #[track_caller]
    fn wait_for(&self, requests: usize) {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let asked = self.asked.lock().expect("nobody panics with it").clone();
            assert!(asked.iter().all(|line| line.ends_with(TOKEN)), "{asked:?}");
            if asked.len() >= requests {
                return;
            }
            assert!(Instant::now() < deadline, "{} requests of {requests}", asked.len());
            thread::sleep(Duration::from_millis(20));
        }
    }
}
