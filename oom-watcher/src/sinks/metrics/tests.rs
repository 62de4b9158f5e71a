use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    config::MetricsConfig,
    escape::is_unsafe,
    exposition::Exposition,
    names::{Limits, link},
    report::{Kubernetes, Scope},
    sinks::samples::{
        enrichment, full, hostile, hostile_elsewhere, hostile_enrichment, hostile_long, in_docker, in_service, minimal,
    },
    telemetry::Stage,
};

#[path = "../../../tests/support/openmetrics.rs"]
mod openmetrics;
use openmetrics::sample;

/// The metrics with their page.
struct Setup {
    metrics: Arc<KillMetrics>,
    telemetry: Arc<Telemetry>,
    page: Exposition,
    now: Instant,
}

/// With zero series there is one of the host's; the limit leaves room for it, and the checks leave it out.
fn setup(zero_series: bool, max_series: usize) -> Setup {
    let series_retention = Duration::from_hours(1);
    let max_series = max_series + usize::from(zero_series);
    let config = MetricsConfig { address: None, port: 0, zero_series, max_series, series_retention };
    let telemetry = Arc::new(Telemetry::new());
    let metrics = Arc::new(KillMetrics::new(&config, Arc::clone(&telemetry)));
    let page = Exposition::new("worker-1", Arc::clone(&metrics), Arc::clone(&telemetry));
    Setup { metrics, telemetry, page, now: Instant::now() }
}

impl Setup {
    fn observe(&self, report: &OomReport) {
        self.metrics.observe(report, self.now);
    }

