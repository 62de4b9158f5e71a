//! What a kill asks of the Kubernetes API: the agent against a server that answers everything, with kills in one container at
//! rates from one alone to a storm.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    Programs,
    agent::Watcher,
    kills::{self, Cgroup},
};

/// Kills, and the pause between two of them: one, some a minute apart in kind, a container that is killed all the time.
const CASES: [(u64, Duration); 3] =
    [(1, Duration::ZERO), (10, Duration::from_secs(1)), (60, Duration::from_millis(100))];
/// After the last kill, until nothing more is asked: changes of one Event are ten seconds apart.
const SETTLED: Duration = Duration::from_secs(12);
/// What each request about the kills of the bench has in it: the name of their pod.
const OWN: &str = "web-0";
/// The pod of the kills.
const POD: &str = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"web-0\",\"namespace\":\"shop\",\
    \"uid\":\"0b5e55ed-0000-4000-8000-000000000000\"},\"spec\":{\"nodeName\":\"bench\",\"containers\":[{\"name\":\"app\"}]}}";

/// Method and bytes of each request.
type Asked = Arc<Mutex<Vec<(String, usize)>>>;

/// Every case with an agent of its own.
pub(super) fn measure(programs: &Programs) -> Result<Value> {
    CASES.iter().map(|&(count, pause)| case(programs, count, pause)).collect()
}

fn case(programs: &Programs, count: u64, pause: Duration) -> Result<Value> {
    let asked = Asked::default();
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
    let address = listener.local_addr()?;
    let log = Arc::clone(&asked);
    thread::spawn(move || serve(&listener, &log));
    let links = kills::links(0)?;
    let kubeconfig = links.with_file_name("kubeconfig");
    write_kubeconfig(&kubeconfig, &address.to_string())?;
    let links = links.display().to_string();
    let api = ["--kubernetes-enrichment", "true", "--kubernetes-events", "true", "--container-log-dir", &links];
    let agent = Watcher::agent_with(&programs.agent, None, &api, &[("KUBECONFIG", &kubeconfig)])?;
    let cgroup = Cgroup::new()?;
    let started = Instant::now();
    for _ in 0..count {
        cgroup.kill(0)?;
        agent.latency_ms()?;
        thread::sleep(pause);
    }
    let took = started.elapsed();
    thread::sleep(SETTLED);
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    let of = |method: &str| asked.iter().filter(|(name, _)| name == method).count();
    Ok(json!({
        "kills": count,
        "seconds": took.as_secs_f64(),
        "get": of("GET"),
        "post": of("POST"),
        "patch": of("PATCH"),
        "request_bytes": asked.iter().map(|(_, bytes)| bytes).sum::<usize>(),
    }))
}

/// Tells an agent where the API is.
pub(super) fn write_kubeconfig(file: &Path, address: &str) -> Result<()> {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: bench\n\
         clusters: [{{ name: bench, cluster: {{ server: 'http://{address}' }} }}]\n\
         contexts: [{{ name: bench, context: {{ cluster: bench, user: bench }} }}]\n\
         users: [{{ name: bench, user: {{}} }}]\n"
    );
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Answers until the bench ends.
fn serve(listener: &TcpListener, asked: &Asked) {
    for stream in listener.incoming().map_while(Result::ok) {
        let asked = Arc::clone(asked);
        thread::spawn(move || {
            // The end of a connection is the agent's.
            let _ = answer_all(&stream, &asked);
        });
    }
}

/// One request after the other: the pod where it is asked for, and to whoever writes what was written.
fn answer_all(stream: &TcpStream, asked: &Asked) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let (mut bytes, mut length) = (first.len(), 0);
        loop {
            let mut header = String::new();
            bytes += reader.read_line(&mut header)?;
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let method = first.split(' ').next().unwrap_or_default().to_owned();
        let answer = if method == "GET" { POD.as_bytes() } else { &body };
        // Other kills of the machine may be in pods, too.
        if first.contains(OWN) || String::from_utf8_lossy(&body).contains(OWN) {
            asked.lock().unwrap_or_else(PoisonError::into_inner).push((method, bytes + length));
        }
        let mut stream = stream;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        )?;
        stream.write_all(answer)?;
    }
}
