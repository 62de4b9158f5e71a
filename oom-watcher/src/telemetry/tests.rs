use std::time::{Duration, Instant};

use prometheus_client::{encoding::text, registry::Registry};

use super::*;
use crate::{
    names::{Problem, Stats, cri::CriStats},
    report::{AttributionResult, AttributionSource},
    telemetry::events::{
        EnrichmentLineLost, HttpClientRejected, KubernetesOverflowed, SeriesRefused, StdoutAbandoned, StdoutOverflowed,
    },
};

/// The page, without the lines of HELP (their text is in the documentation) and with the build left out.
fn page(telemetry: &std::sync::Arc<Telemetry>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(std::sync::Arc::clone(telemetry)));
    let mut page = String::new();
    text::encode(&mut page, &registry).unwrap();
    page.lines().filter(|line| !line.starts_with("# HELP") && !line.contains("_build")).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check(telemetry: Telemetry, expected: &str) {
    let page = page(&std::sync::Arc::new(telemetry));
    assert_eq!(page.split_once(CONTINUITY).unwrap().0, expected);
}

/// The samples about the API, in an agent that uses it for that.
fn of_the_api(enrichment: bool, events: bool) -> Vec<String> {
    let telemetry = Telemetry::new();
    if enrichment || events {
        telemetry.set_kubernetes_use(ApiUse { enrichment, events, queue_limit: 256 });
    }
    let page = page(&std::sync::Arc::new(telemetry));
    let (_, shown) = page.split_once(KUBERNETES).unwrap();
    shown.lines().filter(|line| line.starts_with("oom_")).map(str::to_owned).collect()
}