    /// The samples of the outward contract.
    fn samples(&self) -> Vec<String> {
        let page = self.page.render().unwrap();
        page.lines()
            .filter(|line| line.starts_with("oom_") && !line.starts_with("oom_watcher"))
            .filter(|line| !line.ends_with(r#",namespace="",pod="",container=""} 0"#))
            .map(Into::into)
            .collect()
    }

    #[track_caller]
    fn check(&self, expected: &[&str]) {
        assert_eq!(self.samples(), expected, "{:#?}", self.samples());
    }

    #[track_caller]
    fn check_has(&self, sample: &str) {
        assert!(self.samples().iter().any(|shown| shown == sample), "{sample} is not in {:#?}", self.samples());
    }

    #[track_caller]
    fn check_series(&self, expected: usize) {
        // Without that of the node, which no limit concerns.
        assert_eq!(self.samples().len() - 1, expected, "{:#?}", self.samples());
    }
}

#[test]
fn a_container_has_no_more_series_than_the_documents_say() {
    let setup = setup(false, 1000);
    let scopes =
        [Scope::Container, Scope::Pod, Scope::Qos, Scope::Kubepods, Scope::Node, Scope::Cgroup, Scope::Unknown];
    for (number, scope) in scopes.into_iter().enumerate() {
        let mut report = full();
        report.incident.id = format!("incident-{number}");
        report.incident.scope = scope;
        setup.observe(&report);
    }
    setup.check_series(CONTAINER_SERIES_MAX);
}

/// A kill in a container of its own with all figures but what filled the memory: 11 series, less the one of the incident if that is not new.
fn kill(container: &str, incident: &str) -> OomReport {
    let mut report = full();
    report.memory = None;
    report.incident.id = incident.to_owned();
    report.kubernetes = Some(Kubernetes {
        namespace: Some("shop".to_owned()),
        pod: Some("cart".to_owned()),
        container: Some(container.to_owned()),
        ..Kubernetes::default()
    });
    report
}

fn labels(container: &str) -> ContainerLabels {
    ContainerLabels::new("shop", "cart", container)
}

#[test]
fn the_page_of_one_kill_exactly() {
    let setup = setup(true, 5000);
    setup.observe(&full());
    let page = setup.page.render().unwrap();
    let contract = page.split("# HELP oom_watcher").next().unwrap();
    let container = r#"node="worker-1",namespace="shop",pod="cart-7f9c6d5b4-x2x7k",container="app""#;
    let expected = format!(
        r#"# HELP oom_kills {kills}
# TYPE oom_kills counter
oom_kills_total{{node="worker-1",namespace="",pod="",container=""}} 0
oom_kills_total{{{container}}} 1
# HELP oom_kills_per_node {per_node}
# TYPE oom_kills_per_node counter
oom_kills_per_node_total{{node="worker-1"}} 1
# HELP oom_incidents {incidents}
# TYPE oom_incidents counter
oom_incidents_total{{{container},scope="container"}} 1
# HELP oom_last_timestamp {last}
# TYPE oom_last_timestamp gauge
oom_last_timestamp{{{container}}} 1795369500.123
# HELP oom_memory_usage_bytes {memory}
# TYPE oom_memory_usage_bytes gauge
# UNIT oom_memory_usage_bytes bytes
oom_memory_usage_bytes{{{container},memory_type="total_vm"}} 4294967296
oom_memory_usage_bytes{{{container},memory_type="anon_rss"}} 503316480
oom_memory_usage_bytes{{{container},memory_type="file_rss"}} 0
oom_memory_usage_bytes{{{container},memory_type="shmem_rss"}} 30408704
oom_memory_usage_bytes{{{container},memory_type="swap"}} 0
oom_memory_usage_bytes{{{container},memory_type="page_tables"}} 2097152
# HELP oom_memcg_memory_bytes {memcg}
# TYPE oom_memcg_memory_bytes gauge
# UNIT oom_memcg_memory_bytes bytes
oom_memcg_memory_bytes{{{container},memory_type="anon"}} 503316480
oom_memcg_memory_bytes{{{container},memory_type="file"}} 30408704
oom_memcg_memory_bytes{{{container},memory_type="shmem"}} 30408704
oom_memcg_memory_bytes{{{container},memory_type="slab"}} 1048576
oom_memcg_memory_bytes{{{container},memory_type="kernel_stack"}} 65536
oom_memcg_memory_bytes{{{container},memory_type="page_tables"}} 2097152
oom_memcg_memory_bytes{{{container},memory_type="sock"}} 0
oom_memcg_memory_bytes{{{container},memory_type="percpu"}} 4096
oom_memcg_memory_bytes{{{container},memory_type="swap"}} 0
# HELP oom_limit_bytes {limit}
# TYPE oom_limit_bytes gauge
# UNIT oom_limit_bytes bytes
oom_limit_bytes{{{container},scope="container"}} 536870912
# HELP oom_usage_bytes {usage}
# TYPE oom_usage_bytes gauge
# UNIT oom_usage_bytes bytes
oom_usage_bytes{{{container},scope="container"}} 535822336
# HELP oom_pod {pod}
# TYPE oom_pod info
"#,
        kills = families::KILLS.help,
        per_node = families::KILLS_PER_NODE.help,
        incidents = families::INCIDENTS.help,
        last = families::LAST_TIMESTAMP.help,
        memory = families::MEMORY_USAGE.help,
        memcg = families::MEMCG_MEMORY.help,
        limit = families::LIMIT.help,
        usage = families::USAGE.help,
        pod = families::POD.help,
    );
    assert_eq!(contract, expected);
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn the_page_is_what_the_families_declare() {
    let setup = setup(true, 5000);
    setup.observe(&full());
    setup.metrics.enrich(&enrichment());
    exposition::check_page(FAMILIES, &setup.samples().join("\n"), "node");
}

#[test]
fn what_the_kernel_did_not_give_has_no_series() {
    let setup = setup(false, 5000);
    setup.observe(&minimal());
    setup.check(&[
        r#"oom_kills_total{node="worker-1",namespace="",pod="",container=""} 1"#,
        r#"oom_kills_per_node_total{node="worker-1"} 1"#,
        r#"oom_incidents_total{node="worker-1",namespace="",pod="",container="",scope="unknown"} 1"#,
        r#"oom_last_timestamp{node="worker-1",namespace="",pod="",container=""} 1795369500.0"#,
    ]);
}

#[test]
fn figures_are_of_the_last_kill_alone() {
    let setup = setup(false, 5000);
    setup.observe(&kill("app", "1"));
    let mut second = kill("app", "2");
    second.time = "2026-11-22T17:46:00Z".parse().unwrap();
    second.boot_time_ns += 60_000_000_000;
    second.victim.anon_rss_bytes = None;
    second.incident.scope = Scope::Pod;
    second.incident.usage_bytes = None;
    setup.observe(&second);
    // One more for the second scope, less two that its kill does not give.
    setup.check_series(10);
    let container = r#"node="worker-1",namespace="shop",pod="cart",container="app""#;
    setup.check_has(&format!("oom_kills_total{{{container}}} 2"));
    setup.check_has(&format!(r#"oom_incidents_total{{{container},scope="container"}} 1"#));
    setup.check_has(&format!(r#"oom_incidents_total{{{container},scope="pod"}} 1"#));
    setup.check_has(&format!(r#"oom_limit_bytes{{{container},scope="pod"}} 536870912"#));
    setup.check_has(&format!("oom_last_timestamp{{{container}}} 1795369560.0"));

    // A report that waited for its name comes late: it counts, and changes no figure of the newer one.
    setup.observe(&kill("app", "3"));
    setup.check_has(&format!("oom_kills_total{{{container}}} 3"));
    setup.check_has(&format!("oom_last_timestamp{{{container}}} 1795369560.0"));
}

#[test]
fn a_clock_that_is_set_back_does_not_hold_the_figures() {
    let setup = setup(false, 5000);
    setup.observe(&kill("app", "1"));
    let mut second = kill("app", "2");
    second.time = "2026-11-21T17:45:00Z".parse().unwrap();
    second.boot_time_ns += 1;
    second.victim.anon_rss_bytes = Some(77);
    second.incident.limit_bytes = Some(99);
    setup.observe(&second);
    let container = r#"node="worker-1",namespace="shop",pod="cart",container="app""#;
    setup.check_has(&format!("oom_last_timestamp{{{container}}} 1795283100.0"));
    setup.check_has(&format!(r#"oom_memory_usage_bytes{{{container},memory_type="anon_rss"}} 77"#));
    setup.check_has(&format!(r#"oom_limit_bytes{{{container},scope="container"}} 99"#));
}

#[test]
fn names_fall_back_to_identifiers() {
    let shown = |report: &OomReport| {
        let setup = setup(false, 5000);
        setup.observe(report);
        setup.samples()[0].clone()
    };
    let mut unnamed = full();
    let kubernetes = unnamed.kubernetes.as_mut().unwrap();
    (kubernetes.namespace, kubernetes.pod, kubernetes.container) = (None, None, None);
    let (uid, id) = (kubernetes.pod_uid.clone(), kubernetes.container_id.clone().unwrap());
    assert_eq!(
        shown(&unnamed),
        format!(r#"oom_kills_total{{node="worker-1",namespace="",pod="{uid}",container="{id}"}} 1"#)
    );
    unnamed.kubernetes.as_mut().unwrap().container_id = None;
    assert_eq!(
        shown(&unnamed),
        format!(r#"oom_kills_total{{node="worker-1",namespace="",pod="{uid}",container=""}} 1"#)
    );
    let docker = r#"oom_kills_total{node="worker-1",namespace="",pod="",container="web"} 1"#;
    assert_eq!(shown(&in_docker()), docker);
    let host = r#"oom_kills_total{node="worker-1",namespace="",pod="",container=""} 1"#;
    assert_eq!(shown(&in_service()), host);
}

#[test]
fn an_incident_counts_once_however_many_died() {
    let setup = setup(false, 5000);
    for _ in 0..5 {
        setup.observe(&kill("app", "group"));
    }
    setup.observe(&kill("other", "group"));
    let app = r#"node="worker-1",namespace="shop",pod="cart",container="app""#;
    setup.check_has(&format!("oom_kills_total{{{app}}} 5"));
    setup.check_has(&format!(r#"oom_incidents_total{{{app},scope="container"}} 1"#));
    setup.check_has(r#"oom_kills_per_node_total{node="worker-1"} 6"#);
    assert_eq!(setup.samples().iter().filter(|line| line.starts_with("oom_incidents_total")).count(), 1);
}

#[test]
fn a_live_container_has_a_zero_which_outlives_its_restarts() {
    let setup = setup(true, 5000);
    let zero = r#"oom_kills_total{node="worker-1",namespace="shop",pod="cart",container="app"} 0"#;
    let nothing_else = r#"oom_kills_per_node_total{node="worker-1"} 0"#;
    setup.metrics.appear(labels("app"));
    setup.check(&[zero, nothing_else]);

    let day = Duration::from_hours(24);
    setup.metrics.catch_up(setup.now + day);
    setup.check(&[zero, nothing_else]);

    setup.metrics.retire(&labels("app"), setup.now);
    setup.metrics.appear(labels("app"));
    setup.metrics.catch_up(setup.now + day);
    setup.check(&[zero, nothing_else]);

    setup.metrics.retire(&labels("app"), setup.now);
    setup.metrics.retire(&labels("app"), setup.now + Duration::from_mins(30));
    setup.metrics.catch_up(setup.now + Duration::from_secs(3599));
    setup.check(&[zero, nothing_else]);
    setup.metrics.catch_up(setup.now + Duration::from_hours(1));
    setup.check(&[nothing_else]);
}

#[test]
fn a_container_that_nobody_called_alive_goes_after_its_last_kill() {
    let setup = setup(false, 5000);
    let half = Duration::from_mins(30);
    setup.metrics.observe(&kill("app", "1"), setup.now);
    setup.metrics.observe(&kill("app", "2"), setup.now + half);
    setup.metrics.catch_up(setup.now + 2 * half);
    setup.check_series(11);
    setup.metrics.catch_up(setup.now + 3 * half);
    setup.check_series(0);
    setup.check(&[r#"oom_kills_per_node_total{node="worker-1"} 2"#]);
}

#[test]
fn a_kill_in_a_live_container_does_not_make_it_gone() {
    let setup = setup(true, 5000);
    setup.metrics.appear(labels("app"));
    setup.observe(&kill("app", "1"));
    setup.metrics.catch_up(setup.now + Duration::from_hours(24));
    setup.check_series(11);
}

/// Without zero series, and where the limit leaves none.
#[test]
fn a_live_container_without_a_zero_keeps_the_series_of_its_kills() {
    let day = Duration::from_hours(24);
    for (zero_series, max_series) in [(false, 5000), (true, 99)] {
        let setup = setup(zero_series, max_series);
        let fillers = if zero_series { 50 } else { 0 };
        for filler in 0..fillers {
            setup.metrics.appear(labels(&filler.to_string()));
        }
        setup.metrics.appear(labels("app"));
        setup.metrics.appear(labels("quiet"));
        assert!(!setup.samples().iter().any(|sample| sample.contains(r#"container="app""#)));
        setup.observe(&kill("app", "1"));
        setup.metrics.catch_up(setup.now + day);
        let kills = |count| {
            format!(r#"oom_kills_total{{node="worker-1",namespace="shop",pod="cart",container="app"}} {count}"#)
        };
        setup.check_has(&kills(1));
        setup.observe(&kill("app", "2"));
        setup.check_has(&kills(2));

        setup.metrics.retire(&labels("app"), setup.now + day);
        setup.metrics.retire(&labels("quiet"), setup.now + day);
        setup.metrics.catch_up(setup.now + day + Duration::from_hours(1));
        assert!(!setup.samples().iter().any(|sample| sample.contains(r#"container="app""#)));
        // One that went in silence is as any other that nobody has called alive.
        setup.observe(&kill("quiet", "3"));
        setup.metrics.catch_up(setup.now + Duration::from_hours(1));
        assert!(!setup.samples().iter().any(|sample| sample.contains(r#"container="quiet""#)));
    }
}

#[test]
fn each_scrape_asks_which_containers_live() {
    let config =
        MetricsConfig { address: None, port: 0, zero_series: true, max_series: 5000, series_retention: Duration::ZERO };
    let (telemetry, names) = (Arc::new(Telemetry::new()), Names::new(Limits::default()));
    let metrics = Arc::new(KillMetrics::new(&config, Arc::clone(&telemetry)).following(names.clone()));
    let page = Exposition::new("worker-1", metrics, telemetry);
    let has_zero = || page.render().unwrap().contains(r#"pod="cart",container="app"} 0"#);
    assert!(!has_zero());
    let file_name = format!("cart_shop_app-{}.log", "a".repeat(64));
    let key = link::key(&file_name).unwrap();
    names.with(|index| index.apply(key.clone(), link::parse(&file_name, None).unwrap(), Instant::now()));
    assert!(has_zero(), "at the first scrape after its link");
    names.with(|index| index.delete(&key, Instant::now()));
    assert!(!has_zero(), "nor is it shown when it is gone, with a retention of nothing");
}

#[test]
fn zeros_take_half_of_the_limit() {
    let setup = setup(true, 100);
    for container in 0..80 {
        setup.metrics.appear(labels(&container.to_string()));
    }
    setup.check_series(49);
    assert!(setup.page.render().unwrap().contains("\noom_watcher_series_refused_total 31\n"));
    setup.observe(&kill("new", "1"));
    setup.check_series(49 + 11);
}

#[test]
fn a_live_container_gets_its_zero_when_there_is_room() {
    let setup = setup(true, 20);
    for container in 0..20 {
        setup.metrics.appear(labels(&container.to_string()));
    }
    setup.check_series(9);
    for container in 0..9 {
        setup.metrics.retire(&labels(&container.to_string()), setup.now);
    }
    setup.metrics.catch_up(setup.now + Duration::from_hours(24));
    setup.check_series(9);
    for container in ["10", "15"] {
        setup.check_has(&format!(
            r#"oom_kills_total{{node="worker-1",namespace="shop",pod="cart",container="{container}"}} 0"#
        ));
    }
}

#[test]
fn the_limit_holds_and_what_it_refuses_is_counted() {
    let setup = setup(true, 90);
    // All live, so that none of them may be dropped for another.
    let containers = ["0", "1", "2", "3", "4", "5", "6", "7", "late"];
    for container in &containers {
        setup.metrics.appear(labels(container));
    }
    for container in &containers[..8] {
        setup.observe(&kill(container, container));
    }
    setup.check_series(8 * 11 + 1);

    // No room for figures: the counters alone.
    setup.observe(&kill("late", "late"));
    setup.check_series(90);
    setup.check_has(r#"oom_kills_total{node="worker-1",namespace="shop",pod="cart",container="late"} 1"#);
    setup.observe(&kill("late", "later"));
    setup.check_has(r#"oom_kills_total{node="worker-1",namespace="shop",pod="cart",container="late"} 2"#);
    setup.check_series(90);

    // No room at all: the node's total and the loss say so.
    setup.observe(&kill("new", "new"));
    setup.check_series(90);
    setup.check_has(r#"oom_kills_per_node_total{node="worker-1"} 11"#);
    assert_eq!((setup.telemetry.passed(Stage::SinkMetrics), setup.telemetry.lost(Stage::SinkMetrics)), (10, 1));
    assert!(setup.page.render().unwrap().contains("\noom_watcher_series_refused_total 29\n"));
}

#[test]
fn a_kill_takes_the_place_of_the_container_that_is_gone_for_longest() {
    let setup = setup(true, 95);
    for (container, age) in [("b", 1), ("a", 2), ("c", 3)] {
        setup.metrics.observe(&kill(container, container), setup.now + Duration::from_secs(age));
    }
    let live = ["0", "1", "2", "3", "4"];
    for container in &live {
        setup.metrics.appear(labels(container));
    }
    for container in &live {
        setup.observe(&kill(container, container));
    }
    setup.check_series(8 * 11);
    setup.metrics.observe(&kill("d", "d"), setup.now + Duration::from_secs(4));
    setup.check_series(8 * 11);
    let samples = setup.samples().join("\n");
    assert!(!samples.contains(r#"container="b""#), "{samples}");
    assert!(samples.contains(r#"container="a""#) && samples.contains(r#"container="d""#), "{samples}");
    assert!(setup.page.render().unwrap().contains("\noom_watcher_series_evicted_total 11\n"));
    assert_eq!(setup.telemetry.lost(Stage::SinkMetrics), 0);
}

#[test]
fn a_pod_has_its_owner_as_long_as_it_has_other_series() {
    let setup = setup(false, 5000);
    let pod = r#"oom_pod_info{node="worker-1",namespace="shop",pod="cart-7f9c6d5b4-x2x7k","#;
    setup.metrics.enrich(&enrichment());
    setup.check_series(0);

    setup.observe(&full());
    setup.metrics.enrich(&enrichment());
    setup.metrics.enrich(&enrichment());
    let series = setup.samples().len() - 1;
    setup.check_has(&format!(r#"{pod}owner_kind="Deployment",owner_name="cart"}} 1"#));

    let mut orphan = enrichment();
    orphan.kubernetes.owner = None;
    setup.metrics.enrich(&orphan);
    setup.check_has(&format!(r#"{pod}owner_kind="",owner_name=""}} 1"#));
    setup.check_series(series);

    setup.metrics.catch_up(setup.now + Duration::from_hours(1));
    setup.check_series(0);
}

#[test]
fn a_pod_that_only_the_api_could_name_has_its_owner_under_its_uid() {
    let setup = setup(false, 5000);
    let mut unnamed = full();
    let kubernetes = unnamed.kubernetes.as_mut().unwrap();
    (kubernetes.namespace, kubernetes.pod, kubernetes.container) = (None, None, None);
    let mut enrichment = enrichment();
    enrichment.kubernetes.pod_uid.clone_from(&kubernetes.pod_uid);
    let uid = kubernetes.pod_uid.clone();
    setup.observe(&unnamed);
    setup.metrics.enrich(&enrichment);
    let pod = format!(r#"oom_pod_info{{node="worker-1",namespace="",pod="{uid}","#);
    setup.check_has(&format!(r#"{pod}owner_kind="Deployment",owner_name="cart"}} 1"#));
    assert_eq!(setup.samples().iter().filter(|line| line.starts_with("oom_pod_info")).count(), 1);
}

#[test]
fn the_limit_of_series_holds_for_owners_too() {
    let setup = setup(true, 100);
    for container in 0..9 {
        let container = container.to_string();
        setup.metrics.appear(ContainerLabels::new("shop", "cart-7f9c6d5b4-x2x7k", &container));
    }
    for container in 0..9 {
        let mut report = kill(&container.to_string(), &container.to_string());
        report.kubernetes.as_mut().unwrap().pod = Some("cart-7f9c6d5b4-x2x7k".to_owned());
        setup.observe(&report);
    }
    setup.metrics.appear(labels("other"));
    setup.check_series(9 * 11);
    setup.metrics.enrich(&enrichment());
    setup.check_series(100);
    let mut another = enrichment();
    another.kubernetes.pod = "cart".to_owned();
    setup.observe(&kill("late", "late"));
    setup.metrics.enrich(&another);
    setup.check_series(100);
}

#[test]
fn hostile_names_keep_the_format() {
    let setup = setup(false, 5000);
    let reports = hostile_elsewhere().into_iter().chain([hostile(), hostile_long()]);
    for (number, mut report) in reports.enumerate() {
        report.incident.id = number.to_string();
        setup.observe(&report);
    }
    setup.metrics.enrich(&hostile_enrichment());
    let samples = setup.samples();
    let escaped = r#"a\\nb\\r\"c\"\\\\x1b[2J\\x1b]0;t\\x07\\u{9b}31m\\u{202e}d"#;
    assert!(samples.iter().any(|line| line.contains(escaped)), "{samples:#?}");
    for line in &samples {
        assert!(!line.contains(is_unsafe), "{line:?}");
        let (_, labels, _) = sample(line).unwrap_or_else(|| panic!("not a sample: {line}"));
        for (name, value) in labels {
            assert!(value.chars().count() <= 253, "{name} of {line}");
        }
    }
    let owner = samples.iter().find(|line| line.starts_with("oom_pod_info{")).expect("the pod has an owner");
    let (_, labels, _) = sample(owner).unwrap();
    let value = |label: &str| labels.iter().find(|(name, _)| *name == label).map(|(_, value)| value.as_str());
    let shown = crate::escape::escaped_within(&crate::sinks::samples::hostile_long_name(), 253);
    for label in ["namespace", "pod", "owner_kind", "owner_name"] {
        assert_eq!(value(label), Some(&*shown), "{label}");
    }
}

proptest! {
    #[test]
    fn any_name_is_one_label(pod in any::<String>()) {
        let setup = setup(true, 5000);
        setup.metrics.appear(ContainerLabels::new("shop", &pod, "app"));
        let samples = setup.samples();
        prop_assert_eq!(samples.len(), 2, "{:?}", samples);
        let value = samples[0].strip_prefix(r#"oom_kills_total{node="worker-1",namespace="shop",pod=""#);
        let value = value.and_then(|rest| rest.strip_suffix(r#"",container="app"} 0"#));
        let value = value.expect("the labels around it are untouched");
        let bare = value.replace(r"\\", "").replace(r#"\""#, "");
        prop_assert!(!bare.contains(['"', '\\']) && !bare.contains(is_unsafe), "{value:?}");
    }
}
