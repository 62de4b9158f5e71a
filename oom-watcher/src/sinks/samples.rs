//! Reports for the tests of the sinks.

use std::sync::Arc;

use crate::enrichment::{ContainerKind, EnrichedPod, EnrichedVictim, Enrichment, LineType, Owner};
use crate::report::{
    Attribution, AttributionResult, AttributionSource, Cause, Cgroup, Constraint, Incident, Kubernetes, Level,
    MemoryBreakdown, OomReport, PlainContainer, SCHEMA_VERSION, Scope, ScopeSource, Trigger, Victim,
};

const MIB: u64 = 1024 * 1024;
const CONTAINER_ID: &str = "0f3a5c7e9b1d2f4a6c8e0b3d5f7a9c1e2b4d6f8a0c3e5b7d9f1a2c4e6b8d0f3a";
const POD_UID: &str = "0a5a1b6e-9d1f-4a9b-8f0e-0c6d2f7f9a11";

/// A kill in a container with everything that a report can carry.
pub(crate) fn full() -> OomReport {
    OomReport {
        schema_version: SCHEMA_VERSION,
        time: "2026-11-22T17:45:00.123Z".parse().unwrap(),
        boot_time_ns: 86_400_000_000_000,
        node: "worker-1".to_owned(),
        victim: full_victim(),
        trigger: Trigger {
            pid: 4300,
            tgid: 4242,
            comm: "GC Thread#0".to_owned(),
            cgroup_path: Some(format!("/kubepods/burstable/pod{POD_UID}/{CONTAINER_ID}")),
        },
        cgroup: Some(Arc::new(cgroup())),
        incident: full_incident(),
        memory: Some(MemoryBreakdown {
            anon_bytes: Some(480 * MIB),
            file_bytes: Some(29 * MIB),
            shmem_bytes: Some(29 * MIB),
            slab_bytes: Some(MIB),
            kernel_stack_bytes: Some(65_536),
            page_tables_bytes: Some(2 * MIB),
            sock_bytes: Some(0),
            percpu_bytes: Some(4096),
            swap_bytes: Some(0),
        }),
        attribution: Attribution { result: AttributionResult::Full, source: AttributionSource::Index },
        kubernetes: Some(Kubernetes {
            namespace: Some("shop".to_owned()),
            pod: Some("cart-7f9c6d5b4-x2x7k".to_owned()),
            pod_uid: POD_UID.to_owned(),
            container: Some("app".to_owned()),
            container_id: Some(CONTAINER_ID.to_owned()),
            runtime: Some("containerd".to_owned()),
            qos_class: Some("burstable".to_owned()),
            restart_count: Some(2),
            sub_cgroup: Some("workers".to_owned()),
        }),
        container: None,
        systemd_unit: None,
    }
}

fn full_victim() -> Victim {
    Victim {
        pid: 4242,
        tgid: Some(4242),
        namespace_pid: Some(1),
        comm: Some("java".to_owned()),
        uid: Some(1000),
        oom_score_adj: Some(985),
        started_at: Some("2026-11-22T17:40:00Z".parse().unwrap()),
        total_vm_bytes: Some(4096 * MIB),
        anon_rss_bytes: Some(480 * MIB),
        file_rss_bytes: Some(0),
        shmem_rss_bytes: Some(29 * MIB),
        rss_error_bytes: Some(512 * 1024),
        swap_bytes: Some(0),
        page_tables_bytes: Some(2 * MIB),
        nodename: Some("cart-7f9c6d5b4-x2x7k".to_owned()),
        shared_mm: false,
        confirmed: true,
    }
}

fn full_incident() -> Incident {
    Incident {
        id: "3735928559-1234567890".to_owned(),
        victims: 4,
        complete: true,
        group_kill: Some(true),
        scope: Scope::Container,
        scope_source: ScopeSource::Kernel,
        cause: Some(Cause::Allocation),
        oom_kill_allocating_task: false,
        constraint: Some(Constraint::Memcg),
        order: Some(0),
        gfp_flags: Some("0xcc0".to_owned()),
        memcg_path: Some(format!("/kubepods/burstable/pod{POD_UID}")),
        memcg_id: Some(9001),
        limit_bytes: Some(512 * MIB),
        usage_bytes: Some(511 * MIB),
        swap_usage_bytes: Some(0),
        swap_limit_bytes: Some(0),
        duration_seconds: Some(0.0021),
    }
}

fn cgroup() -> Cgroup {
    let level = |name: &str, id, limit_bytes| Level {
        name: name.to_owned(),
        id,
        usage_bytes: Some(511 * MIB),
        limit_bytes,
        oom_group: limit_bytes.is_some(),
    };
    Cgroup {
        path: format!("/kubepods/burstable/pod{POD_UID}/{CONTAINER_ID}"),
        truncated: false,
        levels: vec![
            level("", 1, None),
            level("kubepods", 20, None),
            level("burstable", 30, None),
            level(&format!("pod{POD_UID}"), 9001, Some(512 * MIB)),
            level(CONTAINER_ID, 9002, Some(512 * MIB)),
        ],
    }
}

