//! Accepting, answering, and turning away.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
};
use tracing::{debug, warn};

use crate::{
    exposition::{self, Exposition},
    health::Health,
    telemetry::{HttpRejection, Telemetry, events::HttpClientRejected},
};

/// Connections at once: a scraper or two, the probes, a person. When one more comes, the oldest is closed: a probe that is
/// answered within a millisecond gets through between any number of idle clients.
const CONNECTIONS_MAX: usize = 64;
/// `/metrics` pages being sent at once. A page of 5,000 series has 0.6 MB and takes 1.5 ms to write (measured).
const SCRAPES_MAX: usize = 4;
/// From accept to the last byte of the answer.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// For the head of the request.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// The head of a request in bytes: the least that hyper allows, and four times what a browser sends.
const HEADER_BYTES_MAX: usize = 8192;
/// Its header lines.
const HEADERS_MAX: usize = 64;
/// Pause after a failed accept (no file descriptor left, say): what holds them needs time to let go.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long answers under way may take once the server is to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const INDEX: &str = "oom-watcher\n\n/metrics  what was killed, and how the watcher itself is\n\
                     /livez    whether the reader of the kernel's events makes progress\n\
                     /readyz   whether every kill is seen, and what is missing if not\n";

/// What the server shows.
#[derive(Debug)]
pub struct Pages {
    exposition: Exposition,
    health: Arc<Health>,
    telemetry: Arc<Telemetry>,
    scrapes: Arc<Semaphore>,
}

impl Pages {
    /// `/metrics` is `exposition`, `/livez` and `/readyz` are `health`.
    pub fn new(exposition: Exposition, health: Arc<Health>, telemetry: Arc<Telemetry>) -> Self {
        Self { exposition, health, telemetry, scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)) }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/metrics" => self.metrics(),
            "/livez" => verdict(self.health.not_live_because(Instant::now()).as_slice()),
            "/readyz" => verdict(&self.health.not_ready_because(Instant::now())),
            "/" => text(StatusCode::OK, INDEX),
            _ => text(StatusCode::NOT_FOUND, "no such page; see /\n"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let Ok(permit) = Arc::clone(&self.scrapes).try_acquire_owned() else {
            HttpClientRejected { reason: HttpRejection::TooManyScrapes }.emit(&self.telemetry);
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once\n");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        };
        match self.exposition.render() {
            Ok(page) => {
                let body = Bytes::from_owner(PermittedPage { page, _permit: permit });
                respond(StatusCode::OK, HeaderValue::from_static(exposition::CONTENT_TYPE), body)
            }
            Err(error) => {
                warn!(%error, "Cannot write the metrics page");
                text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the metrics page\n")
            }
        }
    }
}

/// A page whose place among the scrapes is free again when its last byte is sent or its client is gone.
struct PermittedPage {
    page: String,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for PermittedPage {
    fn as_ref(&self) -> &[u8] {
        self.page.as_bytes()
    }
}

fn verdict(reasons: &[String]) -> Response<Full<Bytes>> {
    if reasons.is_empty() {
        text(StatusCode::OK, "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, TEXT, body.into())
}

fn respond(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Serves until `shutdown` resolves, then lets answers under way end. An error is one of taking over the listener, before
/// anything is served.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut connections = Connections::default();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.add(stream, &pages).await,
                Err(error) => {
                    warn!(%error, "Cannot accept an HTTP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    connections.end().await;
    Ok(())
}

/// The connections being served.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
}

impl Connections {
    async fn add(&mut self, stream: TcpStream, pages: &Arc<Pages>) {
        self.oldest_first.retain(|connection| !connection.is_finished());
        if self.oldest_first.len() >= CONNECTIONS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
            HttpClientRejected { reason: HttpRejection::TooManyConnections }.emit(&pages.telemetry);
        }
        let task = self.tasks.spawn(serve_connection(stream, Arc::clone(pages)));
        self.oldest_first.push_back(task);
        // The new connection gets a turn before the next is accepted, however many wait.
        tokio::task::yield_now().await;
    }

    async fn end(mut self) {
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        // What has not ended by then is aborted with the set.
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, all_ended).await;
    }
}

/// One request, one answer, one deadline for both.
async fn serve_connection(stream: TcpStream, pages: Arc<Pages>) {
    let answer = service_fn(|request: Request<Incoming>| {
        let response = pages.answer(request.method(), request.uri().path());
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    match tokio::time::timeout(CONNECTION_DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if !error.is_timeout() => debug!(%error, "An HTTP connection ended early"),
        Ok(Err(_)) | Err(_) => HttpClientRejected { reason: HttpRejection::Timeout }.emit(&pages.telemetry),
    }
}
