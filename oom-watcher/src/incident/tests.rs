//! Kills in all orders, and what is said of their incidents.

use proptest::prelude::*;

use super::*;
use crate::{
    decode::OomControl,
    report::{Cgroup, Constraint, Level, Trigger, Victim},
};

/// A kill of a process in `/pod/container`, with `memory.oom.group` where `group` says.
fn kill(incident: Option<u64>, tgid: u32, group: &[bool]) -> Box<OomKill> {
    let levels = ["", "pod", "container"]
        .iter()
        .enumerate()
        .map(|(index, name)| Level {
            name: (*name).to_owned(),
            id: index as u64,
            oom_group: group.get(index).copied().unwrap_or(false),
            ..Level::default()
        })
        .collect();
    Box::new(OomKill {
        time: jiff::Timestamp::UNIX_EPOCH,
        time_ns: 1_000 + u64::from(tgid),
        incident_ns: incident,
        victim: Victim { pid: tgid, tgid: Some(tgid), ..Victim::default() },
        start_boottime_ns: Some(u64::from(tgid)),
        trigger: Trigger { pid: 1, tgid: 1, ..Trigger::default() },
        cgroup: Some(Arc::new(Cgroup { path: "/pod/container".to_owned(), levels, truncated: false })),
        control: incident.map(|_| OomControl {
            memcg: true,
            constraint: Constraint::Memcg,
            order: 0,
            gfp_mask: 0,
            total_bytes: 0,
            chosen_points: 1,
        }),
        oom_level: incident.map(|_| 1),
        entry_usage_bytes: None,
        limit_write: None,
        chosen: true,
        mm_shared: false,
        memcg: None,
        levels_of_ns: None,
    })
}

/// One of the same cgroup as `other`, of which the kernel says nothing again.
fn of_the_same_cgroup(other: &OomKill, tgid: u32) -> Box<OomKill> {
    let bare = OomKill {
        cgroup: None,
        oom_level: None,
        levels_of_ns: Some(other.time_ns),
        ..*kill(other.incident_ns, tgid, &[])
    };
    Box::new(bare)
}

const NO_GROUP: &[bool] = &[];
const CONTAINER_GROUP: &[bool] = &[false, false, true];

fn end(incident_ns: u64, kills: u32, kills_lost: u32) -> IncidentEnd {
    IncidentEnd { incident_ns, kills, kills_lost }
}

fn summary(members: &[Member]) -> Vec<(u32, u32, bool, Option<bool>)> {
    members.iter().map(|member| (member.kill.victim.pid, member.victims, member.complete, member.group_kill)).collect()
}

#[test]
fn one_alone_goes_out_at_once() {
    let mut assembler = Assembler::default();
    let ready = assembler.kill(kill(Some(500), 10, NO_GROUP), Instant::now());
    assert_eq!(summary(&ready), [(10, 1, true, Some(false))]);
    assert_eq!(ready[0].duration, Some(Duration::from_nanos(510)));
    assert_eq!(ready[0].incident_ns, 500);
    assert!(assembler.end(&end(500, 1, 0)).is_empty());
    assert_eq!(assembler.deadline(), None);
}

#[test]
fn what_is_said_once_of_a_cgroup_holds_for_all_in_it() {
    let mut assembler = Assembler::default();
    let mut first = kill(Some(500), 10, CONTAINER_GROUP);
    first.trigger.cgroup_path = Some("/trigger".to_owned());
    assembler.kill(first.clone(), Instant::now());
    assembler.kill(of_the_same_cgroup(&first, 11), Instant::now());
    let other = Box::new(OomKill { oom_level: Some(0), ..*kill(Some(500), 12, CONTAINER_GROUP) });
    assembler.kill(other.clone(), Instant::now());
    assembler.kill(of_the_same_cgroup(&other, 13), Instant::now());
    let ready = assembler.end(&end(500, 4, 0));
    assert_eq!(ready[1].kill.cgroup, first.cgroup);
    assert_eq!(ready[1].kill.trigger.cgroup_path.as_deref(), Some("/trigger"));
    let levels: Vec<_> = ready.iter().map(|member| member.kill.oom_level).collect();
    assert_eq!(levels, [Some(1), Some(1), Some(0), Some(0)], "each refers to the newest before it");
}

