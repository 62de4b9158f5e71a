//! Kills to order.

use std::collections::BTreeSet;

use crate::{agent::tgid, cgroup::Cgroup, hog::Hog};

/// Victims that the kernel killed, by their process ids.
pub(crate) type Victims = BTreeSet<u64>;

/// Has so many processes killed, one after the other, each in a cgroup too small for it.
#[track_caller]
pub(crate) fn kill(count: usize) -> Victims {
    let cgroup = Cgroup::new("victims");
    cgroup.limit(8 << 20);
    let one = |_| {
        let mut hog = Hog::start(&cgroup, &["anon", "33554432"]);
        hog.go();
        hog.must_be_killed();
        u64::from(hog.pid())
    };
    (0..count).map(one).collect()
}

/// The victims of these events, each of which must be another process.
#[track_caller]
pub(crate) fn victims(events: &[serde_json::Value]) -> Victims {
    let victims: Victims = events.iter().map(tgid).collect();
    assert_eq!(victims.len(), events.len(), "a victim was reported twice: {events:#?}");
    victims
}
