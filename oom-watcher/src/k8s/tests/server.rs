//! An API server by script, on loopback: what is asked is recorded, what is answered is the test's choice.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) at: Instant,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) accept: String,
    pub(super) content_type: String,
    pub(super) authorization: String,
    pub(super) body: Value,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    status: u16,
    retry_after: Option<&'static str>,
    body: String,
    delay: Duration,
}

impl Reply {
    pub(super) fn ok(body: &Value) -> Self {
        Self::text(200, &body.to_string())
    }

    /// An error as an API server words it.
    pub(super) fn status(status: u16) -> Self {
        let body = serde_json::json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status });
        Self::text(status, &body.to_string())
    }

    pub(super) fn text(status: u16, body: &str) -> Self {
        Self { status, retry_after: None, body: body.to_owned(), delay: Duration::ZERO }
    }

    pub(super) fn retry_after(self, seconds: &'static str) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(super) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

type Script = dyn Fn(usize, &Asked) -> Reply + Send + Sync;

/// A server that answers by its script, which is told how many requests came before.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    script: Arc<Script>,
    tls: Option<TlsAcceptor>,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(script: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, script)
    }

    /// With TLS, if `tls` is given.
    pub(super) fn start_with(
        tls: Option<TlsAcceptor>,
        script: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { address: any, script: Arc::new(script), tls, asked: Arc::default(), task: None };
        server.listen();
        server
    }

    /// Listens, again where it listened before.
    pub(super) fn listen(&mut self) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let listener = socket.listen(16).unwrap();
        self.address = listener.local_addr().unwrap();
        let (script, asked) = (Arc::clone(&self.script), Arc::clone(&self.asked));
        self.task = Some(tokio::spawn(accept(listener, self.tls.clone(), script, asked)));
    }

    /// Nobody listens any more, and every connection is gone.
    pub(super) async fn vanish(&mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        drop(task.await);
    }

    pub(super) fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Method and target of each request.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(|asked| format!("{} {}", asked.method, asked.target)).collect()
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, script: Arc<Script>, log: Arc<Mutex<Vec<Asked>>>) {
    // Dropped with this task, and its connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, script, log) = (tls.clone(), Arc::clone(&script), Arc::clone(&log));
        connections.spawn(async move {
            match tls {
                None => serve(stream, script, log).await,
                // A client that does not trust the certificate ends the handshake.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, script, log).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, script: Arc<Script>, log: Arc<Mutex<Vec<Asked>>>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&script), Arc::clone(&log)));
    // A client that gives up is part of the tests.
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn answer(
    request: Request<Incoming>,
    script: Arc<Script>,
    log: Arc<Mutex<Vec<Asked>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let header = |name| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let mut asked = Asked {
        at: Instant::now(),
        method: request.method().to_string(),
        target: request.uri().to_string(),
        accept: header(http::header::ACCEPT),
        content_type: header(http::header::CONTENT_TYPE),
        authorization: header(http::header::AUTHORIZATION),
        body: Value::Null,
    };
    let body = request.into_body().collect().await?.to_bytes();
    asked.body = serde_json::from_slice(&body).unwrap_or_default();
    let before = {
        let mut log = log.lock().unwrap();
        log.push(asked.clone());
        log.len() - 1
    };
    let reply = script(before, &asked);
    tokio::time::sleep(reply.delay).await;
    let mut response = Response::builder().status(reply.status);
    if let Some(seconds) = reply.retry_after {
        response = response.header(http::header::RETRY_AFTER, seconds);
    }
    Ok(response.body(Full::from(reply.body)).unwrap())
}
