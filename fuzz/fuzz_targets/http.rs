//! No bytes on a connection, however they are cut, stop the server or keep it from answering the next client.
//!
//! The input is what a client sends, in two writes cut at the first NUL. A proper request follows on a connection of its own, and
//! must be answered.
#![no_main]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use oom_watcher::{
    config::MetricsConfig,
    exposition::Exposition,
    health::Health,
    http::{Pages, bind, serve},
    sinks::metrics::KillMetrics,
    telemetry::Telemetry,
};

/// One server for the whole run, as in the agent.
static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let listener = bind(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), 0).expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(serve(listener, pages(), std::future::pending::<()>())).expect("the server ends never");
    });
    address
});

fn pages() -> Arc<Pages> {
    let config = MetricsConfig {
        address: None,
        port: 0,
        zero_series: true,
        max_series: 1000,
        series_retention: Duration::from_secs(3600),
    };
    let telemetry = Arc::new(Telemetry::new());
    let metrics = Arc::new(KillMetrics::new(&config, Arc::clone(&telemetry)));
    let exposition = Exposition::new("worker-1", metrics, Arc::clone(&telemetry));
    Arc::new(Pages::new(exposition, Arc::new(Health::new(Instant::now())), telemetry))
}

fuzz_target!(|data: &[u8]| {
    let cut = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    let (first, second) = data.split_at(cut);
    if let Ok(mut stream) = TcpStream::connect(*SERVER) {
        // The server may have hung up by now, as it should upon nonsense.
        let sent = stream.write_all(first).and_then(|()| stream.write_all(second));
        drop(sent.and_then(|()| stream.shutdown(Shutdown::Write)));
        drop(stream.read_to_end(&mut Vec::new()));
    }
    let answer = get_livez().expect("the next client is served");
    assert!(answer.starts_with("HTTP/1.1 "), "{answer:?}");
});

fn get_livez() -> std::io::Result<String> {
    let mut stream = TcpStream::connect(*SERVER)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
