//! The Event on the pod: what is written, how often, and that every kill is accounted for.

use PodEventOutcome::{Abandoned, Covered, Created, Overflow, Raised, Refused, TooLate, Unnamed};

use super::*;
use crate::sinks::samples::{in_docker, in_service};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

fn accepting(_: usize, asked: &server::Asked) -> Reply {
    Reply::ok(&asked.body)
}

#[test]
fn the_event_of_a_kill_exactly() {
    run(async {
        let server = Server::start(accepting);
        let agent = Agent::start(&server, quick(), false, true);
        agent.deliver(&full());
        let telemetry = agent.close().await;
        check_events(&telemetry, &[(Created, 1)]);
        assert_eq!(server.lines(), [format!("POST {EVENTS}?")]);
        let name = "cart-7f9c6d5b4-x2x7k.18ea6e18a4a22cc0";
        let expected = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": { "name": server.asked()[0].body["metadata"]["name"], "namespace": "shop" },
            "eventTime": "2026-11-22T17:45:00.123000Z",
            "reportingController": "oom-watcher",
            "reportingInstance": "worker-1",
            "action": "OOMKill",
            "reason": "ContainerOOMKilled",
            "type": "Warning",
            "note": "java (pid 4242) in container app was killed: the container used 511 MiB of its 512 MiB limit: \
                     480 MiB anonymous, 29 MiB tmpfs; killed with 3 others",
            "regarding": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": "shop",
                "name": "cart-7f9c6d5b4-x2x7k",
                "uid": UID
            }
        });
        let body = &server.asked()[0].body;
        assert_eq!(*body, expected);
        let given = body["metadata"]["name"].as_str().unwrap();
        assert_eq!(given.split('.').next(), name.split('.').next());
    });
}

