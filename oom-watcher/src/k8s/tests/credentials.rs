//! Who the server is and who the agent is: TLS with the cluster's own authority, and the token of a service account.

use std::{fs, path::PathBuf};

use kube::config::AuthInfo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use super::*;

/// A cluster's authority, with what a pod finds in the directory of its service account.
struct Account {
    authority: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Account {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.crt"), authority.pem()).unwrap();
        let account = Self { authority, directory };
        account.rotate("first");
        account
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The kubelet's way to a new token: nobody ever sees half of it.
    fn rotate(&self, token: &str) {
        fs::write(self.file("new"), token).unwrap();
        fs::rename(self.file("new"), self.file("token")).unwrap();
    }

    /// A server with a certificate of this authority.
    fn server(&self) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder().with_no_client_auth();
        TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap()))
    }

    /// As kube makes it of a service account.
    fn client(&self, server: &Server) -> Config {
        let token = self.file("token").to_str().unwrap().to_owned();
        let mut config = Config::new(server.url().parse().unwrap());
        config.root_cert = Some(vec![self.authority.der().to_vec()]);
        config.root_cert_file = Some(self.file("ca.crt"));
        config.auth_info = AuthInfo { token_file: Some(token), ..AuthInfo::default() };
        config
    }
}

/// Takes a token only while it is the one of `valid`.
fn guarded(valid: &Arc<Mutex<&'static str>>) -> impl Fn(usize, &server::Asked) -> Reply + Send + Sync + 'static {
    let valid = Arc::clone(valid);
    move |_, asked| {
        if asked.authorization != format!("Bearer {}", valid.lock().unwrap()) {
            return Reply::status(401);
        }
        if asked.method == "GET" { Reply::ok(&pod()) } else { Reply::ok(&asked.body) }
    }
}

#[test]
fn the_cluster_is_known_by_its_own_authority() {
    run(async {
        let account = Account::new();
        let valid = Arc::new(Mutex::new("first"));
        let server = Server::start_with(Some(account.server()), guarded(&valid));
        let agent = Agent::start_with(account.client(&server), quick(), true, true);
        agent.deliver(&full());
        eventually(|| agent.published().len() == 1).await;
        let telemetry = agent.close().await;
        check_events(&telemetry, &[(PodEventOutcome::Created, 1)]);
        assert_eq!(telemetry.requests(ApiVerb::Get, ApiOutcome::Unauthorized), 0);
    });
}

#[test]
fn a_token_that_was_rotated_costs_one_request() {
    run(async {
        let account = Account::new();
        let valid = Arc::new(Mutex::new("first"));
        let server = Server::start_with(Some(account.server()), guarded(&valid));
        let agent = Agent::start_with(account.client(&server), quick(), true, true);
        agent.deliver(&full());
        eventually(|| telemetry_has(&agent, PodEventOutcome::Created, 1)).await;
        // The old one is not only replaced: it is refused.
        account.rotate("second");
        *valid.lock().unwrap() = "second";
        agent.deliver(&kill_in(1));
        eventually(|| telemetry_has(&agent, PodEventOutcome::Created, 2)).await;
        let refused = server.asked().iter().filter(|asked| asked.authorization == "Bearer first").count();
        assert_eq!(refused, 3, "two that were right, one that was not: {:?}", server.lines());
        drop(agent.close().await);
    });
}

#[test]
fn a_refused_token_is_read_again_until_it_is_right() {
    run(async {
        let account = Account::new();
        let valid = Arc::new(Mutex::new("second"));
        let server = Server::start_with(Some(account.server()), guarded(&valid));
        let agent = Agent::start_with(account.client(&server), quick(), false, true);
        agent.deliver(&full());
        eventually(|| server.asked().len() >= 2).await;
        // Gone for a moment: the old one is kept, and refused again.
        fs::remove_file(account.file("token")).unwrap();
        let before = server.asked().len();
        eventually(|| server.asked().len() > before).await;
        account.rotate("second");
        eventually(|| telemetry_has(&agent, PodEventOutcome::Created, 1)).await;
        drop(agent.close().await);
    });
}

#[test]
fn a_server_of_another_authority_gets_no_token() {
    run(async {
        let (account, other) = (Account::new(), Account::new());
        let server = Server::start_with(Some(other.server()), |_, asked| Reply::ok(&asked.body));
        let agent = Agent::start_with(account.client(&server), quick(), true, true);
        agent.deliver(&full());
        let unreachable = || agent.telemetry.requests(ApiVerb::Get, ApiOutcome::Unreachable);
        eventually(|| unreachable() >= 2).await;
        assert_eq!(server.lines(), Vec::<String>::new());
        assert!(agent.published().is_empty());
    });
}

fn telemetry_has(agent: &Agent, outcome: PodEventOutcome, kills: u64) -> bool {
    agent.telemetry.count_pod_event(outcome, 0) == kills
}

/// All that anybody logs on this thread while `test` runs, at the most detailed level.
fn logged(test: impl Future<Output = ()>) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let writer = Mutex::new(file.reopen().unwrap());
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(writer);
    tracing::subscriber::with_default(log.finish(), || run(test));
    fs::read_to_string(file.path()).unwrap()
}

#[test]
fn no_token_is_in_the_log_whatever_becomes_of_it() {
    let log = logged(async {
        let account = Account::new();
        account.rotate("secret-token-one");
        let valid = Arc::new(Mutex::new("secret-token-two"));
        let server = Server::start_with(Some(account.server()), guarded(&valid));
        let agent = Agent::start_with(account.client(&server), quick(), true, true);
        agent.deliver(&full());
        // Refused; gone for a moment; then the right one; then an answer that nobody understands.
        eventually(|| agent.telemetry.requests(ApiVerb::Get, ApiOutcome::Unauthorized) >= 2).await;
        fs::remove_file(account.file("token")).unwrap();
        let before = server.asked().len();
        eventually(|| server.asked().len() > before).await;
        account.rotate("secret-token-two");
        eventually(|| telemetry_has(&agent, PodEventOutcome::Created, 1)).await;
        assert!(server.asked().iter().any(|asked| asked.authorization == "Bearer secret-token-one"));
        drop(agent.close().await);
        let stranger = Server::start_with(Some(account.server()), |_, _| Reply::text(200, "}{"));
        let agent = Agent::start_with(account.client(&stranger), quick(), true, true);
        agent.deliver(&full());
        eventually(|| agent.telemetry.requests(ApiVerb::Get, ApiOutcome::Garbage) >= 1).await;
        assert!(stranger.asked().iter().all(|asked| asked.authorization == "Bearer secret-token-two"));
        drop(agent.close().await);
    });
    for said in ["The Kubernetes API does not answer", "The answer of the Kubernetes API is not understood", " DEBUG "]
    {
        assert!(log.contains(said), "{said:?} is not in: {log}");
    }
    // However often it was refused.
    let refused = log.lines().filter(|line| line.contains("The Kubernetes API does not answer"));
    assert_eq!(refused.count(), 1, "{log}");
    assert!(!log.contains("secret-token"), "{log}");
}

#[test]
fn what_holds_a_token_does_not_show_it() {
    let mut config = Config::new("http://127.0.0.1:1".parse().unwrap());
    config.auth_info.token = Some("secret-token".to_owned().into());
    config.auth_info.password = Some("secret-password".to_owned().into());
    let shown = format!("{config:?}");
    assert!(!shown.contains("secret-"), "{shown}");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _guard = runtime.enter();
    let api = Api::new(config, quick(), Arc::new(Telemetry::new())).unwrap();
    assert!(!format!("{api:?}").contains("secret-"), "{api:?}");
}