/// What the API knows of the pod of [`full`].
pub(crate) fn enrichment() -> Enrichment {
    let report = full();
    Enrichment {
        schema_version: SCHEMA_VERSION,
        line_type: LineType::Enrichment,
        time: report.time,
        node: report.node,
        incident_id: report.incident.id,
        victim: EnrichedVictim { pid: 4242, tgid: Some(4242), comm: report.victim.comm },
        kubernetes: EnrichedPod {
            namespace: "shop".to_owned(),
            pod: "cart-7f9c6d5b4-x2x7k".to_owned(),
            pod_uid: POD_UID.to_owned(),
            container: Some("app".to_owned()),
            container_kind: Some(ContainerKind::Container),
            container_id: Some(CONTAINER_ID.to_owned()),
            owner: Some(Owner { kind: "Deployment".to_owned(), name: "cart".to_owned() }),
            labels: [("team".to_owned(), "shop".to_owned())].into(),
            image: Some("registry.example/shop/cart:4.2".to_owned()),
            memory_request_bytes: Some(256 * MIB),
            memory_limit_bytes: Some(512 * MIB),
            pod_memory_request_bytes: Some(512 * MIB),
            pod_memory_limit_bytes: Some(1024 * MIB),
            node: Some("worker-1".to_owned()),
        },
    }
}

/// A kill of which the kernel gave no more than it must: the victim's pid and the trigger.
pub(crate) fn minimal() -> OomReport {
    OomReport {
        schema_version: SCHEMA_VERSION,
        time: "2026-11-22T17:45:00Z".parse().unwrap(),
        boot_time_ns: 1,
        node: "worker-1".to_owned(),
        victim: Victim { pid: 77, confirmed: true, ..Victim::default() },
        trigger: Trigger { pid: 80, tgid: 79, comm: "stress".to_owned(), cgroup_path: None },
        cgroup: None,
        incident: Incident { id: "1".to_owned(), victims: 1, complete: true, ..Incident::default() },
        memory: None,
        attribution: Attribution::default(),
        kubernetes: None,
        container: None,
        systemd_unit: None,
    }
}

/// A kill in a container that Kubernetes does not own.
pub(crate) fn in_docker() -> OomReport {
    let container = PlainContainer {
        id: CONTAINER_ID.to_owned(),
        name: Some("web".to_owned()),
        runtime: Some("docker".to_owned()),
    };
    OomReport { container: Some(container), ..minimal() }
}

/// A kill in a systemd service.
pub(crate) fn in_service() -> OomReport {
    OomReport { systemd_unit: Some("nginx.service".to_owned()), ..minimal() }
}

/// Whatever somebody may call a process, a cgroup or a container: line ends, quotes, escape sequences, invalid UTF-8 (as
/// the decoder replaces it), text that reorders the line.
pub(crate) const HOSTILE: &str = "a\nb\r\"c\"\\\x1b[2J\x1b]0;t\x07\u{9b}31m\u{202e}d\u{fffd}{}";

/// The same again and again, 4 KiB of it, as an API server or a path of many levels may have it.
pub(crate) fn hostile_long_name() -> String {
    let mut name = HOSTILE.repeat(4096 / HOSTILE.len() + 1);
    name.truncate(name.floor_char_boundary(4096));
    name
}

/// [`full`] with the hostile name in every field that comes from outside.
pub(crate) fn hostile() -> OomReport {
    hostile_named(HOSTILE)
}

/// The same with a name of 4 KiB.
pub(crate) fn hostile_long() -> OomReport {
    hostile_named(&hostile_long_name())
}

fn hostile_named(name: &str) -> OomReport {
    let mut report = full();
    let name = || name.to_owned();
    report.node = name();
    report.victim.comm = Some(name());
    report.victim.nodename = Some(name());
    report.trigger.comm = name();
    report.trigger.tgid = 1;
    report.trigger.cgroup_path = Some(name());
    report.incident.memcg_path = Some(name());
    report.incident.scope = Scope::Cgroup;
    report.cgroup = Some(Arc::new(Cgroup {
        path: name(),
        truncated: true,
        levels: vec![Level { name: name(), id: 1, ..Level::default() }],
    }));
    report.kubernetes = Some(Kubernetes {
        namespace: Some(name()),
        pod: Some(name()),
        pod_uid: name(),
        container: Some(name()),
        container_id: Some(name()),
        runtime: Some(name()),
        sub_cgroup: Some(name()),
        ..Kubernetes::default()
    });
    report.container = Some(PlainContainer { id: name(), name: Some(name()), runtime: Some(name()) });
    report.systemd_unit = Some(name());
    report
}

/// The kill of [`hostile_long`] outside Kubernetes, in each of the places that a line then names.
pub(crate) fn hostile_elsewhere() -> [OomReport; 4] {
    let report = OomReport { kubernetes: None, ..hostile_long() };
    let unnamed = report.container.clone().map(|container| PlainContainer { name: None, ..container });
    let service = OomReport { container: None, ..report.clone() };
    let cgroup = OomReport { systemd_unit: None, ..service.clone() };
    [OomReport { container: unnamed, ..report.clone() }, report, service, cgroup]
}

/// What an API server may say of a pod that somebody has named so.
pub(crate) fn hostile_enrichment() -> Enrichment {
    let name = hostile_long_name;
    let mut enrichment = enrichment();
    enrichment.node = name();
    enrichment.victim.comm = Some(name());
    enrichment.kubernetes = EnrichedPod {
        namespace: name(),
        pod: name(),
        pod_uid: name(),
        container: Some(name()),
        container_id: Some(name()),
        owner: Some(Owner { kind: name(), name: name() }),
        labels: [(name(), name()), ("team".to_owned(), name())].into(),
        image: Some(name()),
        node: Some(name()),
        ..enrichment.kubernetes
    };
    enrichment
}
