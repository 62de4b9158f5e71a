//! kube's own client against a server by script.

mod credentials;
mod enrichment;
mod events;
mod server;

use std::sync::Mutex;

use kube::Config;
use serde_json::{Value, json};
use server::{Reply, Server};

use super::*;
use crate::{
    report::Kubernetes,
    sinks::samples::full,
    telemetry::{ApiOutcome, ApiVerb},
};

const UID: &str = "0a5a1b6e-9d1f-4a9b-8f0e-0c6d2f7f9a11";
const POD: &str = "/api/v1/namespaces/shop/pods/cart-7f9c6d5b4-x2x7k";
/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);

/// The limits with pauses that a test can wait for.
fn quick() -> Limits {
    Limits {
        request: Duration::from_secs(1),
        lookup_every: Duration::from_millis(200),
        patience: Duration::from_secs(15),
        patch_every: Duration::from_millis(200),
        backoff_min: Duration::from_millis(50),
        backoff_max: Duration::from_millis(200),
        ..Limits::default()
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// An agent's half of the traffic, with what came of it.
struct Agent {
    handle: Handle,
    telemetry: Arc<Telemetry>,
    published: Arc<Mutex<Vec<Enrichment>>>,
}

impl Agent {
    fn start(server: &Server, limits: Limits, enrichment: bool, events: bool) -> Self {
        Self::start_with(Config::new(server.url().parse().unwrap()), limits, enrichment, events)
    }

    fn start_with(client: Config, limits: Limits, enrichment: bool, events: bool) -> Self {
        let telemetry = Arc::new(Telemetry::new());
        let published: Arc<Mutex<Vec<Enrichment>>> = Arc::default();
        let api = Api::new(client, limits, Arc::clone(&telemetry)).unwrap();
        let keys = ["app".to_owned(), "team".to_owned()];
        let config = KubernetesConfig { enrichment, events, pod_labels: keys.into() };
        let sink = Arc::clone(&published);
        let publish = move |enrichment: &Enrichment| sink.lock().unwrap().push(enrichment.clone());
        let node = "worker-1".to_owned();
        let handle = Prepared { api, config, node, limits, telemetry: Arc::clone(&telemetry) }.start(publish);
        Self { handle, telemetry, published }
    }

    fn deliver(&self, report: &OomReport) {
        let started = Instant::now();
        self.handle.deliver(report);
        assert!(started.elapsed() < Duration::from_millis(500), "a report waits for nothing");
    }

    fn published(&self) -> Vec<Enrichment> {
        self.published.lock().unwrap().clone()
    }

    /// Kills by what became of their Event, and that the stage says the same.
    #[track_caller]
    fn check_events(&self, expected: &[(PodEventOutcome, u64)]) {
        check_events(&self.telemetry, expected);
    }

    async fn close(self) -> Arc<Telemetry> {
        self.handle.close(SOON).await;
        self.telemetry
    }
}

#[track_caller]
fn check_events(telemetry: &Telemetry, expected: &[(PodEventOutcome, u64)]) {
    for (outcome, _) in PodEventOutcome::ALL {
        let kills = expected.iter().find(|(known, _)| *known == outcome).map_or(0, |(_, kills)| *kills);
        assert_eq!(telemetry.count_pod_event(outcome, 0), kills, "{outcome:?}");
    }
    let sum = |told| expected.iter().filter(|(outcome, _)| outcome.is_told() == told).map(|(_, kills)| kills).sum();
    let stage = (telemetry.passed(Stage::SinkEvent), telemetry.lost(Stage::SinkEvent));
    assert_eq!(stage, (sum(true), sum(false)));
}

/// Waits until something is so.
#[track_caller]
fn eventually(mut so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + SOON;
        while !so() {
            assert!(Instant::now() < deadline, "never: {caller}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A kill of its own incident in the pod of [`full`].
fn kill(incident: usize) -> OomReport {
    let mut report = full();
    report.incident.id = incident.to_string();
    report.incident.victims = 1;
    report.time += jiff::SignedDuration::from_millis(incident as i64);
    report.boot_time_ns += 1_000_000 * incident as u64;
    report
}

/// The same in another pod.
fn kill_in(pod: usize) -> OomReport {
    let mut report = kill(pod);
    report.kubernetes = Some(Kubernetes {
        namespace: Some("shop".to_owned()),
        pod: Some(format!("cart-{pod}")),
        pod_uid: format!("uid-{pod}"),
        container: Some("app".to_owned()),
        ..Kubernetes::default()
    });
    report
}

/// The pod of [`full`] as the API has it.
fn pod() -> Value {
    let id = full().kubernetes.unwrap().container_id.unwrap();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "cart-7f9c6d5b4-x2x7k",
            "namespace": "shop",
            "uid": UID,
            "labels": { "app": "cart", "pod-template-hash": "7f9c6d5b4", "secret": "not asked for" },
            "ownerReferences": [
                { "apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "1" },
                { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-7f9c6d5b4", "uid": "2", "controller": true }
            ]
        },
        "spec": {
            "nodeName": "worker-1",
            "initContainers": [{ "name": "migrate", "image": "shop/migrate:1" }],
            "containers": [{
                "name": "app",
                "image": "shop/cart:4.2",
                "resources": { "requests": { "cpu": "100m", "memory": "256Mi" }, "limits": { "memory": "512Mi" } }
            }]
        },
        "status": {
            "phase": "Running",
            "containerStatuses": [{ "name": "app", "containerID": format!("containerd://{id}"), "restartCount": 2 }]
        }
    })
}
