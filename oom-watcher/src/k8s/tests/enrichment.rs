//! What the API adds to a kill, and what it costs to ask.

use super::*;
use crate::{
    enrichment::{ContainerKind, EnrichedPod, Owner},
    telemetry::EnrichmentOutcome::{self, Covered, Failed, Named, NotFound, Published, Recreated, Skipped},
};

#[track_caller]
fn check_outcomes(agent: &Agent, expected: &[(EnrichmentOutcome, u64)]) {
    for (outcome, _) in EnrichmentOutcome::ALL {
        let kills = expected.iter().find(|(known, _)| *known == outcome).map_or(0, |(_, kills)| *kills);
        assert_eq!(agent.telemetry.enrichments(outcome), kills, "{outcome:?}");
    }
}

async fn until_outcome(agent: &Agent, outcome: EnrichmentOutcome, kills: u64) {
    eventually(|| agent.telemetry.enrichments(outcome) == kills).await;
}

fn fixed(reply: Reply) -> impl Fn(usize, &server::Asked) -> Reply + Send + Sync {
    move |_, _| reply.clone()
}

#[test]
fn one_request_says_all_about_a_pod() {
    run(async {
        let server = Server::start(fixed(Reply::ok(&pod())));
        let agent = Agent::start(&server, quick(), true, false);
        agent.deliver(&full());
        agent.deliver(&kill(2));
        until_outcome(&agent, Published, 2).await;
        assert_eq!(server.lines(), [format!("GET {POD}?&resourceVersion=0")]);
        let expected = EnrichedPod {
            namespace: "shop".to_owned(),
            pod: "cart-7f9c6d5b4-x2x7k".to_owned(),
            pod_uid: UID.to_owned(),
            container: Some("app".to_owned()),
            container_kind: Some(ContainerKind::Container),
            container_id: full().kubernetes.unwrap().container_id,
            owner: Some(Owner { kind: "Deployment".to_owned(), name: "cart".to_owned() }),
            labels: [("app".to_owned(), "cart".to_owned())].into(),
            image: Some("shop/cart:4.2".to_owned()),
            memory_request_bytes: Some(256 << 20),
            memory_limit_bytes: Some(512 << 20),
            pod_memory_request_bytes: None,
            pod_memory_limit_bytes: None,
            node: Some("worker-1".to_owned()),
        };
        let published = agent.published();
        assert_eq!(published[0].kubernetes, expected);
        assert_eq!(published[0].incident_id, full().incident.id);
        assert_eq!(published[0].victim.tgid, Some(4242));
        assert_eq!(published[1].incident_id, "2");
    });
}

/// Resources of the pod as a whole, with containers that have none (KEP-2837); on a server that does not know them they are
/// not there.
#[test]
fn a_pod_may_have_a_limit_where_its_containers_have_none() {
    run(async {
        let mut shared = pod();
        shared["spec"]["containers"][0]["resources"] = json!({});
        shared["spec"]["resources"] =
            json!({ "requests": { "cpu": "1", "memory": "256Mi" }, "limits": { "memory": "1Gi" } });
        let server = Server::start(fixed(Reply::ok(&shared)));
        let agent = Agent::start(&server, quick(), true, false);
        agent.deliver(&full());
        until_outcome(&agent, Published, 1).await;
        let found = &agent.published()[0].kubernetes;
        assert_eq!(
            (found.memory_request_bytes, found.memory_limit_bytes),
            (None, None),
            "they are not the container's"
        );
        assert_eq!((found.pod_memory_request_bytes, found.pod_memory_limit_bytes), (Some(256 << 20), Some(1 << 30)));
    });
}

#[test]
fn an_incident_has_one_line_per_container() {
    run(async {
        let server = Server::start(fixed(Reply::ok(&pod())));
        let agent = Agent::start(&server, quick(), true, false);
        let mut sidecar = full();
        sidecar.kubernetes.as_mut().unwrap().container_id = Some("another".to_owned());
        for report in [full(), full(), sidecar, full()] {
            agent.deliver(&report);
        }
        until_outcome(&agent, Covered, 2).await;
        check_outcomes(&agent, &[(Published, 2), (Covered, 2)]);
        assert_eq!(agent.published().len(), 2);
    });
}

/// One answer that settles it: no second request, not for the next kill either.
#[track_caller]
fn check_settled(reply: Reply, expected: EnrichmentOutcome, counted: ApiOutcome) {
    run(async {
        let server = Server::start(fixed(reply));
        let agent = Agent::start(&server, quick(), true, false);
        agent.deliver(&kill(1));
        agent.deliver(&kill(2));
        until_outcome(&agent, expected, 2).await;
        check_outcomes(&agent, &[(expected, 2)]);
        assert_eq!(server.lines().len(), 1);
        assert_eq!(agent.telemetry.requests(ApiVerb::Get, counted), 1);
        assert_eq!(agent.published(), []);
    });
}

