use proptest::prelude::*;

use super::*;
use crate::{
    escape::is_unsafe,
    report::Kubernetes,
    sinks::samples::{HOSTILE, full, hostile, hostile_long, hostile_long_name, minimal},
};

#[test]
fn the_reason_says_whose_limit_and_what_became_of_the_container() {
    let given = |scope, namespace_pid, group_kill| {
        let mut report = full();
        report.incident.scope = scope;
        report.victim.namespace_pid = namespace_pid;
        report.incident.group_kill = group_kill;
        reason_of(&report)
    };
    assert_eq!(given(Scope::Container, Some(1), Some(false)), "ContainerOOMKilled");
    assert_eq!(given(Scope::Container, Some(7), Some(true)), "ContainerOOMKilled");
    assert_eq!(given(Scope::Container, Some(7), Some(false)), "ProcessOOMKilled");
    assert_eq!(given(Scope::Container, None, None), "ContainerOOMKilled");
    assert_eq!(given(Scope::Unknown, Some(7), None), "ProcessOOMKilled");
    assert_eq!(given(Scope::Pod, Some(7), None), "PodMemoryLimitOOM");
    assert_eq!(given(Scope::Qos, Some(1), None), "KubepodsMemoryLimitOOM");
    assert_eq!(given(Scope::Kubepods, Some(1), None), "KubepodsMemoryLimitOOM");
    assert_eq!(given(Scope::Node, Some(1), None), "NodeOOMKilled");
    assert_eq!(given(Scope::Cgroup, Some(1), None), "CgroupOOMKilled");
}

#[track_caller]
fn check_note(change: impl FnOnce(&mut OomReport), expected: &str) {
    let mut report = full();
    change(&mut report);
    assert_eq!(note(&report, None), expected);
}

#[test]
fn the_note_says_what_happened() {
    let memory = "480 MiB anonymous, 29 MiB tmpfs";
    check_note(
        |report| report.incident.victims = 2,
        &format!(
            "java (pid 4242) was killed: the container used 511 MiB of its 512 MiB limit: {memory}; killed with 1 other"
        ),
    );
    check_note(
        |report| {
            report.incident.scope = Scope::Node;
            report.incident.victims = 1;
            report.memory = None;
            report.trigger.tgid = 1;
        },
        &format!(
            "java (pid 4242) was killed: the node had no memory left: {memory} in the process; the memory was asked for by \
             GC Thread#0 (pid 1)"
        ),
    );
    check_note(
        |report| {
            report.incident.scope = Scope::Pod;
            report.incident.victims = 1;
            report.incident.usage_bytes = None;
        },
        &format!("java (pid 4242) was killed: the pod reached its 512 MiB limit: {memory}"),
    );
    assert_eq!(
        note(&minimal(), None),
        "pid 77 was killed: memory ran out; the memory was asked for by stress (pid 79)"
    );
}

#[test]
fn the_note_says_who_started_it_by_the_cause() {
    let ends = |cause, itself, expected: &str| {
        let mut report = full();
        report.incident.cause = cause;
        report.trigger.comm = "runc".to_owned();
        report.trigger.tgid = if itself { report.victim.tgid.unwrap() } else { 1 };
        let note = note(&report, None);
        assert!(note.ends_with(expected), "{note}");
    };
    ends(Some(Cause::LimitWrite), false, "; runc (pid 1) lowered the limit");
    ends(Some(Cause::Sysrq), false, "; asked for by SysRq f");
    ends(Some(Cause::Allocation), false, "; the memory was asked for by runc (pid 1)");
    ends(None, false, "; the memory was asked for by runc (pid 1)");
    ends(Some(Cause::Allocation), true, "; killed with 3 others");
}

#[test]
fn the_container_is_named_but_its_place_in_the_pod_is_not_guessed() {
    let mut report = full();
    let draft = Draft::new(&report, None).unwrap();
    assert!(draft.note.starts_with("java (pid 4242) in container app was killed: "), "{}", draft.note);
    assert_eq!(draft.field_path, None, "it may be an init container");
    report.kubernetes.as_mut().unwrap().container = None;
    let draft = Draft::new(&report, None).unwrap();
    assert!(draft.note.starts_with("java (pid 4242) was killed: "), "{}", draft.note);
}

#[test]
fn a_static_pod_is_regarded_by_the_uid_of_its_cgroup() {
    let mut report = full();
    let hash = "36b6d6be73b1065af369b3985edafa09";
    report.kubernetes.as_mut().unwrap().pod_uid = hash.to_owned();
    let event = Draft::new(&report, None).unwrap().event("name", 1, report.time);
    assert_eq!(event.regarding.unwrap().uid.as_deref(), Some(hash));
    assert_eq!(event.series, None, "one is no series");
}