#[test]
fn a_crash_loop_is_one_event_with_a_count() {
    run(async {
        let server = Server::start(accepting);
        let limits = Limits { patch_every: Duration::from_millis(400), ..quick() };
        let agent = Agent::start(&server, limits, false, true);
        let started = Instant::now();
        for incident in 0..100 {
            agent.deliver(&kill(incident));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let telemetry = agent.close().await;
        let intervals = started.elapsed().as_millis() / limits.patch_every.as_millis();
        let asked = server.asked();
        assert_eq!(asked.iter().filter(|asked| asked.method == "POST").count(), 1);
        // One in each interval, and one at the end.
        assert!((2..=intervals as usize + 2).contains(&asked.len()), "{} in {intervals}", asked.len());
        let last = asked.last().unwrap();
        assert_eq!(last.body["series"]["count"], 100);
        assert_eq!(last.body["series"]["lastObservedTime"], "2026-11-22T17:45:00.222000Z");
        assert_eq!(last.content_type, "application/merge-patch+json");
        let name = asked[0].body["metadata"]["name"].as_str().unwrap();
        assert_eq!(last.target, format!("{EVENTS}/{name}?"));
        let created = telemetry.count_pod_event(Created, 0);
        check_events(&telemetry, &[(Created, created), (Raised, 100 - created)]);
    });
}

#[test]
fn the_victims_of_an_incident_share_an_event() {
    run(async {
        let server = Server::start(accepting);
        let agent = Agent::start(&server, quick(), false, true);
        for pid in 0..4 {
            let mut report = full();
            report.victim.pid = pid;
            agent.deliver(&report);
        }
        eventually(|| agent.telemetry.passed(Stage::SinkEvent) == 4).await;
        agent.deliver(&full());
        let telemetry = agent.close().await;
        assert_eq!(server.lines().len(), 1);
        let created = telemetry.count_pod_event(Created, 0);
        check_events(&telemetry, &[(Created, created), (Covered, 5 - created)]);
    });
}

/// A group kill is handed over in one go, and the task that talks to the API has no turn meanwhile.
#[test]
fn a_group_kill_of_a_thousand_is_one_event_that_says_so() {
    run(async {
        for enrichment in [false, true] {
            let server = Server::start(|_, asked| match asked.method.as_str() {
                "GET" => Reply::ok(&pod()),
                _ => Reply::ok(&asked.body),
            });
            let agent = Agent::start(&server, quick(), enrichment, true);
            for pid in 1..=1001 {
                let mut report = full();
                report.victim.pid = pid;
                report.incident.victims = 1001;
                agent.deliver(&report);
            }
            let (telemetry, published) = (Arc::clone(&agent.telemetry), Arc::clone(&agent.published));
            agent.close().await;
            check_events(&telemetry, &[(Created, 1001)]);
            let asked = server.asked();
            let events: Vec<&server::Asked> = asked.iter().filter(|asked| asked.method == "POST").collect();
            assert_eq!(events.len(), 1);
            let note = events[0].body["note"].as_str().unwrap();
            assert!(note.ends_with("killed with 1000 others"), "{note}");
            assert_eq!(events[0].body["series"], Value::Null, "it is one incident");
            assert_eq!(published.lock().unwrap().len(), usize::from(enrichment));
            assert_eq!(telemetry.enriched(), if enrichment { 1001 } else { 0 });
        }
    });
}

/// The first report of an incident may have been made before its end.
#[test]
fn the_event_knows_of_the_victims_that_came_while_it_waited() {
    run(async {
        let server = Server::start(accepting);
        let agent = Agent::start(&server, quick(), false, true);
        for victims in [3, 7, 5] {
            let mut report = full();
            report.incident.victims = victims;
            agent.deliver(&report);
        }
        check_events(&*agent.close().await, &[(Created, 3)]);
        let note = server.asked()[0].body["note"].clone();
        assert!(note.as_str().unwrap().ends_with("killed with 6 others"), "{note}");
    });
}

/// Pods cannot be read, by an API that takes Events: no Event waits for one lookup after the other.
#[test]
fn slow_lookups_hold_up_no_event() {
    run(async {
        let script = |_, asked: &server::Asked| match asked.method.as_str() {
            "GET" => Reply::ok(&pod()).after(Duration::from_mins(10)),
            _ => Reply::ok(&asked.body),
        };
        let server = Server::start(script);
        let limits = Limits { pod_patience: Duration::from_millis(100), patience: Duration::from_hours(1), ..quick() };
        let agent = Agent::start(&server, limits, true, true);
        for pod in 0..20 {
            agent.deliver(&kill_in(pod));
        }
        eventually(|| agent.telemetry.passed(Stage::SinkEvent) == 20).await;
        agent.check_events(&[(Created, 20)]);
        assert_eq!(agent.telemetry.enriched(), 0, "the lookups go on");
        let asked = server.asked();
        let lookups = asked.iter().filter(|asked| asked.method == "GET").count();
        assert!(lookups < 20, "{lookups} lookups before the last Event");
        let event = &asked.iter().find(|asked| asked.method == "POST").unwrap().body;
        assert_eq!(event["regarding"]["fieldPath"], Value::Null, "nobody knows where the container is in the pod");
    });
}

/// A kill that comes when the Event of its incident is out already shares it, with or without the pod.
#[test]
fn a_late_victim_shares_the_event_that_did_not_wait() {
    run(async {
        let script = |_, asked: &server::Asked| match asked.method.as_str() {
            "GET" => Reply::ok(&pod()).after(Duration::from_mins(10)),
            _ => Reply::ok(&asked.body),
        };
        let server = Server::start(script);
        let limits = Limits { pod_patience: Duration::from_millis(50), patience: Duration::from_hours(1), ..quick() };
        let agent = Agent::start(&server, limits, true, true);
        agent.deliver(&full());
        eventually(|| agent.telemetry.passed(Stage::SinkEvent) == 1).await;
        agent.deliver(&full());
        eventually(|| agent.telemetry.passed(Stage::SinkEvent) == 2).await;
        agent.check_events(&[(Created, 1), (Covered, 1)]);
        let telemetry = Arc::clone(&agent.telemetry);
        agent.handle.close(Duration::from_millis(200)).await;
        assert_eq!(telemetry.enrichments(EnrichmentOutcome::Skipped), 2, "the end cannot wait for the pod");
    });
}

#[test]
fn kills_in_no_pod_have_no_event() {
    run(async {
        let server = Server::start(accepting);
        let agent = Agent::start(&server, quick(), true, true);
        agent.deliver(&in_docker());
        agent.deliver(&in_service());
        let telemetry = agent.close().await;
        check_events(&telemetry, &[]);
        assert_eq!(server.lines(), Vec::<String>::new());
    });
}

#[test]
fn a_pod_that_nobody_can_name_has_none() {
    run(async {
        let server = Server::start(accepting);
        let agent = Agent::start(&server, quick(), false, true);
        let mut report = full();
        report.kubernetes.as_mut().unwrap().namespace = None;
        agent.deliver(&report);
        report.kubernetes.as_mut().unwrap().namespace = Some("../kube-system".to_owned());
        agent.deliver(&report);
        let telemetry = agent.close().await;
        check_events(&telemetry, &[(Unnamed, 2)]);
        assert_eq!(server.lines(), Vec::<String>::new());
    });
}

#[test]
fn what_the_api_knows_makes_the_event_exact() {
    run(async {
        let script = |_, asked: &server::Asked| match asked.method.as_str() {
            "GET" if asked.target.starts_with("/api/v1/pods?") => {
                Reply::ok(&json!({ "items": [{ "metadata": pod()["metadata"] }] }))
            }
            "GET" => Reply::ok(&pod()),
            _ => Reply::ok(&asked.body),
        };
        let server = Server::start(script);
        let agent = Agent::start(&server, quick(), true, true);
        let mut unnamed = kill(1);
        let victim = unnamed.kubernetes.as_mut().unwrap();
        (victim.namespace, victim.pod, victim.container) = (None, None, None);
        agent.deliver(&unnamed);
        let mut init = kill(2);
        let victim = init.kubernetes.as_mut().unwrap();
        (victim.container, victim.container_id) = (Some("migrate".to_owned()), None);
        agent.deliver(&init);
        check_events(&*agent.close().await, &[(Created, 2)]);
        let fields: Vec<Value> = server
            .asked()
            .iter()
            .filter(|asked| asked.method == "POST")
            .map(|asked| asked.body["regarding"]["fieldPath"].clone())
            .collect();
        assert_eq!(fields, ["spec.containers{app}", "spec.initContainers{migrate}"]);
    });
}

#[test]
fn an_event_that_is_gone_is_created_again_with_its_count() {
    run(async {
        let script = |_, asked: &server::Asked| match asked.method.as_str() {
            "PATCH" => Reply::status(404),
            _ => Reply::ok(&asked.body),
        };
        let server = Server::start(script);
        let agent = Agent::start(&server, quick(), false, true);
        agent.deliver(&kill(1));
        eventually(|| agent.telemetry.passed(Stage::SinkEvent) == 1).await;
        agent.deliver(&kill(2));
        agent.deliver(&kill(3));
        let telemetry = agent.close().await;
        check_events(&telemetry, &[(Created, 3)]);
        let asked = server.asked();
        let last = asked.last().unwrap();
        assert_eq!((last.method.as_str(), &last.body["series"]["count"]), ("POST", &json!(2)));
        assert_ne!(last.body["metadata"]["name"], asked[0].body["metadata"]["name"]);
    });
}

#[test]
fn an_event_that_is_there_already_was_created() {
    run(async {
        let server = Server::start(|_, _| Reply::status(409));
        let agent = Agent::start(&server, quick(), false, true);
        agent.deliver(&full());
        check_events(&*agent.close().await, &[(Created, 1)]);
    });
}

#[test]
fn a_refusal_costs_this_event_and_no_other() {
    run(async {
        for status in [400, 403, 404, 422] {
            let script = move |_, asked: &server::Asked| match asked.body["regarding"]["name"].as_str() {
                Some("cart-1") => Reply::status(status),
                _ => Reply::ok(&asked.body),
            };
            let server = Server::start(script);
            let agent = Agent::start(&server, quick(), false, true);
            agent.deliver(&kill_in(1));
            agent.deliver(&kill_in(1));
            agent.deliver(&kill_in(2));
            eventually(|| agent.telemetry.passed(Stage::SinkEvent) == 1).await;
            check_events(&*agent.close().await, &[(Created, 1), (Refused, 2)]);
        }
    });
}

#[test]
fn an_event_waits_for_an_api_that_comes_back() {
    run(async {
        for trouble in [
            Reply::status(500),
            Reply::status(401),
            Reply::status(429).retry_after("1"),
            Reply::status(200).after(Duration::from_secs(5)),
        ] {
            let script = move |before, asked: &server::Asked| {
                if before < 3 { trouble.clone() } else { Reply::ok(&asked.body) }
            };
            let server = Server::start(script);
            let agent = Agent::start(&server, quick(), false, true);
            for incident in 0..5 {
                agent.deliver(&kill(incident));
            }
            eventually(|| agent.telemetry.passed(Stage::SinkEvent) == 5).await;
            agent.check_events(&[(Created, 5)]);
            let asked = server.asked();
            assert_eq!(asked.len(), 4);
            let body = &asked[3].body;
            assert_eq!(body["series"]["count"], 5);
            assert_eq!(body["metadata"]["name"], asked[1].body["metadata"]["name"], "the same Event each time");
        }
    });
}

#[test]
fn an_event_comes_through_when_the_api_was_gone() {
    run(async {
        let mut server = Server::start(accepting);
        let agent = Agent::start(&server, quick(), false, true);
        agent.deliver(&kill_in(1));
        eventually(|| agent.telemetry.passed(Stage::SinkEvent) == 1).await;
        server.vanish().await;
        agent.deliver(&kill_in(2));
        eventually(|| agent.telemetry.requests(ApiVerb::Create, ApiOutcome::Unreachable) >= 2).await;
        server.listen();
        eventually(|| agent.telemetry.passed(Stage::SinkEvent) == 2).await;
        agent.check_events(&[(Created, 2)]);
    });
}

#[test]
fn an_event_is_given_up_after_a_stated_time() {
    run(async {
        let server = Server::start(|_, _| Reply::status(500));
        let limits = Limits { event_patience: Duration::from_millis(300), ..quick() };
        let agent = Agent::start(&server, limits, false, true);
        agent.deliver(&kill(1));
        agent.deliver(&kill(2));
        eventually(|| agent.telemetry.lost(Stage::SinkEvent) == 2).await;
        agent.check_events(&[(TooLate, 2)]);
    });
}

#[test]
fn every_kill_is_told_or_lost_when_too_many_wait() {
    run(async {
        let server = Server::start(|_, asked: &server::Asked| accepting(0, asked).after(Duration::from_millis(20)));
        let limits = Limits { queue: 8, agent_burst: 1000, ..quick() };
        let agent = Agent::start(&server, limits, true, true);
        for pod in 0..50 {
            agent.deliver(&kill_in(pod));
        }
        let telemetry = agent.close().await;
        let told = telemetry.passed(Stage::SinkEvent);
        assert_eq!(told, 8, "what the queue holds");
        check_events(&telemetry, &[(Created, told), (Overflow, 50 - told)]);
    });
}

#[test]
fn an_end_that_cannot_wait_says_what_is_lost() {
    run(async {
        let server = Server::start(|_, _| Reply::status(200).after(Duration::from_mins(1)));
        let limits = Limits { request: Duration::from_mins(1), ..quick() };
        let agent = Agent::start(&server, limits, false, true);
        for pod in 0..10 {
            agent.deliver(&kill_in(pod));
        }
        let telemetry = Arc::clone(&agent.telemetry);
        let started = Instant::now();
        agent.handle.close(Duration::from_millis(200)).await;
        assert!(started.elapsed() < Duration::from_secs(5));
        check_events(&telemetry, &[(Abandoned, 10)]);
    });
}
