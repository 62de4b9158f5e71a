use std::time::Duration;

use PodEventOutcome::{Created, Overflow, Raised};
use proptest::prelude::*;

use super::*;
use crate::{k8s::pod::PodName, telemetry::Stage};

struct Setup {
    series: Series,
    telemetry: Arc<Telemetry>,
    start: Instant,
}

fn setup() -> Setup {
    let (telemetry, start) = (Arc::new(Telemetry::new()), Instant::now());
    Setup { series: Series::new(Limits::default(), Arc::clone(&telemetry), start), telemetry, start }
}

fn draft(pod: usize, container: &str) -> Draft {
    Draft {
        pod: PodName::new("shop", &format!("cart-{pod}")).unwrap(),
        pod_uid: format!("uid-{pod}"),
        container: container.to_owned(),
        reason: "ContainerOOMKilled",
        field_path: None,
        note: "killed".to_owned(),
        node: "worker-1".to_owned(),
        time: jiff::Timestamp::UNIX_EPOCH,
        boot_time_ns: 0,
    }
}

impl Setup {
    /// Writes all that is due by then, as an API that takes everything would; how many requests that were.
    fn write(&mut self, now: Instant) -> usize {
        let mut writes = 0;
        while self.series.next_due(now, now).is_some_and(|due| due <= now) {
            let (key, _) = self.series.take_due(now).unwrap();
            self.series.written(&key, Ok(()), now);
            writes += 1;
        }
        writes
    }

    fn told(&self) -> u64 {
        self.telemetry.passed(Stage::SinkEvent)
    }

    fn waiting(&self) -> u64 {
        self.series.open.values().filter_map(|open| open.waiting).map(|waiting| waiting.kills).sum()
    }
}

#[test]
fn a_pod_that_is_killed_all_day_costs_a_request_every_five_minutes() {
    let mut setup = setup();
    let mut writes = 0;
    for second in 0..86_400 {
        let now = setup.start + Duration::from_secs(second);
        setup.series.add(&second.to_string(), draft(1, "app"), 1, now);
        writes += setup.write(now);
    }
    // The burst of 25, and one in each of 288 intervals.
    assert!((300..=25 + 288).contains(&writes), "{writes}");
    assert_eq!(setup.told() + setup.waiting(), 86_400, "none is lost: the count is raised later");
    assert_eq!(setup.telemetry.count_pod_event(Created, 0), 1);
}

#[test]
fn an_agent_has_a_rate_for_all_its_pods() {
    let mut setup = setup();
    for pod in 0..500 {
        setup.series.add(&pod.to_string(), draft(pod, "app"), 1, setup.start);
    }
    assert_eq!(setup.write(setup.start), 50, "the burst");
    let later = setup.start + Duration::from_mins(1);
    let mut writes = 0;
    for second in 1..=60 {
        writes += setup.write(setup.start + Duration::from_secs(second));
    }
    assert_eq!(writes, 30, "one in 2 s");
    assert_eq!(setup.told() + setup.waiting(), 500);
    assert!(setup.series.next_due(later, later).is_some());
}

#[test]
fn another_container_or_an_hour_later_is_another_event() {
    let mut setup = setup();
    let hour = setup.start + Duration::from_hours(1);
    for (incident, container, now) in [("1", "app", setup.start), ("2", "db", setup.start), ("3", "app", hour)] {
        setup.series.add(incident, draft(1, container), 1, now);
        assert_eq!(setup.write(now), 1);
    }
    assert_eq!((setup.telemetry.count_pod_event(Created, 0), setup.telemetry.count_pod_event(Raised, 0)), (3, 0));
}

#[test]
fn the_last_kill_is_the_newest_by_a_clock_that_nobody_sets() {
    let mut setup = setup();
    let at = |boot_time_ns, time: &str| Draft { boot_time_ns, time: time.parse().unwrap(), ..draft(1, "app") };
    setup.series.add("1", at(10, "2026-11-22T17:45:00Z"), 1, setup.start);
    assert_eq!(setup.write(setup.start), 1);
    // The clock is set back by a day; and one that was killed before is told late.
    setup.series.add("2", at(20, "2026-11-21T17:45:01Z"), 1, setup.start);
    setup.series.add("3", at(15, "2026-11-22T17:45:05Z"), 1, setup.start);
    let (_, write) = setup.series.take_any().unwrap();
    let Write::Raise { count, last, .. } = write else { panic!("{write:?}") };
    assert_eq!((count, last.to_string().as_str()), (3, "2026-11-21T17:45:01Z"));
}

#[test]
fn what_finds_no_place_is_lost_and_counted() {
    let mut setup = setup();
    for pod in 0..OPEN_MAX + 7 {
        setup.series.add(&pod.to_string(), draft(pod, "app"), 1, setup.start);
    }
    assert_eq!(setup.telemetry.count_pod_event(Overflow, 0), 7);
    assert_eq!(setup.waiting(), OPEN_MAX as u64);
    // One that is told makes room.
    assert_eq!(setup.write(setup.start), 50);
    setup.series.add("new", draft(5000, "app"), 1, setup.start);
    assert_eq!((setup.told(), setup.waiting(), setup.series.open.len()), (50, OPEN_MAX as u64 - 49, OPEN_MAX));
}

#[test]
fn what_is_remembered_is_limited() {
    let mut setup = setup();
    for pod in 0..5000 {
        let now = setup.start + Duration::from_secs(2 * pod as u64);
        setup.series.add(&pod.to_string(), draft(pod, "app"), 1, now);
        setup.write(now);
    }
    assert_eq!(setup.told(), 5000);
    assert!(setup.series.open.len() <= OPEN_MAX);
    assert!(setup.series.incidents.len() <= INCIDENTS_MAX);
    assert!(setup.series.pods.len() <= BUCKETS_MAX);
}

/// What may happen to the open Events.
#[derive(Clone, Debug)]
enum Step {
    Kill { incident: usize, pod: usize, container: &'static str },
    Answer(Result<(), ApiOutcome>),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let kill = (0_usize..40, 0_usize..4, prop::sample::select(vec!["", "app", "db"]));
    let outcomes = ApiOutcome::ALL.map(|(outcome, _)| if outcome == ApiOutcome::Ok { Ok(()) } else { Err(outcome) });
    prop_oneof![
        kill.prop_map(|(incident, pod, container)| Step::Kill { incident, pod, container }),
        prop::sample::select(outcomes.to_vec()).prop_map(Step::Answer),
        (1_u64..700).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens: kills made = told + lost + waiting, and none is told twice.
    #[test]
    fn the_account_is_exact(steps in prop::collection::vec(step(), 1..200)) {
        let mut setup = setup();
        let (mut now, mut made) = (setup.start, 0);
        for step in steps {
            match step {
                Step::Kill { incident, pod, container } => {
                    setup.series.add(&incident.to_string(), draft(pod, container), 1, now);
                    made += 1;
                }
                Step::Answer(outcome) => {
                    if setup.series.next_due(now, now).is_some_and(|due| due <= now) {
                        let (key, _) = setup.series.take_due(now).expect("it is due");
                        setup.series.written(&key, outcome, now);
                    }
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    setup.series.expire(now);
                }
            }
            let lost = setup.telemetry.lost(Stage::SinkEvent);
            prop_assert_eq!(setup.told() + lost + setup.waiting(), made);
        }
    }
}
