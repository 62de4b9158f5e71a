//! No cgroup path, whatever bytes its names hold, makes the parser panic or say something that is not in the path.
//!
//! The input is the victim's path, then after a NUL the agent's own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oom_watcher::cgroup::{Identity, Node, identify};
use oom_watcher::report::Level;
use oom_watcher::scope::{OomMemcg, PageCounters, decide};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (path, own) = text.split_once('\0').unwrap_or((&text, ""));
    let segments: Vec<&str> = path.split('/').collect();
    let own: Vec<&str> = own.split('/').collect();
    for node in [Node::default(), Node::from_own(&own, None)] {
        let identity = identify(&segments, &node);
        check(&identity, &segments);
        decide_at_every_level(&identity, &segments);
    }
});

fn check(identity: &Identity, segments: &[&str]) {
    let (id, level) = match identity {
        Identity::Pod(pod) => {
            assert!(segments[pod.pod_level].contains("pod"));
            let Some(container) = pod.container else { return };
            (container.id, container.level)
        }
        Identity::PlainContainer(plain) => (plain.id, plain.level),
        _ => return,
    };
    let name = segments[level].strip_suffix(".scope").unwrap_or(segments[level]);
    assert!(name.ends_with(&id.to_string()));
}

fn decide_at_every_level(identity: &Identity, segments: &[&str]) {
    let level = |(number, name): (usize, &&str)| {
        let bytes = (!number.is_multiple_of(3)).then_some(u64::MAX / (number as u64 + 1));
        Level { name: (*name).to_owned(), usage_bytes: bytes, limit_bytes: bytes, ..Level::default() }
    };
    let levels: Vec<Level> = segments.iter().enumerate().map(level).collect();
    let counters = PageCounters { page_size: 65_536, cpus: u64::MAX };
    decide(identity, &levels, OomMemcg::NotGiven, counters);
    for index in 0..=levels.len() {
        decide(identity, &levels, OomMemcg::Level(index), counters);
    }
}