#[test]
fn a_long_name_of_a_pod_is_still_a_name_of_an_event() {
    let mut report = full();
    report.kubernetes.as_mut().unwrap().pod = Some(format!("{}-.x", "a".repeat(NAME_PREFIX_MAX - 1)));
    report.node = "n".repeat(253);
    let draft = Draft::new(&report, None).unwrap();
    let name = draft.event_name();
    assert!(name.len() <= 253 && PodName::new("shop", &name).is_some(), "{name}");
    assert!(!name.contains("-.") && !name.contains(".."), "{name}");
    assert_eq!(draft.event(&name, 1, report.time).reporting_instance.unwrap().len(), INSTANCE_MAX);
}

#[test]
fn hostile_names_reach_no_terminal() {
    for report in [hostile(), hostile_long()] {
        let note = note(&report, Some(HOSTILE));
        assert!(!note.contains(is_unsafe) && note.len() <= 1024, "{note}");
        assert!(Draft::new(&report, None).is_none(), "such a pod cannot be");
    }
}

#[test]
fn a_hostile_container_in_a_pod_is_a_harmless_event() {
    let mut report = hostile_long();
    report.node = "worker-1".to_owned();
    report.kubernetes = full().kubernetes;
    report.kubernetes.as_mut().unwrap().container = Some(hostile_long_name());
    let draft = Draft::new(&report, None).unwrap();
    let mut event = draft.event(&draft.event_name(), 1, report.time);
    let field_path = field_path(ContainerKind::Container, &hostile_long_name());
    event.regarding.as_mut().unwrap().field_path = Some(field_path.clone());
    assert!(field_path.starts_with(r#"spec.containers{a\nb\r"c""#) && field_path.ends_with('}'), "{field_path}");
    assert!(field_path.chars().count() <= "spec.containers{}".len() + CONTAINER_MAX, "{field_path}");
    // As it goes to the server: no text in it has anything that a terminal could act on.
    let whole = serde_json::to_value(&event).unwrap();
    let mut rest = vec![&whole];
    while let Some(value) = rest.pop() {
        match value {
            serde_json::Value::String(text) => assert!(!text.contains(is_unsafe) && text.len() <= 1024, "{text:?}"),
            serde_json::Value::Object(members) => rest.extend(members.values()),
            serde_json::Value::Array(items) => rest.extend(items),
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn a_note_is_short_and_harmless(
        comm in any::<Option<String>>(),
        trigger in any::<String>(),
        container in any::<String>(),
        numbers in any::<[Option<u64>; 6]>(),
        ids in any::<[u32; 4]>(),
        scope in 0_usize..7,
    ) {
        let scopes =
            [Scope::Container, Scope::Pod, Scope::Qos, Scope::Kubepods, Scope::Node, Scope::Cgroup, Scope::Unknown];
        let mut report = full();
        report.victim.comm = comm;
        report.trigger.comm = trigger;
        (report.victim.pid, report.victim.tgid, report.trigger.tgid) = (ids[0], Some(ids[1]), ids[2]);
        report.incident.victims = ids[3];
        report.incident.scope = scopes[scope];
        (report.incident.usage_bytes, report.incident.limit_bytes) = (numbers[0], numbers[1]);
        report.memory = numbers[2].map(|anon| MemoryBreakdown {
            anon_bytes: Some(anon),
            shmem_bytes: numbers[3],
            ..MemoryBreakdown::default()
        });
        (report.victim.anon_rss_bytes, report.victim.shmem_rss_bytes) = (numbers[4], numbers[5]);
        let note = note(&report, Some(&container));
        prop_assert!(note.len() <= 1024, "{} bytes: {note}", note.len());
        prop_assert!(!note.contains(is_unsafe), "{note:?}");
    }

    #[test]
    fn every_name_is_one_that_the_api_takes(pod in "[-.a-z0-9]{1,253}", nanos in any::<u32>()) {
        let mut report = full();
        report.time = jiff::Timestamp::new(1_795_369_500, (nanos % 1_000_000_000) as i32).unwrap();
        report.kubernetes = Some(Kubernetes {
            namespace: Some("shop".to_owned()),
            pod: Some(pod),
            ..Kubernetes::default()
        });
        if let Some(draft) = Draft::new(&report, None) {
            let name = draft.event_name();
            prop_assert!(PodName::new("shop", &name).is_some(), "{name}");
        }
    }
}
