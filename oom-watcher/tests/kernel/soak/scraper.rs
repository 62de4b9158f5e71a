//! A scraper that reads every few seconds, and one that asks and never reads.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

const EVERY: Duration = Duration::from_secs(5);

/// Both, until dropped.
pub(super) struct Scraper {
    stop: Arc<AtomicBool>,
    scrapes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Scraper {
    pub(super) fn start(port: u16) -> Self {
        let (stop, scrapes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&scrapes));
        let thread = thread::spawn(move || {
            let mut stuck = None;
            while !stopped.load(Ordering::Relaxed) {
                // The one before it is closed by this, or was by the server.
                let _ = stuck.insert(ask(port));
                let page = read(ask(port));
                assert!(page.contains("oom_kills_per_node_total"), "not the page: {page}");
                count.fetch_add(1, Ordering::Relaxed);
                thread::park_timeout(EVERY);
            }
        });
        Self { stop, scrapes, thread: Some(thread) }
    }

    /// Pages read; a scrape that failed has ended the thread, which shows here.
    pub(super) fn scrapes(&self) -> u64 {
        assert!(!self.thread.as_ref().is_some_and(JoinHandle::is_finished), "a scrape failed");
        self.scrapes.load(Ordering::Relaxed)
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn ask(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the watcher listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: soak\r\n\r\n").expect("it takes the request");
    stream
}

fn read(mut stream: TcpStream) -> String {
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("it answers");
    page
}
