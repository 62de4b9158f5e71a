//! The client: four requests, each within a deadline and a size, each counted by its outcome.
//!
//! The only module that names kube. It uses kube's client for what is hard (credentials that rotate, TLS, connections) and
//! the raw answer for what is ours: `Retry-After`, a limit on the body, and no retry that this agent does not know of.

use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Client, Config,
    client::Body,
    config::{InClusterError, KubeConfigOptions, KubeconfigError},
    core::{
        params::{GetParams, ListParams, Patch, PatchParams, PostParams},
        request,
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::{debug, instrument::WithSubscriber as _, subscriber::NoSubscriber};

use super::{
    health::Health,
    limits::Limits,
    pod::{PodMetadataList, RawPod},
};
use crate::{
    escape::Escaped,
    telemetry::{ApiOutcome, ApiVerb, Telemetry},
};

/// Largest pod that is read: etcd holds none larger.
const POD_BYTES_MAX: usize = 2 << 20;
/// Largest list of metadata that is read: 500 pods of 8 KiB. (A limit of pods would take the list off the server's cache.)
const LIST_BYTES_MAX: usize = 4 << 20;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The environment says that this is a pod, but the service account cannot be read.
    #[error("cannot use the service account of this pod")]
    InCluster(#[source] InClusterError),
    /// Not in a pod, and no kubeconfig.
    #[error("not in a pod (KUBERNETES_SERVICE_HOST is not set), and the kubeconfig cannot be used")]
    Kubeconfig(#[source] KubeconfigError),
    /// The kubeconfig is not YAML. Only the place is told: the text around it may be a credential.
    #[error("not in a pod (KUBERNETES_SERVICE_HOST is not set), and the kubeconfig is not YAML: {reason}")]
    KubeconfigText {
        /// What is wrong, and where.
        reason: String,
    },
    /// What the configuration says cannot be made into a client.
    #[error("cannot make a client of the configuration")]
    Client(#[source] kube::Error),
}

/// The API as this agent uses it.
pub(super) struct Api {
    client: Client,
    /// What the client is made of, and is made of again when its credentials are refused.
    config: Config,
    health: Health,
    timeout: Duration,
    telemetry: std::sync::Arc<Telemetry>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("health", &self.health).finish_non_exhaustive()
    }
}

/// What this process is told about the API: the service account inside a pod, else the kubeconfig.
pub(super) async fn find_config() -> Result<Config, ClientError> {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Config::incluster().map_err(ClientError::InCluster);
    }
    Config::from_kubeconfig(&KubeConfigOptions::default()).await.map_err(|error| match error {
        KubeconfigError::Parse(error) => {
            let text = error.to_string();
            ClientError::KubeconfigText { reason: Escaped(text.lines().next().unwrap_or_default()).to_string() }
        }
        error => ClientError::Kubeconfig(error),
    })
}

impl Api {
    /// Asks nothing yet: an API that does not answer is no reason not to start.
    pub(super) fn new(
        mut config: Config,
        limits: Limits,
        telemetry: std::sync::Arc<Telemetry>,
    ) -> Result<Self, ClientError> {
        // Retries are decided here, where they are counted, spread and limited.
        config.default_retry = false;
        config.connect_timeout = Some(limits.request);
        let client = Client::try_from(config.clone()).map_err(ClientError::Client)?;
        Ok(Self { client, config, health: Health::new(limits), timeout: limits.request, telemetry })
    }

    /// When the API may be asked about pods again: `now` or later.
    pub(super) fn ready_to_read(&self, now: Instant) -> Instant {
        self.health.ready_at(ApiVerb::Get, now)
    }

    /// When the API may be told of Events again: `now` or later.
    pub(super) fn ready_to_write(&self, now: Instant) -> Instant {
        self.health.ready_at(ApiVerb::Create, now)
    }

    /// The pod of that name, as the server's cache has it.
    pub(super) async fn pod(&mut self, namespace: &str, name: &str) -> Result<RawPod, ApiOutcome> {
        let pods = request::Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
        let body = self.ask(ApiVerb::Get, pods.get(name, &GetParams::at("0")), POD_BYTES_MAX).await?;
        self.read(ApiVerb::Get, &body)
    }

    /// Names and identifiers of the node's pods, as the server's cache has them.
    pub(super) async fn pods_of(&mut self, node: &str) -> Result<PodMetadataList, ApiOutcome> {
        let params = ListParams::default().fields(&format!("spec.nodeName={node}")).at("0");
        let pods = request::Request::new("/api/v1/pods");
        let body = self.ask(ApiVerb::List, pods.list_metadata(&params), LIST_BYTES_MAX).await?;
        self.read(ApiVerb::List, &body)
    }

    /// Creates an Event; one that is there already is created too: an answer may have been lost on its way.
    pub(super) async fn create_event(&mut self, event: &Event) -> Result<(), ApiOutcome> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let events = request::Request::new(format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"));
        let body = serde_json::to_vec(event).map_err(|_| ApiOutcome::Rejected)?;
        match self.ask(ApiVerb::Create, events.create(&PostParams::default(), body), POD_BYTES_MAX).await {
            Ok(_) | Err(ApiOutcome::Conflict) => Ok(()),
            Err(outcome) => Err(outcome),
        }
    }

    /// Raises the count of an Event: nothing else of it may be changed.
    pub(super) async fn raise_event(
        &mut self,
        namespace: &str,
        name: &str,
        count: u32,
        last: jiff::Timestamp,
    ) -> Result<(), ApiOutcome> {
        let events = request::Request::new(format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"));
        let last = last.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let patch = Patch::Merge(json!({ "series": { "count": count, "lastObservedTime": last } }));
        let request = events.patch(name, &PatchParams::default(), &patch);
        self.ask(ApiVerb::Patch, request, POD_BYTES_MAX).await.map(drop)
    }

    /// One request with its outcome, which is counted and remembered.
    async fn ask(
        &mut self,
        verb: ApiVerb,
        request: Result<Request<Vec<u8>>, request::Error>,
        bytes_max: usize,
    ) -> Result<Vec<u8>, ApiOutcome> {
        let mut retry_after = None;
        let answer = match request {
            Ok(request) => {
                let exchange = exchange(&self.client, request.map(Body::from), bytes_max, &mut retry_after);
                // kube logs each failure by itself; here only a change is news.
                let exchange = exchange.with_subscriber(NoSubscriber::default());
                tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(ApiOutcome::Timeout))
            }
            Err(error) => {
                debug!(error = &error as &dyn std::error::Error, "Cannot put a request to the Kubernetes API");
                Err(ApiOutcome::Rejected)
            }
        };
        let outcome = answer.as_ref().err().copied().unwrap_or(ApiOutcome::Ok);
        if outcome == ApiOutcome::Unauthorized {
            self.renew();
        }
        self.health.note(verb, outcome, retry_after, Instant::now());
        // A body that cannot be read is counted where it is read.
        if outcome != ApiOutcome::Ok || matches!(verb, ApiVerb::Create | ApiVerb::Patch) {
            self.telemetry.count_request(verb, outcome);
        }
        answer
    }

    /// A client with the credentials as they are now: the old one looks at its token again only after a minute.
    fn renew(&mut self) {
        match Client::try_from(self.config.clone()) {
            Ok(client) => self.client = client,
            Err(error) => {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "Cannot read the credentials of the Kubernetes API again"
                );
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, verb: ApiVerb, body: &[u8]) -> Result<T, ApiOutcome> {
        let read = serde_json::from_slice(body).map_err(|error| {
            debug!(%error, verb = verb.as_str(), "The answer of the Kubernetes API is not understood");
            ApiOutcome::Garbage
        });
        self.telemetry.count_request(verb, read.as_ref().err().copied().unwrap_or(ApiOutcome::Ok));
        read
    }
}

async fn exchange(
    client: &Client,
    request: Request<Body>,
    bytes_max: usize,
    retry_after: &mut Option<Duration>,
) -> Result<Vec<u8>, ApiOutcome> {
    let answer = client.send(request).await.map_err(|_| ApiOutcome::Unreachable)?;
    *retry_after = pause_asked_for(&answer);
    match answer.status() {
        status if status.is_success() => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(ApiOutcome::NotFound),
        StatusCode::CONFLICT => return Err(ApiOutcome::Conflict),
        StatusCode::FORBIDDEN => return Err(ApiOutcome::Forbidden),
        StatusCode::UNAUTHORIZED => return Err(ApiOutcome::Unauthorized),
        StatusCode::TOO_MANY_REQUESTS => return Err(ApiOutcome::Throttled),
        status if status.is_server_error() => return Err(ApiOutcome::ServerError),
        _ => return Err(ApiOutcome::Rejected),
    }
    match Limited::new(answer.into_body(), bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ApiOutcome::Garbage),
        Err(_) => Err(ApiOutcome::Unreachable),
    }
}

/// `Retry-After` in seconds, the only form that the API server sends.
fn pause_asked_for(answer: &Response<Body>) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
