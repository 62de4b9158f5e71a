use std::{fs, path::Path};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    enrichment::{EnrichedPod, EnrichedVictim},
    report::OomReport,
    sinks::samples::{
        HOSTILE, enrichment, full, hostile, hostile_elsewhere, hostile_enrichment, hostile_long, hostile_long_name,
        in_docker, in_service, minimal,
    },
};

/// A line is one valid JSON object by the committed schema.
#[track_caller]
fn check(report: &OomReport) -> Value {
    check_against("event.schema.json", report)
}

#[track_caller]
fn check_against(schema: &str, report: &impl Serialize) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(schema);
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let line = line(report).unwrap();
    assert!(!line.contains(is_unsafe), "{line:?}");
    let value: Value = serde_json::from_str(&line).unwrap();
    let errors: Vec<String> =
        jsonschema::validator_for(&schema).unwrap().iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}\n{value:#}");
    value
}

#[test]
fn a_full_report_keeps_the_schema() {
    let value = check(&full());
    assert_eq!(value["schema_version"], 1);
    assert_eq!(value["time"], "2026-11-22T17:45:00.123Z");
    assert_eq!(value["victim"]["anon_rss_bytes"], 480 * 1024 * 1024);
    assert_eq!(value["incident"]["scope"], "container");
    assert_eq!(value["kubernetes"]["pod"], "cart-7f9c6d5b4-x2x7k");
    assert_eq!(value["cgroup"]["levels"][3]["limit_bytes"], 512 * 1024 * 1024);
    assert_eq!(value["cgroup"]["levels"][1].get("limit_bytes"), None, "no limit is absent");
}

#[test]
fn an_enrichment_keeps_its_schema_and_is_no_report() {
    let whole = check_against("enrichment.schema.json", &enrichment());
    assert_eq!(whole["type"], "enrichment");
    assert_eq!(whole["incident_id"], check(&full())["incident"]["id"]);
    assert_eq!(whole["kubernetes"]["owner"], serde_json::json!({ "kind": "Deployment", "name": "cart" }));
    let mut bare = enrichment();
    bare.victim = EnrichedVictim { pid: 77, ..EnrichedVictim::default() };
    bare.kubernetes = EnrichedPod { pod: HOSTILE.to_owned(), ..EnrichedPod::default() };
    let bare = check_against("enrichment.schema.json", &bare);
    let known = serde_json::json!({ "namespace": "", "pod": HOSTILE, "pod_uid": "" });
    assert_eq!((&bare["kubernetes"], &bare["victim"]), (&known, &serde_json::json!({ "pid": 77 })));

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/event.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(!jsonschema::validator_for(&schema).unwrap().is_valid(&whole));
}

#[test]
fn what_is_not_known_is_left_out() {
    let value = check(&minimal());
    assert_eq!(value["victim"], serde_json::json!({ "pid": 77 }));
    for absent in ["cgroup", "memory", "kubernetes", "container", "systemd_unit"] {
        assert_eq!(value.get(absent), None, "{absent}");
    }
}

#[test]
fn victims_outside_kubernetes_keep_the_schema() {
    assert_eq!(check(&in_docker())["container"]["name"], "web");
    assert_eq!(check(&in_service())["systemd_unit"], "nginx.service");
}

#[test]
fn hostile_names_arrive_whole_and_harmless() {
    let value = check(&hostile());
    assert_eq!(value["victim"]["comm"], HOSTILE);
    assert_eq!(value["cgroup"]["path"], HOSTILE);
    assert_eq!(value["kubernetes"]["container"], HOSTILE);
}

/// Every text of a report that comes from outside.
#[track_caller]
fn check_long(value: &Value, pointers: &[&str]) {
    for pointer in pointers {
        assert_eq!(value.pointer(pointer).and_then(Value::as_str), Some(&*hostile_long_name()), "{pointer}");
    }
}

#[test]
fn hostile_names_of_4_kib_arrive_whole_and_harmless() {
    let everywhere = [
        "/node",
        "/victim/comm",
        "/victim/nodename",
        "/trigger/comm",
        "/trigger/cgroup_path",
        "/incident/memcg_path",
        "/cgroup/path",
        "/cgroup/levels/0/name",
        "/kubernetes/namespace",
        "/kubernetes/pod",
        "/kubernetes/pod_uid",
        "/kubernetes/container",
        "/kubernetes/container_id",
        "/kubernetes/runtime",
        "/kubernetes/sub_cgroup",
        "/container/id",
        "/container/name",
        "/container/runtime",
        "/systemd_unit",
    ];
    check_long(&check(&hostile_long()), &everywhere);
    for report in hostile_elsewhere() {
        check_long(&check(&report), &everywhere[..8]);
    }
}

#[test]
fn what_an_api_server_says_arrives_whole_and_harmless() {
    let value = check_against("enrichment.schema.json", &hostile_enrichment());
    let everywhere = [
        "/node",
        "/victim/comm",
        "/kubernetes/namespace",
        "/kubernetes/pod",
        "/kubernetes/pod_uid",
        "/kubernetes/container",
        "/kubernetes/container_id",
        "/kubernetes/owner/kind",
        "/kubernetes/owner/name",
        "/kubernetes/labels/team",
        "/kubernetes/image",
        "/kubernetes/node",
    ];
    check_long(&value, &everywhere);
    assert_eq!(value["kubernetes"]["labels"][&hostile_long_name()], Value::from(hostile_long_name()), "also as a key");
}

#[test]
fn the_schema_refuses_what_it_should() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/event.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let good: Value = serde_json::from_str(&line(&full()).unwrap()).unwrap();
    for (pointer, bad) in [
        ("/victim/anon_rss_bytes", Value::Null),
        ("/victim/anon_rss_bytes", Value::from(-1)),
        ("/incident/scope", Value::from("galaxy")),
        ("/time", Value::from(7)),
        ("/cgroup/levels", Value::from("none")),
    ] {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = bad;
        assert!(!validator.is_valid(&changed), "{pointer}");
    }
    let mut without_victim = good;
    without_victim.as_object_mut().unwrap().remove("victim");
    assert!(!validator.is_valid(&without_victim));
}

proptest! {
    #[test]
    fn any_name_survives(name in any::<String>()) {
        let mut report = hostile();
        report.victim.comm = Some(name.clone());
        let line = line(&report).unwrap();
        prop_assert!(!line.contains(is_unsafe), "{line:?}");
        let value: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(value["victim"]["comm"].as_str(), Some(&*name));
    }
}