/// What is counted of the API is a closed set, the product of its labels; of what is not asked, nothing is shown.
#[test]
fn what_the_api_is_asked_exists_at_zero_from_the_start() {
    assert_eq!(of_the_api(false, false), [""; 0]);
    for (enrichment, events) in [(true, true), (true, false), (false, true)] {
        let used = [enrichment, enrichment, events, events];
        let verbs = ApiVerb::ALL.into_iter().zip(used).filter_map(|((_, verb), used)| used.then_some(verb));
        let mut expected: Vec<String> = verbs
            .flat_map(|verb| ApiOutcome::ALL.map(|(_, outcome)| (verb, outcome)))
            .map(|(verb, outcome)| {
                format!(r#"oom_watcher_kubernetes_requests_total{{verb="{verb}",outcome="{outcome}"}} 0"#)
            })
            .collect();
        if events {
            let told = |(_, outcome)| format!(r#"oom_watcher_pod_events_total{{outcome="{outcome}"}} 0"#);
            expected.extend(PodEventOutcome::ALL.map(told));
        }
        if enrichment {
            let added = |(_, outcome)| format!(r#"oom_watcher_enrichments_total{{outcome="{outcome}"}} 0"#);
            expected.extend(EnrichmentOutcome::ALL.map(added));
            expected.push("oom_watcher_lost_enrichment_lines_total 0".into());
        }
        expected.extend(
            ["oom_watcher_kubernetes_queue_length 0", "oom_watcher_kubernetes_queue_limit 256"].map(str::to_owned),
        );
        assert_eq!(of_the_api(enrichment, events), expected, "{enrichment} {events}");
    }
}

/// Where the families of the time before and of privileges begin.
const CONTINUITY: &str = "# TYPE oom_watcher_unwatched_kills gauge\n";

#[test]
fn what_is_known_of_the_time_before_exists_at_zero_from_the_start() {
    let page = page(&std::sync::Arc::new(Telemetry::new()));
    let shown = page.split_once(CONTINUITY).unwrap().1.split_once(NAMES).unwrap().0;
    let expected = r#"# TYPE oom_watcher_recovered_kills counter
oom_watcher_recovered_kills_total 0
# TYPE oom_watcher_pinned gauge
oom_watcher_pinned 0
# TYPE oom_watcher_state_errors counter
oom_watcher_state_errors_total{operation="read"} 0
oom_watcher_state_errors_total{operation="write"} 0
# TYPE oom_watcher_seccomp gauge
oom_watcher_seccomp 0
# TYPE oom_watcher_oom_score_adj gauge
"#;
    assert_eq!(shown, expected);
}

/// Where the families of the API begin.
const KUBERNETES: &str = "# TYPE oom_watcher_kubernetes_requests counter\n";

#[test]
fn everything_exists_at_zero_from_the_start() {
    check(
        Telemetry::new(),
        r#"# TYPE oom_watcher_hook_attached gauge
# TYPE oom_watcher_events counter
oom_watcher_events_total{stage="ring_buffer"} 0
oom_watcher_events_total{stage="decode"} 0
oom_watcher_events_total{stage="attribute"} 0
oom_watcher_events_total{stage="report"} 0
oom_watcher_events_total{stage="sink_stdout"} 0
oom_watcher_events_total{stage="sink_metrics"} 0
oom_watcher_events_total{stage="sink_event"} 0
# TYPE oom_watcher_lost_events counter
oom_watcher_lost_events_total{stage="ring_buffer"} 0
oom_watcher_lost_events_total{stage="decode"} 0
oom_watcher_lost_events_total{stage="attribute"} 0
oom_watcher_lost_events_total{stage="report"} 0
oom_watcher_lost_events_total{stage="sink_stdout"} 0
oom_watcher_lost_events_total{stage="sink_metrics"} 0
oom_watcher_lost_events_total{stage="sink_event"} 0
# TYPE oom_watcher_marks counter
oom_watcher_marks_total 0
# TYPE oom_watcher_marks_without_kill counter
oom_watcher_marks_without_kill_total 0
# TYPE oom_watcher_shared_mm_kills counter
oom_watcher_shared_mm_kills_total 0
# TYPE oom_watcher_victims_without_task counter
oom_watcher_victims_without_task_total 0
# TYPE oom_watcher_duplicate_records counter
oom_watcher_duplicate_records_total 0
# TYPE oom_watcher_lost_incidents counter
oom_watcher_lost_incidents_total 0
# TYPE oom_watcher_oom_invocations counter
oom_watcher_oom_invocations_total{result="killed"} 0
oom_watcher_oom_invocations_total{result="no_victim"} 0
# TYPE oom_watcher_missed_kills counter
oom_watcher_missed_kills_total 0
# TYPE oom_watcher_kills_before_start gauge
# TYPE oom_watcher_attributions counter
oom_watcher_attributions_total{result="foreign",source="path"} 0
oom_watcher_attributions_total{result="full",source="bundle"} 0
oom_watcher_attributions_total{result="full",source="cri"} 0
oom_watcher_attributions_total{result="full",source="index"} 0
oom_watcher_attributions_total{result="full",source="pod_directory"} 0
oom_watcher_attributions_total{result="full",source="rescan"} 0
oom_watcher_attributions_total{result="host",source="path"} 0
oom_watcher_attributions_total{result="host",source="runtime_file"} 0
oom_watcher_attributions_total{result="id",source="path"} 0
oom_watcher_attributions_total{result="none",source="path"} 0
oom_watcher_attributions_total{result="pod",source="bundle"} 0
oom_watcher_attributions_total{result="pod",source="pod_directory"} 0
oom_watcher_attributions_total{result="pod",source="rescan"} 0
oom_watcher_attributions_total{result="pod",source="sibling"} 0
# TYPE oom_watcher_attribution_seconds histogram
# UNIT oom_watcher_attribution_seconds seconds
# TYPE oom_watcher_series_refused counter
oom_watcher_series_refused_total 0
# TYPE oom_watcher_series_evicted counter
oom_watcher_series_evicted_total 0
# TYPE oom_watcher_http_rejected counter
oom_watcher_http_rejected_total{reason="too_many_connections"} 0
oom_watcher_http_rejected_total{reason="too_many_scrapes"} 0
oom_watcher_http_rejected_total{reason="timeout"} 0
"#,
    );
}

#[test]
fn what_is_told_of_names_exists_at_zero_from_the_start() {
    let page = page(&std::sync::Arc::new(Telemetry::new()));
    let (_, shown) = page.split_once(NAMES).unwrap();
    let (shown, _) = shown.split_once(KUBERNETES).unwrap();
    assert_eq!(
        shown,
        r#"oom_watcher_names{state="live"} 0
oom_watcher_names{state="gone"} 0
# TYPE oom_watcher_names_scan_age_seconds gauge
# UNIT oom_watcher_names_scan_age_seconds seconds
# TYPE oom_watcher_names_scans counter
oom_watcher_names_scans_total 0
# TYPE oom_watcher_names_errors counter
oom_watcher_names_errors_total 0
# TYPE oom_watcher_names_overflows counter
oom_watcher_names_overflows_total 0
# TYPE oom_watcher_names_links counter
oom_watcher_names_links_total{outcome="ignored"} 0
oom_watcher_names_links_total{outcome="refused"} 0
oom_watcher_names_links_total{outcome="evicted"} 0
# TYPE oom_watcher_names_degraded gauge
oom_watcher_names_degraded{reason="missing"} 0
oom_watcher_names_degraded{reason="unreadable"} 0
oom_watcher_names_degraded{reason="watch_limit"} 0
oom_watcher_names_degraded{reason="too_many_entries"} 0
oom_watcher_names_degraded{reason="index_full"} 0
oom_watcher_names_degraded{reason="other"} 0
# TYPE oom_watcher_name_searches gauge
oom_watcher_name_searches 0
# TYPE oom_watcher_name_searches_refused counter
oom_watcher_name_searches_refused_total 0
# TYPE oom_watcher_cri_requests counter
oom_watcher_cri_requests_total{result="answered"} 0
oom_watcher_cri_requests_total{result="failed"} 0
"#
    );
}

/// Where the families of names begin.
const NAMES: &str = "# TYPE oom_watcher_names gauge\n";

#[track_caller]
fn check_has(telemetry: Telemetry, lines: &[&str]) {
    let page = page(&std::sync::Arc::new(telemetry));
    for line in lines {
        assert!(page.lines().any(|shown| shown == *line), "{line} is not in:\n{page}");
    }
}

#[test]
fn what_is_counted_is_shown() {
    let telemetry = Telemetry::new();
    telemetry.count_passed(Stage::Decode);
    assert_eq!(telemetry.count_lost(Stage::Decode, 3), 3);
    assert_eq!(telemetry.count_lost(Stage::Decode, 2), 5);
    telemetry.set_hook("mark_victim", "raw_tp", true);
    telemetry.set_hook("out_of_memory", "fentry", false);
    telemetry.count_attribution(AttributionResult::Full, AttributionSource::Index, Some(Duration::from_millis(4)));
    telemetry.count_attribution(AttributionResult::Full, AttributionSource::Index, Some(Duration::from_millis(250)));
    telemetry.count_attribution(AttributionResult::Id, AttributionSource::Path, None);
    telemetry.set_names(names_state);
    telemetry.set_kills_before_start(7);
    telemetry.set_kills_before_start(8);
    telemetry.set_unwatched_kills(3);
    telemetry.count_state_not_read();
    telemetry.count_state_not_written();
    telemetry.set_seccomp(true);
    telemetry.set_pinned(true);
    telemetry.set_oom_score_adj(-997);
    telemetry.count_recovered();
    telemetry.set_missed_kills(2);
    telemetry.set_missed_kills(1);
    check_has(
        telemetry,
        &[
            r#"oom_watcher_events_total{stage="decode"} 1"#,
            r#"oom_watcher_lost_events_total{stage="decode"} 5"#,
            r#"oom_watcher_hook_attached{hook="mark_victim",method="raw_tp"} 1"#,
            r#"oom_watcher_hook_attached{hook="out_of_memory",method="fentry"} 0"#,
            r#"oom_watcher_attributions_total{result="full",source="index"} 2"#,
            r#"oom_watcher_attributions_total{result="id",source="path"} 1"#,
            r#"oom_watcher_attribution_seconds_sum{source="index"} 0.254"#,
            r#"oom_watcher_attribution_seconds_count{source="index"} 2"#,
            r#"oom_watcher_attribution_seconds_bucket{le="0.001",source="index"} 0"#,
            r#"oom_watcher_attribution_seconds_bucket{le="0.01",source="index"} 1"#,
            r#"oom_watcher_attribution_seconds_bucket{le="1.0",source="index"} 2"#,
            r#"oom_watcher_attribution_seconds_bucket{le="+Inf",source="index"} 2"#,
            r#"oom_watcher_cri_requests_total{result="answered"} 3"#,
            r#"oom_watcher_cri_requests_total{result="failed"} 1"#,
            "oom_watcher_kills_before_start 7",
            "oom_watcher_unwatched_kills 3",
            r#"oom_watcher_state_errors_total{operation="read"} 1"#,
            r#"oom_watcher_state_errors_total{operation="write"} 1"#,
            "oom_watcher_seccomp 1",
            "oom_watcher_pinned 1",
            "oom_watcher_oom_score_adj -997",
            "oom_watcher_recovered_kills_total 1",
            "oom_watcher_missed_kills_total 2",
            r#"oom_watcher_names{state="live"} 11"#,
            r#"oom_watcher_names{state="gone"} 12"#,
            r#"oom_watcher_names_degraded{reason="missing"} 0"#,
            r#"oom_watcher_names_degraded{reason="watch_limit"} 1"#,
            "oom_watcher_names_scans_total 16",
            "oom_watcher_names_errors_total 17",
            "oom_watcher_names_overflows_total 18",
            r#"oom_watcher_names_links_total{outcome="ignored"} 15"#,
            r#"oom_watcher_names_links_total{outcome="refused"} 13"#,
            r#"oom_watcher_names_links_total{outcome="evicted"} 14"#,
            "oom_watcher_name_searches 19",
            "oom_watcher_name_searches_refused_total 20",
        ],
    );
}

fn names_state() -> NamesState {
    NamesState {
        index: Stats {
            live: 11,
            gone: 12,
            last_scan: None,
            refused: 13,
            evicted: 14,
            ignored: 15,
            scans: 16,
            errors: 17,
            overflows: 18,
        },
        problem: Some(Problem::WatchLimit),
        searches: 19,
        searches_refused: 20,
        cri: CriStats { answered: 3, failed: 1 },
    }
}

#[test]
fn the_age_of_the_last_scan_is_there_once_there_was_one() {
    let telemetry = Telemetry::new();
    let minute_ago = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
    let index = Stats { last_scan: Some(minute_ago), ..Stats::default() };
    telemetry.set_names(move || NamesState { index, ..NamesState::default() });
    let page = page(&std::sync::Arc::new(telemetry));
    let line = page.lines().find_map(|line| line.strip_prefix("oom_watcher_names_scan_age_seconds ")).unwrap();
    assert!((60.0..90.0).contains(&line.parse::<f64>().unwrap()), "{line}");
}

#[test]
fn the_kernel_programs_counters_are_read_at_each_scrape() {
    let telemetry = Telemetry::new();
    telemetry.set_kernel_counters(|| {
        let mut counters = [0; counter::COUNT as usize];
        for (slot, value) in counters.iter_mut().zip(10..) {
            *slot = value;
        }
        counters
    });
    assert_eq!((telemetry.passed(Stage::RingBuffer), telemetry.lost(Stage::RingBuffer)), (12, 13));
    check_has(
        telemetry,
        &[
            "oom_watcher_marks_total 10",
            "oom_watcher_marks_without_kill_total 11",
            r#"oom_watcher_events_total{stage="ring_buffer"} 12"#,
            r#"oom_watcher_lost_events_total{stage="ring_buffer"} 13"#,
            "oom_watcher_lost_incidents_total 14",
            r#"oom_watcher_oom_invocations_total{result="killed"} 15"#,
            r#"oom_watcher_oom_invocations_total{result="no_victim"} 16"#,
            "oom_watcher_shared_mm_kills_total 17",
            "oom_watcher_victims_without_task_total 18",
        ],
    );
}

#[test]
fn an_event_that_is_logged_is_counted() {
    let telemetry = Telemetry::new();
    StdoutOverflowed.emit(&telemetry);
    StdoutAbandoned { lines: 4 }.emit(&telemetry);
    SeriesRefused { series: 11, max_series: 100 }.emit(&telemetry);
    HttpClientRejected { reason: HttpRejection::Timeout }.emit(&telemetry);
    check_has(
        telemetry,
        &[
            r#"oom_watcher_lost_events_total{stage="sink_stdout"} 5"#,
            "oom_watcher_series_refused_total 11",
            r#"oom_watcher_http_rejected_total{reason="timeout"} 1"#,
        ],
    );
}

#[test]
fn the_labels_are_in_the_order_of_their_declaration() {
    for (index, (verb, label)) in ApiVerb::ALL.into_iter().enumerate() {
        assert_eq!((verb as usize, verb.as_str()), (index, label));
    }
    for (index, (outcome, label)) in ApiOutcome::ALL.into_iter().enumerate() {
        assert_eq!((outcome as usize, outcome.as_str()), (index, label));
    }
    for (index, (outcome, _)) in PodEventOutcome::ALL.into_iter().enumerate() {
        assert_eq!(outcome as usize, index);
    }
    for (index, (outcome, _)) in EnrichmentOutcome::ALL.into_iter().enumerate() {
        assert_eq!(outcome as usize, index);
    }
}

#[test]
fn a_kill_without_a_place_for_the_api_is_counted_where_it_would_have_gone() {
    let telemetry = Telemetry::new();
    telemetry.set_kubernetes_use(ApiUse { enrichment: true, events: true, queue_limit: 256 });
    KubernetesOverflowed { enrichment: true, events: false }.emit(&telemetry);
    KubernetesOverflowed { enrichment: true, events: true }.emit(&telemetry);
    EnrichmentLineLost { error: None }.emit(&telemetry);
    check_has(
        telemetry,
        &[
            r#"oom_watcher_enrichments_total{outcome="skipped"} 2"#,
            r#"oom_watcher_pod_events_total{outcome="overflow"} 1"#,
            r#"oom_watcher_lost_events_total{stage="sink_event"} 1"#,
            r#"oom_watcher_lost_events_total{stage="sink_stdout"} 0"#,
            "oom_watcher_lost_enrichment_lines_total 1",
        ],
    );
}

/// Every sample belongs to a declared family and has exactly its labels: the documentation cannot differ.
#[test]
fn the_page_is_what_the_families_declare() {
    let telemetry = Telemetry::new();
    telemetry.set_hook("mark_victim", "raw_tp", true);
    telemetry.set_kills_before_start(0);
    let index = Stats { last_scan: Some(Instant::now()), ..Stats::default() };
    telemetry.set_names(move || NamesState { index, ..NamesState::default() });
    telemetry.set_kubernetes_use(ApiUse { enrichment: true, events: true, queue_limit: 256 });
    telemetry.set_unwatched_kills(0);
    telemetry.set_oom_score_adj(0);
    telemetry.count_attribution(AttributionResult::Host, AttributionSource::Path, Some(Duration::ZERO));
    exposition::check_page(FAMILIES, &page(&std::sync::Arc::new(telemetry)), "");
}

#[test]
fn the_rows_of_the_stages_are_in_the_order_of_the_stages() {
    for (index, row) in STAGES.iter().enumerate() {
        assert_eq!(row.stage as usize, index, "{}", row.label);
    }
}