#[test]
fn what_is_not_reported_may_be_referred_to() {
    let mut assembler = Assembler::default();
    let theirs = kill(Some(500), 10, NO_GROUP);
    assembler.learn(theirs.clone());
    let ready = assembler.kill(of_the_same_cgroup(&theirs, 11), Instant::now());
    assert_eq!(summary(&ready), [(11, 1, true, Some(false))]);
    assert_eq!(ready[0].kill.cgroup, theirs.cgroup);
}

#[test]
fn a_reference_to_what_is_not_there_costs_the_cgroup_and_not_the_kill() {
    let mut assembler = Assembler::default();
    let missing = kill(Some(500), 10, NO_GROUP);
    assembler.kill(of_the_same_cgroup(&missing, 11), Instant::now());
    let ready = assembler.end(&end(500, 1, 0));
    assert_eq!(summary(&ready), [(11, 1, true, None)]);
    assert_eq!(ready[0].kill.cgroup, None);
}

#[test]
fn who_shares_the_memory_was_killed_by_the_same_trigger() {
    let mut assembler = Assembler::default();
    let mut first = kill(Some(500), 10, NO_GROUP);
    (first.mm_shared, first.trigger.cgroup_path) = (true, Some("/trigger".to_owned()));
    assembler.kill(first, Instant::now());
    let mut sharer = kill(Some(500), 11, NO_GROUP);
    sharer.victim.shared_mm = true;
    assembler.kill(sharer, Instant::now());
    let ready = assembler.end(&end(500, 2, 0));
    assert_eq!(ready[1].kill.trigger.cgroup_path.as_deref(), Some("/trigger"));
}

#[test]
fn a_group_waits_for_its_end() {
    let now = Instant::now();
    let mut assembler = Assembler::default();
    for tgid in 1..=3 {
        assert!(assembler.kill(kill(Some(500), tgid, CONTAINER_GROUP), now).is_empty());
    }
    assert_eq!(assembler.deadline(), Some(now + HOLD));
    let ready = assembler.end(&end(500, 3, 0));
    assert_eq!(summary(&ready), [(1, 3, true, Some(true)), (2, 3, true, Some(true)), (3, 3, true, Some(true))]);
}

#[test]
fn those_whose_record_was_lost_are_victims_too() {
    let mut assembler = Assembler::default();
    assembler.kill(kill(Some(500), 1, CONTAINER_GROUP), Instant::now());
    assert_eq!(summary(&assembler.end(&end(500, 3, 2))), [(1, 3, true, Some(true))]);
}

#[test]
fn an_end_of_another_incident_ends_nothing() {
    let mut assembler = Assembler::default();
    assembler.kill(kill(Some(500), 1, CONTAINER_GROUP), Instant::now());
    assert!(assembler.end(&end(400, 1, 0)).is_empty());
    assert_eq!(assembler.end(&end(500, 1, 0)).len(), 1);
}

#[test]
fn the_next_incident_ends_the_one_whose_end_was_lost() {
    let now = Instant::now();
    let mut assembler = Assembler::default();
    assembler.kill(kill(Some(500), 1, CONTAINER_GROUP), now);
    let ready = assembler.kill(kill(Some(600), 2, NO_GROUP), now);
    assert_eq!(summary(&ready), [(1, 1, true, Some(true)), (2, 1, true, Some(false))]);
}

#[test]
fn who_waits_too_long_goes_out_with_the_count_so_far() {
    let now = Instant::now();
    let mut assembler = Assembler::default();
    assembler.kill(kill(Some(500), 1, CONTAINER_GROUP), now);
    assert!(assembler.expire(now + HOLD / 2).is_empty());
    assert_eq!(summary(&assembler.expire(now + HOLD)), [(1, 1, false, Some(true))]);
    let late = assembler.kill(kill(Some(500), 2, CONTAINER_GROUP), now + HOLD * 2);
    assert_eq!(summary(&late), [(2, 2, false, Some(true))], "later members do not wait");
    assert_eq!(assembler.deadline(), None, "nobody waits");
}

