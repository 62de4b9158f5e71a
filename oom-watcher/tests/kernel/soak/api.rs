//! An API server that is well for a while, and then fails in one way after another; it keeps books of the Events that it took
//! and of those that it refused.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::phase::{Phase, Schedule};

/// How often the listener looks whether it should be there.
const LOOK: Duration = Duration::from_millis(20);

/// The server; it ends with the process.
pub(super) struct Api {
    port: u16,
    books: Arc<Mutex<Books>>,
}

/// What it knows at the end.
#[derive(Clone, Default)]
pub(super) struct Books {
    /// Requests by the phase that they came in.
    pub(super) requests: BTreeMap<&'static str, u64>,
    /// Incidents that each Event tells of.
    events: BTreeMap<String, u64>,
    /// Incidents that an Event was refused for, for good.
    pub(super) refused: u64,
}

impl Books {
    /// Events, and the incidents that they tell of.
    pub(super) fn told(&self) -> (usize, u64) {
        (self.events.len(), self.events.values().sum())
    }
}

impl Api {
    pub(super) fn start(schedule: &Arc<Schedule>) -> Self {
        let listener = listen(0);
        let port = listener.local_addr().expect("it is bound").port();
        let books: Arc<Mutex<Books>> = Arc::default();
        let (schedule, shared) = (Arc::clone(schedule), Arc::clone(&books));
        thread::spawn(move || accept(listener, port, &schedule, &shared));
        Self { port, books }
    }

    /// How the watcher finds it.
    pub(super) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: soak\n\
             clusters: [{{ name: soak, cluster: {{ server: 'http://127.0.0.1:{}' }} }}]\n\
             contexts: [{{ name: soak, context: {{ cluster: soak, user: soak }} }}]\n\
             users: [{{ name: soak, user: {{ token: soak }} }}]\n",
            self.port
        )
    }

    /// The books as they are.
    pub(super) fn books(&self) -> Books {
        locked(&self.books).clone()
    }
}

fn locked(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(port: u16) -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("loopback has the port");
    listener.set_nonblocking(true).expect("it can be told not to wait");
    listener
}

/// Accepts while somebody should be there to be reached.
fn accept(listener: TcpListener, port: u16, schedule: &Arc<Schedule>, books: &Arc<Mutex<Books>>) {
    let mut listener = Some(listener);
    loop {
        if schedule.phase() == Phase::Closed {
            listener = None;
            thread::sleep(LOOK);
            continue;
        }
        match listener.get_or_insert_with(|| listen(port)).accept() {
            Ok((stream, _)) => {
                let (schedule, books) = (Arc::clone(schedule), Arc::clone(books));
                thread::spawn(move || serve(stream, &schedule, &books));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
            Err(error) => panic!("the API cannot accept: {error}"),
        }
    }
}

/// One connection; it ends when the client or the phase wants it.
fn serve(stream: TcpStream, schedule: &Schedule, books: &Mutex<Books>) {
    let Ok(mut output) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    while let Some((line, body)) = request(&mut input) {
        let phase = schedule.phase();
        *locked(books).requests.entry(phase.name()).or_default() += 1;
        let answer = match phase {
            Phase::Well => well(&line, &body, books),
            Phase::Garbage => {
                well(&line, &body, books);
                answer("200 OK", "", "}{ not JSON \u{1b}[2J")
            }
            Phase::Forbidding => refusal("403 Forbidden", 403, &line, &body, books),
            Phase::Gone => refusal("410 Gone", 410, &line, &body, books),
            Phase::Failing => failure("500 Internal Server Error", "", 500),
            Phase::Unauthorized => failure("401 Unauthorized", "", 401),
            Phase::Throttling => failure("429 Too Many Requests", "retry-after: 1\r\n", 429),
            Phase::Silent => {
                thread::sleep(Duration::from_secs(5));
                return;
            }
            Phase::Closed => return,
        };
        if output.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The first line of the next request, and its body.
fn request(input: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
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
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    Some((first, serde_json::from_slice(&body).unwrap_or_default()))
}

/// The Event that a request writes, and how many incidents it tells of then.
fn event(line: &str, body: &Value) -> Option<(String, u64)> {
    let count = body["series"]["count"].as_u64();
    match method_and_name(line) {
        ("POST", _) => Some((body["metadata"]["name"].as_str()?.to_owned(), count.unwrap_or(1))),
        ("PATCH", name) => Some((name.to_owned(), count?)),
        _ => None,
    }
}

/// The method, and what the path ends with.
fn method_and_name(line: &str) -> (&str, &str) {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    (method, path.rsplit('/').next().unwrap_or_default())
}

fn well(line: &str, body: &Value, books: &Mutex<Books>) -> String {
    if let Some((name, count)) = event(line, body) {
        let mut books = locked(books);
        let known = books.events.contains_key(&name);
        if line.starts_with("POST ") == known {
            // It is there already, or it is not: as an API server says it.
            return if known { failure("409 Conflict", "", 409) } else { failure("404 Not Found", "", 404) };
        }
        books.events.insert(name, count);
        return answer("201 Created", "", &body.to_string());
    }
    let (_, name) = method_and_name(line);
    if name == "pods" {
        return answer(
            "200 OK",
            "",
            r#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","items":[]}"#,
        );
    }
    // The pods of the soak are named pod-NUMBER, and their UIDs end with it.
    let number: u64 = name.strip_prefix("pod-").and_then(|number| number.parse().ok()).unwrap_or(0);
    let pod = format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"soak","uid":"00000000-0000-4000-8000-{number:012x}"}},"spec":{{"containers":[{{"name":"app","image":"soak:1"}}]}}}}"#
    );
    answer("200 OK", "", &pod)
}

/// A refusal for good: what an Event was to tell of is told by nobody. (One that is gone is made anew, so raising it is not.)
fn refusal(status: &str, code: u16, line: &str, body: &Value, books: &Mutex<Books>) -> String {
    if let Some((name, count)) = event(line, body) {
        let mut books = locked(books);
        let told = books.events.get(&name).copied().unwrap_or_default();
        if code == 403 || line.starts_with("POST ") {
            books.refused += count - told;
        }
    }
    failure(status, "", code)
}

fn failure(status: &str, header: &str, code: u16) -> String {
    let body = format!(r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","code":{code}}}"#);
    answer(status, header, &body)
}

fn answer(status: &str, header: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{header}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}
