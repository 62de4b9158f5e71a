use proptest::prelude::*;

use super::*;
use crate::{
    escape::is_unsafe,
    report::Cgroup,
    sinks::samples::{
        enrichment, full, hostile, hostile_elsewhere, hostile_enrichment, hostile_long, in_docker, in_service, minimal,
    },
};

/// What a line may be at most: at most six names, and the words and figures between them.
const LINE_MAX: usize = 200 + 6 * NAME_MAX;

#[track_caller]
fn check(report: &OomReport, expected: &str) {
    assert_eq!(line(report), expected);
}

fn changed(change: impl FnOnce(&mut OomReport)) -> OomReport {
    let mut report = full();
    change(&mut report);
    report
}

#[test]
fn an_ordinary_kill_fits_a_line() {
    let expected = "2026-11-22T17:45:00.123Z OOM kill: java (pid 4242) in shop/cart-7f9c6d5b4-x2x7k/app: \
                    limit of the container 512 MiB, 511 MiB used; anon 480 MiB, shmem 29 MiB; killed with 3 others";
    check(&full(), expected);
    assert!(expected.len() <= 200);
}

#[test]
fn little_known_is_said_as_little() {
    check(
        &minimal(),
        "2026-11-22T17:45:00.000Z OOM kill: pid 77 in an unknown cgroup: not known what ran out; \
         triggered by stress (pid 79)",
    );
}

#[test]
fn outside_kubernetes() {
    assert!(line(&in_docker()).contains(" in container web: "));
    assert!(line(&in_service()).contains(" in nginx.service: "));
    let cgroup = Cgroup { path: "/user.slice/user-0.slice".to_owned(), ..Cgroup::default() };
    let report = OomReport { cgroup: Some(cgroup.into()), ..minimal() };
    assert!(line(&report).contains(" in cgroup /user.slice/user-0.slice: "));
}

#[test]
fn without_names_the_identifiers_are_shown_whole() {
    let report = changed(|report| {
        let kubernetes = report.kubernetes.as_mut().unwrap();
        (kubernetes.namespace, kubernetes.pod, kubernetes.container) = (None, None, None);
    });
    let shown = line(&report);
    let place = " in pod 0a5a1b6e-9d1f-4a9b-8f0e-0c6d2f7f9a11/\
                 0f3a5c7e9b1d2f4a6c8e0b3d5f7a9c1e2b4d6f8a0c3e5b7d9f1a2c4e6b8d0f3a: ";
    assert!(shown.contains(place), "{shown}");
}

#[test]
fn whose_limit_it_was() {
    for (scope, expected) in [
        (Scope::Container, ": limit of the container 512 MiB, 511 MiB used;"),
        (Scope::Pod, ": limit of the pod 512 MiB, 511 MiB used;"),
        (Scope::Qos, ": limit of the QoS class 512 MiB, 511 MiB used;"),
        (Scope::Kubepods, ": limit of all pods 512 MiB, 511 MiB used;"),
        (Scope::Node, ": memory of the node 512 MiB, 511 MiB used;"),
        (Scope::Cgroup, ": limit of the cgroup /a/b 512 MiB, 511 MiB used;"),
        (Scope::Unknown, ": not known what ran out;"),
    ] {
        let report = changed(|report| {
            report.incident.scope = scope;
            report.incident.memcg_path = Some("/a/b".to_owned());
        });
        let shown = line(&report);
        assert!(shown.contains(expected), "{shown}");
    }
}

#[test]
fn who_asked_for_the_memory() {
    for (cause, tgid, expected) in [
        (None, 4242, "29 MiB; killed"),
        (Some(Cause::Allocation), 9, "; triggered by GC Thread#0 (pid 9); "),
        (Some(Cause::LimitWrite), 9, "; GC Thread#0 (pid 9) lowered the limit; "),
        (Some(Cause::Sysrq), 9, "; by SysRq f; "),
    ] {
        let report = changed(|report| (report.incident.cause, report.trigger.tgid) = (cause, tgid));
        let shown = line(&report);
        assert!(shown.contains(expected), "{shown}");
    }
}

#[test]
fn how_many_died_with_it() {
    for (victims, complete, expected) in
        [(1, true, "29 MiB"), (2, true, "; killed with 1 other"), (9, false, "; killed with 8 others so far")]
    {
        let report = changed(|report| (report.incident.victims, report.incident.complete) = (victims, complete));
        let shown = line(&report);
        assert!(shown.ends_with(expected), "{shown}");
    }
}

#[test]
fn what_is_doubtful_is_said() {
    let shared = line(&changed(|report| report.victim.shared_mm = true));
    assert!(shared.ends_with("; killed for sharing the memory of another victim"), "{shared}");
    let unconfirmed = line(&changed(|report| report.victim.confirmed = false));
    assert!(unconfirmed.ends_with("; perhaps it was dying already"), "{unconfirmed}");
}

#[test]
fn hostile_names_neither_break_the_line_nor_reach_the_terminal() {
    let shown = line(&hostile());
    assert!(!shown.contains(is_unsafe), "{shown:?}");
    assert!(shown.contains(r#"OOM kill: a\nb\r"c"\\x1b[2J\x1b]0;t\x07\u{9b}31m\u{202e}d"#), "{shown}");
}

#[test]
fn hostile_names_of_4_kib_are_cut_to_one_plain_line() {
    for report in hostile_elsewhere().into_iter().chain([hostile_long()]) {
        let shown = line(&report);
        assert!(!shown.contains(is_unsafe), "{shown:?}");
        assert!(shown.contains(r#"a\nb\r"c"\\x1b[2J"#) && shown.contains('…'), "{shown}");
        assert!(shown.chars().count() <= LINE_MAX, "{shown}");
    }
}

#[test]
fn sizes_read_well() {
    for (bytes, expected) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (512 * 1024 * 1024, "512 MiB"),
        (536_870_911, "512 MiB"),
        (7_700_000_000, "7.2 GiB"),
        (1024 * 1024 - 1, "1 MiB"),
        (u64::MAX, "16 EiB"),
    ] {
        assert_eq!(Size(bytes).to_string(), expected);
    }
}

proptest! {
    #[test]
    fn any_name_leaves_one_plain_line_of_bounded_length(name in any::<String>(), path in any::<String>()) {
        let mut report = hostile();
        report.victim.comm = Some(name.clone());
        report.trigger.comm = name.clone();
        report.incident.memcg_path = Some(path);
        if let Some(kubernetes) = &mut report.kubernetes {
            kubernetes.pod = Some(name);
        }
        let shown = line(&report);
        prop_assert!(!shown.contains(is_unsafe), "{shown:?}");
        prop_assert!(shown.chars().count() <= LINE_MAX);
    }
}

#[test]
fn an_enrichment_is_one_short_line() {
    assert_eq!(
        enrichment_line(&enrichment()),
        "2026-11-22T17:45:00.123Z OOM kill of pid 4242: shop/cart-7f9c6d5b4-x2x7k/app, of Deployment cart, \
         image registry.example/shop/cart:4.2, requests 256 MiB, limit 512 MiB, the pod requests 512 MiB, \
         the pod's limit 1 GiB, team=shop"
    );
    let hostile = enrichment_line(&hostile_enrichment());
    assert!(!hostile.contains(is_unsafe), "{hostile:?}");
    // Namespace, pod, container; kind and name of the owner; image; two labels.
    assert!(hostile.chars().count() <= 200 + 10 * NAME_MAX, "{hostile}");
}