#[test]
fn a_process_is_a_victim_once() {
    let mut assembler = Assembler::default();
    let now = Instant::now();
    let mut sharer = kill(Some(500), 2, CONTAINER_GROUP);
    sharer.victim.shared_mm = true;
    assembler.kill(kill(Some(500), 1, CONTAINER_GROUP), now);
    assembler.kill(sharer, now);
    assembler.kill(kill(Some(500), 2, CONTAINER_GROUP), now);
    let members = assembler.end(&end(500, 3, 0));
    assert_eq!(members.len(), 2);
    assert!(!members[1].kill.victim.shared_mm, "it was a victim as well");
    assert_eq!(assembler.duplicates(), 1);
}

#[test]
fn the_switch_counts_from_the_cgroup_that_ran_out_on() {
    let group_of = |kill: &OomKill| group_kill(kill);
    assert_eq!(group_of(&kill(Some(1), 1, &[false, true, false])), Some(true), "on the one that ran out");
    let mut above = kill(Some(1), 1, &[false, true, false]);
    above.oom_level = Some(2);
    assert_eq!(group_of(&above), Some(false), "above it");
    let mut machine = kill(Some(1), 1, &[false, true, false]);
    machine.control = machine.control.map(|control| OomControl { memcg: false, ..control });
    machine.oom_level = None;
    assert_eq!(group_of(&machine), Some(true), "the machine is above all");
    assert_eq!(group_of(&kill(None, 1, &[false, true, false])), None, "what ran out is not known");
    assert_eq!(group_of(&kill(None, 1, NO_GROUP)), Some(false), "no switch anywhere");
}

#[test]
fn without_the_hooks_a_group_is_deduced_from_one_trigger_without_a_pause() {
    let now = Instant::now();
    let mut assembler = Assembler::default();
    let mut first = kill(None, 1, CONTAINER_GROUP);
    let mut second = kill(None, 2, CONTAINER_GROUP);
    let mut later = kill(None, 3, CONTAINER_GROUP);
    first.time_ns = 1_000;
    second.time_ns = 1_000 + DEDUCED_GAP_NS;
    later.time_ns = second.time_ns + DEDUCED_GAP_NS + 1;
    let mut ready = assembler.kill(first, now);
    ready.extend(assembler.kill(second, now));
    ready.extend(assembler.kill(later, now));
    ready.extend(assembler.close());
    let incidents: Vec<u64> = ready.iter().map(|member| member.incident_ns).collect();
    assert_eq!(incidents, [1_000, 1_000, later_start()]);
    assert!(ready.iter().all(|member| !member.complete), "nobody knows whether there were others");
}

fn later_start() -> u64 {
    1_000 + 2 * DEDUCED_GAP_NS + 1
}

#[test]
fn too_many_do_not_wait() {
    let now = Instant::now();
    let mut assembler = Assembler::default();
    let at_once: usize =
        (0..=HELD_MAX as u32).map(|tgid| assembler.kill(kill(Some(500), tgid, CONTAINER_GROUP), now).len()).sum();
    assert_eq!(at_once, 1);
    assert_eq!(assembler.close().len(), HELD_MAX);
}

proptest! {
    /// Whatever comes in whatever order, each process of an incident comes out exactly once.
    #[test]
    fn nobody_is_lost_and_nobody_twice(
        steps in proptest::collection::vec((0_u8..4, 1_u64..4, 1_u32..6, any::<bool>(), any::<bool>()), 0..60)
    ) {
        let mut now = Instant::now();
        let mut assembler = Assembler::default();
        let mut made = 0;
        let mut out = 0;
        for (step, incident, tgid, hooks, group) in steps {
            let ready = match step {
                0 | 1 => {
                    made += 1;
                    let switch = if group { CONTAINER_GROUP } else { NO_GROUP };
                    assembler.kill(kill(hooks.then_some(incident), tgid, switch), now)
                }
                2 => assembler.end(&end(incident, 0, 0)),
                _ => {
                    now += HOLD;
                    assembler.expire(now)
                }
            };
            out += ready.len();
        }
        out += assembler.close().len();
        prop_assert_eq!(out as u64 + assembler.duplicates(), made);
    }
}
