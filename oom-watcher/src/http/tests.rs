//! Against real sockets: what a client sees, and that none can hold the server.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::*;
use crate::{
    config::MetricsConfig,
    exposition::Exposition,
    health::Health,
    sinks::{
        metrics::{ContainerLabels, KillMetrics},
        samples::full,
    },
    telemetry::Telemetry,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// More than any answer takes, less than any deadline of the server.
const PROMPT: Duration = Duration::from_secs(3);

/// A server in a thread of its own, with what it shows.
struct Server {
    address: SocketAddr,
    health: Arc<Health>,
    metrics: Arc<KillMetrics>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        Self::start_with(Health::new(Instant::now()))
    }

    fn start_with(health: Health) -> Self {
        let config = MetricsConfig {
            address: None,
            port: 0,
            zero_series: true,
            max_series: 100_000,
            series_retention: Duration::from_hours(1),
        };
        let telemetry = Arc::new(Telemetry::new());
        let metrics = Arc::new(KillMetrics::new(&config, Arc::clone(&telemetry)));
        let health = Arc::new(health);
        let exposition = Exposition::new("worker-1", Arc::clone(&metrics), Arc::clone(&telemetry));
        let pages = Arc::new(Pages::new(exposition, Arc::clone(&health), telemetry));
        let listener = bind(Some(LOOPBACK), 0).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, pages, async { drop(stopped.await) })).unwrap();
        });
        Self { address, health, metrics, stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Sends `request`, and reads to the end.
    fn send(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    /// The value of a sample of `/metrics`.
    fn sample(&self, name: &str) -> u64 {
        let page = self.get("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        line.trim().parse().unwrap()
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

#[track_caller]
fn check(answer: &str, status: &str, content_type: &str, body: &str) {
    let (head, shown) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
    assert!(head.contains(&format!("\r\ncontent-type: {content_type}\r\n")), "{head}");
    assert_eq!(shown, body);
}

const TEXT: &str = "text/plain; charset=utf-8";

#[test]
fn metrics_are_openmetrics() {
    let server = Server::start();
    server.metrics.observe(&full(), Instant::now());
    let answer = server.get("/metrics");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let content_type = "\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(head.contains(content_type), "{head}");
    assert!(page.contains("\noom_kills_per_node_total{node=\"worker-1\"} 1\n"), "{page}");
    assert!(page.contains("\noom_watcher_http_rejected_total{reason=\"timeout\"} 0\n"), "{page}");
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn readiness_says_what_is_missing() {
    let server = Server::start();
    let both = "no hook is attached that sees the victims\nthe index of container names has not been filled yet\n";
    check(&server.get("/readyz"), "503 Service Unavailable", TEXT, both);
    check(&server.get("/livez"), "200 OK", TEXT, "ok\n");
    server.health.set_attached();
    server.health.set_names_known();
    check(&server.get("/readyz"), "200 OK", TEXT, "ok\n");
}

#[test]
fn a_silent_reader_is_not_alive() {
    let server = Server::start_with(Health::new(Instant::now().checked_sub(Duration::from_mins(1)).unwrap()));
    let answer = server.get("/livez");
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\r\n\r\nthe reader of the ring buffer has made no progress for 6"), "{answer}");
    server.health.reader_beat(Instant::now());
    check(&server.get("/livez"), "200 OK", TEXT, "ok\n");
}

#[test]
fn other_paths_and_methods_are_refused() {
    let server = Server::start();
    check(&server.get("/nope"), "404 Not Found", TEXT, "no such page; see /\n");
    check(&server.get("/metrics/../secret"), "404 Not Found", TEXT, "no such page; see /\n");
    assert!(server.get("/metrics?x=1").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(server.get("/").contains("/readyz"));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
        let target = if method == "CONNECT" { "x:1" } else { "/metrics" };
        let answer = server.send(&format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        check(&answer, "405 Method Not Allowed", TEXT, "only GET and HEAD\n");
        assert!(answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
    }
    let head = server.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn a_body_is_not_read() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\nabc").unwrap();
    let mut answer = String::new();
    let began = Instant::now();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(began.elapsed() < PROMPT);
}

#[test]
fn what_is_no_request_is_refused() {
    let server = Server::start();
    assert!(server.send("\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert!(server.send("GET /metrics HTTP/9.9\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let many = "a: b\r\n".repeat(100);
    let answer = server.send(&format!("GET / HTTP/1.1\r\n{many}\r\n"));
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn a_huge_head_is_refused() {
    let server = Server::start();
    for request in [
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1_000_000)),
        format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n", "a".repeat(1_000_000)),
    ] {
        let mut stream = server.connect();
        // The server answers and closes before all of it is written.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = [0; 12];
        let read = stream.read(&mut answer).unwrap_or(0);
        let shown = String::from_utf8_lossy(&answer[..read]);
        assert!(matches!(&*shown, "" | "HTTP/1.1 431" | "HTTP/1.1 414"), "{shown}");
    }
    check(&server.get("/livez"), "200 OK", TEXT, "ok\n");
}

#[test]
fn a_client_that_stalls_is_cut_off() {
    let server = Server::start();
    let mut silent = server.connect();
    let mut halfway = server.connect();
    halfway.write_all(b"GET /metrics HTTP/1.1\r\nHo").unwrap();
    let began = Instant::now();
    for client in [&mut silent, &mut halfway] {
        let mut rest = Vec::new();
        // A reset is as good an end as a close.
        let _ = client.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
    }
    assert!(began.elapsed() > Duration::from_secs(4) && began.elapsed() < Duration::from_secs(12));
    assert!(server.sample("oom_watcher_http_rejected_total{reason=\"timeout\"}") >= 1);
}

#[test]
fn clients_that_never_read_are_few_and_cut_off() {
    let server = Server::start();
    // A page of some megabytes, more than the sockets' buffers take.
    for container in 0..30_000 {
        server.metrics.appear(ContainerLabels::new("shop", &"p".repeat(200), &container.to_string()));
    }
    let stuck: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut client = server.connect();
            client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            client
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    let answer = server.get("/metrics");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"), "{}", &answer[..99]);
    check(&server.get("/livez"), "200 OK", TEXT, "ok\n");
    assert!(began.elapsed() < PROMPT);

    // After the deadline their places are free again.
    thread::sleep(Duration::from_secs(11));
    assert_eq!(server.sample("oom_watcher_http_rejected_total{reason=\"too_many_scrapes\"}"), 1);
    assert_eq!(server.sample("oom_watcher_http_rejected_total{reason=\"timeout\"}"), 4);
    drop(stuck);
}

#[test]
fn a_probe_gets_through_a_crowd() {
    let server = Server::start();
    let mut crowd: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
    let began = Instant::now();
    check(&server.get("/livez"), "200 OK", TEXT, "ok\n");
    assert!(began.elapsed() < PROMPT);
    // At most 64 of the crowd are still there.
    assert!(server.sample("oom_watcher_http_rejected_total{reason=\"too_many_connections\"}") >= 200 - 64);
    // The first of them was closed to let others in, long before a deadline of its own.
    let closed = crowd[0].read(&mut [0]);
    assert!(matches!(closed, Ok(0) | Err(_)) && began.elapsed() < PROMPT, "{closed:?} after {:?}", began.elapsed());
}

#[test]
fn it_stops_when_told_even_with_clients_that_stall() {
    let mut server = Server::start();
    let _silent = server.connect();
    check(&server.get("/livez"), "200 OK", TEXT, "ok\n");
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < PROMPT);
    assert!(TcpStream::connect(server.address).is_err(), "the port is closed");
}

#[test]
fn without_an_address_both_families_are_served() {
    let listener = bind(None, 0).unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    if listener.local_addr().unwrap().is_ipv6() {
        assert!(TcpStream::connect((std::net::Ipv6Addr::LOCALHOST, port)).is_ok());
    }
}

#[test]
fn a_port_or_address_that_cannot_be_had_is_named() {
    use std::error::Error;
    let holder = bind(Some(LOOPBACK), 0).unwrap();
    let port = holder.local_addr().unwrap().port();
    let error = bind(Some(LOOPBACK), port).unwrap_err();
    let expected = format!(
        "cannot listen on 127.0.0.1:{port}: another program has the port; choose one with --metrics-port (METRICS_PORT)"
    );
    assert_eq!(error.to_string(), expected);
    assert!(error.source().is_some());
    let error = bind(Some("192.0.2.1".parse().unwrap()), 0).unwrap_err().to_string();
    assert!(error.starts_with("cannot listen on 192.0.2.1:0: this machine has no such address;"), "{error}");
}
