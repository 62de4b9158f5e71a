//! No bytes from the ring buffer make the agent panic, and whatever a record says, all that is made of it keeps its form: one
//! line of safe text, one of valid JSON, a page of metrics whose samples are samples, an Event that is short and harmless.
//!
//! The input is a run of records. The first byte of each says how it is read: whether its header is made good, and whether its
//! levels are. A mutation alone would rarely get past the version and the size, and hardly ever to a second level.
#![no_main]

use std::{
    hint::black_box,
    mem::offset_of,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use oom_watcher::{
    assemble::{self, NodeNames},
    attribute::by_path,
    cgroup::{Node, identify},
    config::MetricsConfig,
    decode::{Decoder, Record},
    escape::is_unsafe,
    exposition::Exposition,
    incident::{Assembler, Member},
    k8s,
    report::{Kubernetes, OomReport},
    scope::{PageCounters, decide},
    sinks::{json, metrics::KillMetrics, text},
    telemetry::Telemetry,
};
use oom_watcher_common::{
    ABI_VERSION,
    record::{ALIGN, Header, IncidentEnd, KIND_INCIDENT_END, KIND_KILL, Kill, KillHead, LEVELS_MAX, Level, TAIL_MAX},
};

#[path = "../../oom-watcher/tests/support/openmetrics.rs"]
mod openmetrics;

const DECODER: Decoder = Decoder {
    page_size: 65_536,
    possible_cpus: 512,
    swap_is_separate: false,
    boot_to_wall: jiff::SignedDuration::from_secs(1_700_000_000),
};

static NAMES: LazyLock<NodeNames> =
    LazyLock::new(|| NodeNames { node: "worker-1".to_owned(), boot: "3735928559".to_owned() });

fuzz_target!(|data: &[u8]| {
    let mut assembler = Assembler::default();
    let sinks = Sinks::new();
    let now = Instant::now();
    let mut rest = data;
    while let Some((record, after)) = next(rest) {
        rest = after;
        let members = match DECODER.decode(&record) {
            Ok(Record::Kill(kill)) => assembler.kill(kill, now),
            Ok(Record::IncidentEnd(end)) => assembler.end(&end),
            Err(error) => {
                black_box(error.to_string());
                continue;
            }
        };
        members.into_iter().for_each(|member| sinks.show(member));
    }
    assembler.close().into_iter().for_each(|member| sinks.show(member));
    sinks.check_page();
});

/// The next record and what follows it.
fn next(data: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (&how, data) = data.split_first()?;
    match how % 5 {
        0 => Some(made_good(data, size_of::<KillHead>(), KIND_KILL)),
        1 => {
            let (tail, data) = number(data);
            Some(made_good(data, size_of::<KillHead>() + usize::from(tail) % TAIL_MAX, KIND_KILL))
        }
        2 => Some(made_good(data, size_of::<IncidentEnd>(), KIND_INCIDENT_END)),
        3 => Some(with_levels(data)),
        _ => {
            let (given, after) = data.split_at(usize::from(how).min(data.len()));
            Some((given.to_vec(), after))
        }
    }
}

fn number(data: &[u8]) -> (u16, &[u8]) {
    data.split_first_chunk().map_or((0, data), |(bytes, data)| (u16::from_le_bytes(*bytes), data))
}

/// A record of this length and kind, and zeros where the input ends.
fn made_good(data: &[u8], length: usize, kind: u16) -> (Vec<u8>, &[u8]) {
    let (given, after) = data.split_at(length.min(data.len()));
    let mut record = given.to_vec();
    record.resize(length, 0);
    head(&mut record, kind);
    (record, after)
}

/// A kill with levels that are whole: how many of the victim's and of the trigger's come first, then the head, then for each the
/// length of its name, its figures and the name.
fn with_levels(data: &[u8]) -> (Vec<u8>, &[u8]) {
    let (counts, data) = number(data);
    let [victim, trigger] = counts.to_le_bytes().map(|count| u16::from(count) % (LEVELS_MAX as u16 + 1));
    let (mut record, mut rest) = made_good(data, size_of::<KillHead>(), KIND_KILL);
    put(&mut record, size_of::<Header>() + offset_of!(Kill, level_count), &victim.to_ne_bytes());
    put(&mut record, size_of::<Header>() + offset_of!(Kill, trigger_level_count), &trigger.to_ne_bytes());
    for _ in 0..victim + trigger {
        let (length, after) = rest.split_first().map_or((0, rest), |(&length, after)| (usize::from(length), after));
        let (given, after) = after.split_at((size_of::<Level>() + length).min(after.len()));
        let at = record.len();
        record.extend_from_slice(given);
        record.resize((at + size_of::<Level>() + length).next_multiple_of(ALIGN), 0);
        put(&mut record, at + offset_of!(Level, name_len), &(length as u32).to_ne_bytes());
        rest = after;
    }
    head(&mut record, KIND_KILL);
    (record, rest)
}

fn head(record: &mut [u8], kind: u16) {
    let length = record.len() as u32;
    put(record, offset_of!(Header, abi_version), &ABI_VERSION.to_ne_bytes());
    put(record, offset_of!(Header, kind), &kind.to_ne_bytes());
    put(record, offset_of!(Header, size), &length.to_ne_bytes());
}

fn put(record: &mut [u8], offset: usize, value: &[u8]) {
    record[offset..offset + value.len()].copy_from_slice(value);
}

/// All that a report becomes.
struct Sinks {
    metrics: Arc<KillMetrics>,
    page: Exposition,
}

impl Sinks {
    fn new() -> Self {
        let config = MetricsConfig {
            address: None,
            port: 0,
            zero_series: true,
            max_series: 200,
            series_retention: Duration::from_secs(3600),
        };
        let telemetry = Arc::new(Telemetry::new());
        let metrics = Arc::new(KillMetrics::new(&config, Arc::clone(&telemetry)));
        let page = Exposition::new(&NAMES.node, Arc::clone(&metrics), telemetry);
        Self { metrics, page }
    }

    fn show(&self, member: Member) {
        let levels = member.kill.cgroup.as_ref().map(|cgroup| cgroup.levels.as_slice()).unwrap_or_default();
        let segments: Vec<&str> = levels.iter().map(|level| level.name.as_str()).collect();
        let identity = identify(&segments, &Node::default());
        let counters = PageCounters { page_size: DECODER.page_size, cpus: 512 };
        let decision = decide(&identity, levels, assemble::oom_memcg(&member.kill), counters);
        let report = assemble::report(&NAMES, member, decision, by_path(&identity));
        self.deliver(&report);
        // The same with the names that a node, a runtime or the API would add: whatever the record has.
        let victim = &report.victim;
        let kubernetes = Kubernetes {
            namespace: Some("shop".to_owned()),
            pod: Some("cart-1".to_owned()),
            container: victim.comm.clone(),
            pod_uid: victim.nodename.clone().unwrap_or_default(),
            ..report.kubernetes.clone().unwrap_or_default()
        };
        self.deliver(&OomReport { kubernetes: Some(kubernetes), ..report });
    }

    fn deliver(&self, report: &OomReport) {
        let line = text::line(report);
        assert!(!line.contains(is_unsafe), "{line:?}");
        let line = json::line(report).expect("a report is always JSON");
        assert!(!line.contains(is_unsafe), "{line:?}");
        serde_json::from_str::<serde_json::Value>(&line).expect("valid JSON");
        self.metrics.observe(report, Instant::now());
        let Some(event) = k8s::event(report) else { return };
        let note = event.note.expect("an Event says something");
        assert!(note.len() <= 1024 && !note.contains(is_unsafe), "{note:?}");
        let field_path = event.regarding.and_then(|pod| pod.field_path).unwrap_or_default();
        assert!(!field_path.contains(is_unsafe), "{field_path:?}");
    }

    fn check_page(&self) {
        let page = self.page.render().expect("a page can be written");
        for line in page.lines() {
            assert!(!line.contains(is_unsafe), "{line:?}");
            assert!(line.starts_with("# ") || openmetrics::sample(line).is_some(), "{line}");
        }
        assert!(page.ends_with("# EOF\n"));
    }
}
