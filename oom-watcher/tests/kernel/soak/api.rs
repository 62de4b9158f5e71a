//! An API server that is well for a while, and then fails in one way after another.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long it stays as it is.
const PHASE: Duration = Duration::from_secs(20);
/// How it is, one after another.
const PHASES: [Phase; 6] = [Phase::Well, Phase::Failing, Phase::Well, Phase::Throttling, Phase::Silent, Phase::Garbage];

#[derive(Clone, Copy)]
enum Phase {
    Well,
    Failing,
    Throttling,
    Silent,
    Garbage,
}

/// The server; it ends with the process.
pub(super) struct Api {
    port: u16,
    requests: Arc<AtomicU64>,
}

impl Api {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let requests = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&requests);
        let begun = Instant::now();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let count = Arc::clone(&count);
                thread::spawn(move || serve(stream, begun, &count));
            }
        });
        Self { port, requests }
    }

    /// How the watcher finds it.
    pub(super) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: soak\n\
             clusters: [{{ name: soak, cluster: {{ server: 'http://127.0.0.1:{}' }} }}]\n\
             contexts: [{{ name: soak, context: {{ cluster: soak, user: soak }} }}]\n\
             users: [{{ name: soak, user: {{}} }}]\n",
            self.port
        )
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// One connection; it ends when the client or the phase wants it.
fn serve(stream: TcpStream, begun: Instant, requests: &AtomicU64) {
    let Ok(mut output) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    while let Some(line) = request(&mut input) {
        requests.fetch_add(1, Ordering::Relaxed);
        let phase = PHASES[(begun.elapsed().as_secs() / PHASE.as_secs()) as usize % PHASES.len()];
        let answer = match phase {
            Phase::Well => well(&line),
            Phase::Failing => answer(
                "500 Internal Server Error",
                "",
                r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":500}"#,
            ),
            Phase::Throttling => answer(
                "429 Too Many Requests",
                "retry-after: 1\r\n",
                r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":429}"#,
            ),
            Phase::Silent => {
                thread::sleep(Duration::from_secs(5));
                return;
            }
            Phase::Garbage => answer("200 OK", "", "}{ not JSON \u{1b}[2J"),
        };
        if output.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The first line of the next request; its body is read and forgotten.
fn request(input: &mut BufReader<TcpStream>) -> Option<String> {
    let mut first = String::new();
    input.read_line(&mut first).ok().filter(|&read| read > 0)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok().filter(|&read| read > 0)?;
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    input.read_exact(&mut vec![0; length]).ok()?;
    Some(first)
}

fn well(line: &str) -> String {
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if method != "GET" {
        return answer(
            "201 Created",
            "",
            r#"{"kind":"Event","apiVersion":"events.k8s.io/v1","metadata":{"name":"e","namespace":"soak"},"eventTime":"2026-01-01T00:00:00.000000Z"}"#,
        );
    }
    // The pods of the soak are named pod-NUMBER, and their UIDs end with it.
    let name = path.rsplit('/').next().unwrap_or_default();
    let number: u64 = name.strip_prefix("pod-").and_then(|number| number.parse().ok()).unwrap_or(0);
    let pod = format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"soak","uid":"00000000-0000-4000-8000-{number:012x}"}},"spec":{{"containers":[{{"name":"app","image":"soak:1"}}]}}}}"#
    );
    answer("200 OK", "", &pod)
}

fn answer(status: &str, header: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{header}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}