#[test]
fn an_answer_that_is_final_is_not_asked_for_again() {
    check_settled(Reply::status(404), NotFound, ApiOutcome::NotFound);
    check_settled(Reply::status(410), NotFound, ApiOutcome::NotFound);
    check_settled(Reply::status(403), Failed, ApiOutcome::Forbidden);
    check_settled(Reply::status(400), Failed, ApiOutcome::Rejected);
    check_settled(Reply::text(200, "<html>a proxy's login page</html>"), Failed, ApiOutcome::Garbage);
    check_settled(Reply::text(200, r#"{"kind":"Pod"}"#), Failed, ApiOutcome::Garbage);
    check_settled(Reply::text(200, &"[".repeat(3 << 20)), Failed, ApiOutcome::Garbage);
    check_settled(Reply::text(200, &"[".repeat(100_000)), Failed, ApiOutcome::Garbage);
    let mut other = pod();
    other["metadata"]["uid"] = json!("7e57e57e-0000-4000-8000-000000000000");
    check_settled(Reply::ok(&other), Recreated, ApiOutcome::Ok);
}

#[test]
fn the_answer_that_there_is_no_pod_stands_for_a_while_only() {
    run(async {
        let script = |before, _: &server::Asked| if before == 0 { Reply::status(404) } else { Reply::ok(&pod()) };
        let server = Server::start(script);
        let limits = Limits { missing_for: Duration::from_millis(100), ..quick() };
        let agent = Agent::start(&server, limits, true, false);
        agent.deliver(&kill(1));
        until_outcome(&agent, NotFound, 1).await;
        tokio::time::sleep(limits.missing_for).await;
        agent.deliver(&kill(2));
        until_outcome(&agent, Published, 1).await;
    });
}

/// An answer that says something about the API: the same is asked again, after a pause of at least `pause`.
#[track_caller]
fn check_retried(reply: Reply, counted: ApiOutcome, pause: Duration) {
    run(async {
        let script = move |before, _: &server::Asked| if before < 2 { reply.clone() } else { Reply::ok(&pod()) };
        let server = Server::start(script);
        let agent = Agent::start(&server, quick(), true, false);
        agent.deliver(&kill(1));
        until_outcome(&agent, Published, 1).await;
        let asked = server.asked();
        assert_eq!(asked.len(), 3);
        assert_eq!(agent.telemetry.requests(ApiVerb::Get, counted), 2);
        for pair in asked.windows(2) {
            assert!(pair[1].at - pair[0].at >= pause, "{:?}", pair[1].at - pair[0].at);
        }
    });
}

#[test]
fn an_api_that_is_in_trouble_is_asked_again_after_a_pause() {
    let short = Duration::from_millis(25);
    check_retried(Reply::status(429).retry_after("1"), ApiOutcome::Throttled, Duration::from_secs(1));
    check_retried(Reply::text(429, "Too many requests"), ApiOutcome::Throttled, short);
    check_retried(Reply::status(429).retry_after("soon"), ApiOutcome::Throttled, short);
    check_retried(Reply::status(500), ApiOutcome::ServerError, short);
    check_retried(Reply::status(503), ApiOutcome::ServerError, short);
    check_retried(Reply::status(401), ApiOutcome::Unauthorized, short);
    check_retried(Reply::ok(&pod()).after(Duration::from_secs(5)), ApiOutcome::Timeout, short);
}

#[test]
fn an_api_that_was_gone_is_found_again() {
    run(async {
        let mut server = Server::start(fixed(Reply::ok(&pod())));
        server.vanish().await;
        let agent = Agent::start(&server, quick(), true, false);
        agent.deliver(&kill(1));
        eventually(|| agent.telemetry.requests(ApiVerb::Get, ApiOutcome::Unreachable) >= 2).await;
        server.listen();
        until_outcome(&agent, Published, 1).await;
    });
}

#[test]
fn an_api_that_stays_away_costs_the_enrichment() {
    run(async {
        let mut server = Server::start(fixed(Reply::ok(&pod())));
        server.vanish().await;
        let limits = Limits { patience: Duration::from_millis(400), ..quick() };
        let agent = Agent::start(&server, limits, true, false);
        agent.deliver(&kill(1));
        until_outcome(&agent, Skipped, 1).await;
        assert_eq!(agent.published(), []);
    });
}

#[test]
fn a_static_pod_is_known_by_its_mirror() {
    run(async {
        let hash = "36b6d6be73b1065af369b3985edafa09";
        let mut mirror = pod();
        mirror["metadata"]["annotations"] =
            json!({ "kubernetes.io/config.mirror": hash, "kubernetes.io/config.source": "file" });
        mirror["metadata"]["ownerReferences"] =
            json!([{ "apiVersion": "v1", "kind": "Node", "name": "worker-1", "uid": "3", "controller": true }]);
        let server = Server::start(fixed(Reply::ok(&mirror)));
        let agent = Agent::start(&server, quick(), true, false);
        let mut report = full();
        report.kubernetes.as_mut().unwrap().pod_uid = hash.to_owned();
        agent.deliver(&report);
        until_outcome(&agent, Published, 1).await;
        let owner = agent.published()[0].kubernetes.owner.clone().unwrap();
        assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Node", "worker-1"));

        // By the UID of its copy in the API it is another one: that UID is in no cgroup path.
        agent.deliver(&full());
        until_outcome(&agent, Recreated, 1).await;
    });
}

/// A kill of which only the identifiers are known.
fn unnamed(uid: &str) -> OomReport {
    let mut report = full();
    report.incident.id = uid.to_owned();
    let victim = report.kubernetes.as_mut().unwrap();
    (victim.namespace, victim.pod, victim.container) = (None, None, None);
    victim.pod_uid = uid.to_owned();
    report
}

#[test]
fn a_pod_without_a_name_is_found_in_one_list_of_the_node() {
    run(async {
        let script = |_, asked: &server::Asked| {
            let names = json!({ "items": [
                { "metadata": { "namespace": "shop", "name": "cart-7f9c6d5b4-x2x7k", "uid": UID } },
                { "metadata": { "namespace": "kube-system", "name": "etcd-worker-1", "uid": "4",
                                "annotations": { "kubernetes.io/config.mirror": "36b6d6be73b1065af369b3985edafa09" } } },
            ]});
            if asked.target.starts_with("/api/v1/pods?") { Reply::ok(&names) } else { Reply::ok(&pod()) }
        };
        let server = Server::start(script);
        let agent = Agent::start(&server, quick(), true, false);
        agent.deliver(&unnamed(UID));
        until_outcome(&agent, Named, 1).await;
        let found = &agent.published()[0].kubernetes;
        assert_eq!(
            (found.namespace.as_str(), found.container.as_deref()),
            ("shop", Some("app")),
            "by the id of the container"
        );

        agent.deliver(&unnamed("no-such-uid"));
        until_outcome(&agent, NotFound, 1).await;
        agent.deliver(&unnamed("36b6d6be73b1065af369b3985edafa09"));
        until_outcome(&agent, Recreated, 1).await;

        let asked = server.asked();
        let list = "GET /api/v1/pods?&fieldSelector=spec.nodeName%3Dworker-1&resourceVersion=0";
        let etcd = "GET /api/v1/namespaces/kube-system/pods/etcd-worker-1?&resourceVersion=0";
        assert_eq!(server.lines(), [list, &format!("GET {POD}?&resourceVersion=0"), etcd]);
        assert!(asked[0].accept.contains("as=PartialObjectMetadataList"), "{}", asked[0].accept);
    });
}

#[test]
fn a_list_that_is_forbidden_is_not_asked_for_all_day() {
    run(async {
        let server = Server::start(fixed(Reply::status(403)));
        let limits = Limits { list_every: Duration::from_millis(10), ..quick() };
        let agent = Agent::start(&server, limits, true, false);
        agent.deliver(&unnamed("first"));
        until_outcome(&agent, Failed, 1).await;
        for uid in ["second", "third"] {
            tokio::time::sleep(limits.list_every * 2).await;
            agent.deliver(&unnamed(uid));
        }
        // Nobody said that they do not exist.
        until_outcome(&agent, Failed, 3).await;
        assert_eq!(server.asked().len(), 1, "{:?}", server.lines());
    });
}

#[test]
fn pods_are_asked_for_at_a_limited_rate() {
    run(async {
        let server = Server::start(fixed(Reply::status(404)));
        let limits = Limits { lookup_burst: 3, ..quick() };
        let agent = Agent::start(&server, limits, true, false);
        for pod in 0..6 {
            agent.deliver(&kill_in(pod));
        }
        until_outcome(&agent, NotFound, 6).await;
        let asked = server.asked();
        assert!(asked[2].at - asked[0].at < limits.lookup_every, "the burst");
        assert!(asked[5].at - asked[0].at + Duration::from_millis(20) >= limits.lookup_every * 3, "the rate");
    });
}

#[test]
fn a_name_that_is_none_is_not_asked_for() {
    run(async {
        let server = Server::start(fixed(Reply::ok(&pod())));
        let agent = Agent::start(&server, quick(), true, false);
        let names = ["../../secrets", "a/b", "a?b", "", "UPPER", "a b", ".."];
        for (incident, name) in names.iter().enumerate() {
            let mut report = kill_in(incident);
            report.kubernetes.as_mut().unwrap().pod = Some((*name).to_owned());
            agent.deliver(&report);
        }
        until_outcome(&agent, Failed, names.len() as u64).await;
        assert_eq!(server.lines(), Vec::<String>::new());
    });
}
