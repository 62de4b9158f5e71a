//! A server that answers as the Kubernetes API does, at once, and counts what it is asked: for the agents of a made-up fleet, and,
//! as a command of its own, for the real agent.

use std::{
    fs,
    io::BufRead as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde::Serialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpSocket},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

/// Connections that are not accepted yet; the kernel's own limit is the same.
const BACKLOG: u32 = 4096;

/// How it is reached.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// With a certificate of an authority of its own, as every cluster's
    #[arg(long)]
    tls: bool,
}

/// One request, about pods of which namespace, and how long after the server's start.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) namespace: String,
    pub(crate) verb: String,
    pub(crate) bytes: usize,
    pub(crate) at: Duration,
}

/// It serves until the process ends.
pub(crate) struct Server {
    pub(crate) started: Instant,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

/// What was asked so far.
#[derive(Serialize)]
struct Counts {
    get: usize,
    post: usize,
    patch: usize,
    request_bytes: usize,
    /// Seconds since the last request; since the start, where there was none.
    quiet_seconds: f64,
}

/// Serves, and answers each line of standard input with what was asked so far about pods of the namespace that it names.
pub(crate) fn run(options: &Options) -> Result<()> {
    let server = Server::start(options.tls)?;
    for namespace in std::io::stdin().lock().lines() {
        crate::print(&server.counts(&namespace.context("cannot read standard input")?))?;
    }
    Ok(())
}

impl Server {
    /// Starts it, and writes to the file that `KUBECONFIG` names how it is reached.
    pub(crate) fn start(tls: bool) -> Result<Self> {
        let file = PathBuf::from(std::env::var_os("KUBECONFIG").context("KUBECONFIG names no file to write")?);
        let server = Self { started: Instant::now(), asked: Arc::default() };
        let (started, asked) = (server.started, Arc::clone(&server.asked));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            let socket = TcpSocket::new_v4().context("cannot make a socket")?;
            socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).context("cannot take a port")?;
            // Thousands of agents may connect within a second.
            socket.listen(BACKLOG).context("cannot listen")?
        };
        let address = listener.local_addr()?;
        let authority = file.with_file_name("ca.crt");
        let acceptor = if tls { Some(acceptor(&authority)?) } else { None };
        thread::spawn(move || runtime.block_on(accept(listener, acceptor, started, asked)));
        let mut cluster = json!({ "server": format!("{}://{address}", if tls { "https" } else { "http" }) });
        if tls {
            cluster["certificate-authority"] = json!(authority);
        }
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{ "name": "bench", "cluster": cluster }],
            "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": "bench" } }],
            "users": [{ "name": "bench", "user": {} }],
        });
        fs::write(&file, text.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(server)
    }

    fn counts(&self, namespace: &str) -> Counts {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let own = || asked.iter().filter(|one| one.namespace == namespace);
        let of = |verb| own().filter(|one| one.verb == verb).count();
        let last = own().map(|one| one.at).max().unwrap_or_default();
        Counts {
            get: of("GET"),
            post: of("POST"),
            patch: of("PATCH"),
            request_bytes: own().map(|one| one.bytes).sum(),
            quiet_seconds: self.started.elapsed().saturating_sub(last).as_secs_f64(),
        }
    }
}

/// A certificate for this machine, by an authority that is written to `authority`.
fn acceptor(authority: &Path) -> Result<TlsAcceptor> {
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(authority, issuer.pem()).with_context(|| format!("cannot write {}", authority.display()))?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth();
    Ok(TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate.der().clone()], key)?)))
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, started: Instant, asked: Arc<Mutex<Vec<Asked>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (asked, acceptor) = (Arc::clone(&asked), acceptor.clone());
        // The end of a connection is its agent's.
        tokio::spawn(async move {
            match acceptor {
                None => answer_all(stream, started, &asked).await,
                Some(acceptor) => answer_all(acceptor.accept(stream).await?, started, &asked).await,
            }
        });
    }
}

/// One request after the other, until the client goes.
async fn answer_all<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    started: Instant,
    asked: &Mutex<Vec<Asked>>,
) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        let (mut bytes, mut length) = (first.len(), 0);
        loop {
            let mut header = String::new();
            bytes += stream.read_line(&mut header).await?;
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let mut words = first.split([' ', '?']);
        let (verb, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut parts = path.split('/').skip_while(|part| *part != "namespaces").skip(1);
        let namespace = parts.next().unwrap_or_default();
        let answer = match (verb, parts.nth(1)) {
            ("GET", Some(pod)) => pod_of(namespace, pod).into_bytes(),
            // To whoever writes, what was written.
            _ => body,
        };
        let one = Asked {
            namespace: namespace.to_owned(),
            verb: verb.to_owned(),
            bytes: bytes + length,
            at: started.elapsed(),
        };
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        let length = answer.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), &answer].concat()).await?;
        stream.flush().await?;
    }
}

/// UID of pod `number`, as cgroup paths have it.
pub(crate) fn pod_uid(number: u64) -> String {
    format!("0b5e55ed-0000-4000-8000-{number:012}")
}

/// The pod of that name, which ends with its number.
fn pod_of(namespace: &str, pod: &str) -> String {
    let number = pod.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": pod, "namespace": namespace, "uid": pod_uid(number) },
        "spec": { "containers": [{ "name": "app" }] },
    })
    .to_string()
}
