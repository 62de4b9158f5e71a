//! Names of containers: what one link says, and what the index keeps of them.
#![expect(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

use std::time::{Duration, Instant};

use oom_watcher::cgroup::ContainerId;
use oom_watcher::names::link::{self, Link, LinkKey, PodDirectory};
use oom_watcher::names::{Changes, ContainerName, Index, Limits};
use proptest::prelude::*;

const ID: &str = "9148f5c0ffee00112233445566778899aabbccddeeff00112233445566772ff5";
const UID: &str = "50fd2fd4-9b3d-4e5f-8a7b-1c2d3e4f3d78";

fn id(number: u32) -> String {
    format!("{number:064x}")
}

fn container_id(text: &str) -> ContainerId {
    ContainerId::parse(text).unwrap()
}

/// The file name that the kubelet makes, cut as it cuts.
fn file_name(pod: &str, namespace: &str, container: &str, id: &str) -> String {
    let mut stem = format!("{pod}_{namespace}_{container}-{id}");
    stem.truncate(251);
    stem + ".log"
}

fn target(pod: &str, namespace: &str, container: &str, restart: u32) -> String {
    format!("/var/log/pods/{namespace}_{pod}_{UID}/{container}/{restart}.log")
}

mod one_link {
    use super::*;

    #[test]
    fn name_and_target_give_everything() {
        let file = file_name("e1-node1", "default", "c0", ID);
        assert_eq!(link::key(&file), Some(LinkKey::Id(container_id(ID))));
        let link = link::parse(&file, Some(&target("e1-node1", "default", "c0", 3))).unwrap();
        let name = ContainerName { namespace: "default".into(), pod: "e1-node1".into(), container: "c0".into() };
        assert_eq!(link, Link { name, id_prefix: String::new(), pod_uid: Some(UID.into()), restart_count: Some(3) });
    }

    #[test]
    fn dashes_and_dots_in_names_split_nothing() {
        let link = link::parse(&file_name("my-pod.sub-1", "kube-system", "side-car", ID), None).unwrap();
        assert_eq!(
            (link.name.pod.as_str(), link.name.namespace.as_str(), link.name.container.as_str()),
            ("my-pod.sub-1", "kube-system", "side-car")
        );
        assert_eq!((link.pod_uid, link.restart_count), (None, None));
    }

    #[test]
    fn only_the_last_three_parts_of_the_target_count() {
        let file = file_name("p", "n", "c", ID);
        for target in ["/data/logs/n_p_u-1/c/0.log", "../pods/n_p_u-1/c/0.log", "n_p_u-1/c/0.log"] {
            assert_eq!(link::parse(&file, Some(target)).unwrap().pod_uid.as_deref(), Some("u-1"), "{target}");
        }
    }

    #[test]
    fn a_target_of_another_form_is_none() {
        let file = file_name("p", "n", "c", ID);
        for target in ["", "/", "0.log", "/var/lib/docker/containers/x/x-json.log", "/var/log/pods/n_p/c/0.log", "//"] {
            assert_eq!(link::parse(&file, Some(target)).unwrap().pod_uid, None, "{target}");
        }
    }

    #[test]
    fn a_target_of_another_container_makes_it_no_link() {
        let file = file_name("p", "n", "c", ID);
        for (pod, namespace, container) in [("q", "n", "c"), ("p", "m", "c"), ("p", "n", "d")] {
            assert_eq!(link::parse(&file, Some(&target(pod, namespace, container, 0))), None);
        }
    }

    #[test]
    fn a_cut_name_is_completed_by_the_target() {
        // 253 + 63 + 63 do not fit into a pod's log directory; 180 and 50 do.
        for (pod_len, container, expected_id) in
            [(150, 40, &ID[..46]), (180, 40, &ID[..16]), (185, 50, ""), (190, 55, "")]
        {
            let (pod, container) = ("p".repeat(pod_len), "c".repeat(container));
            let file = file_name(&pod, "default", &container, ID);
            assert_eq!(file.len(), 255);
            assert!(matches!(link::key(&file), Some(LinkKey::Cut(_))));
            let link = link::parse(&file, Some(&target(&pod, "default", &container, 1))).unwrap();
            assert_eq!((link.name.pod, link.name.container), (pod, container));
            let cut_id = (link.id_prefix.as_str(), link.pod_uid.as_deref());
            assert!(ID.starts_with(cut_id.0));
            assert!(cut_id.0.starts_with(expected_id), "{cut_id:?}");
            assert_eq!(cut_id.1, Some(UID));
            assert_eq!(link::parse(&file, None), None, "names that are cut are no names");
        }
    }

    #[test]
    fn what_the_kubelet_cannot_have_made_is_no_link() {
        let long = "p".repeat(254);
        for file in [
            "",
            ".",
            "..",
            ".log",
            "-.log",
            "__-.log",
            "README",
            "a.log",
            &format!("p_n_c-{}.log", &ID[..63]),
            &format!("p_n_c-{ID}0.log"),
            &format!("p_n_c-{ID}.txt"),
            &format!("p_n_c_{ID}.log"),
            &format!("p_n-{ID}.log"),
            &format!("p_n_-{ID}.log"),
            &format!("_n_c-{ID}.log"),
            &format!("p__c-{ID}.log"),
            &format!("P_n_c-{ID}.log"),
            &format!("p_n.x_c-{ID}.log"),
            &format!("p_n_c{{}}-{ID}.log"),
            &format!("p\n_n_c-{ID}.log"),
            &format!("p_n_c_d-{ID}.log"),
            &format!("é_n_c-{ID}.log"),
            &format!("{long}_n_c-{ID}.log"),
            &format!("p_n_{}-{ID}.log", "c".repeat(64)),
            &"x".repeat(255),
            &format!("{}.log", "é".repeat(125)),
        ] {
            assert_eq!(link::parse(file, None), None, "{file:?}");
        }
    }

    #[test]
    fn a_pods_log_directory_has_three_parts() {
        let found = link::pod_directory(&format!("default_e1-node1_{UID}")).unwrap();
        assert_eq!(found, PodDirectory { namespace: "default".into(), pod: "e1-node1".into(), uid: UID.into() });
        assert_eq!(link::pod_directory("n_p_My_uid").unwrap().uid, "My_uid");
        for wrong in ["", "_", "__", "n_p", "n_p_", "n__u", "n.m_p_u", "n_p_u/", "n_p_u v"] {
            assert_eq!(link::pod_directory(wrong), None, "{wrong}");
        }
        assert_eq!([link::restart("0.log"), link::restart("12.log")], [Some(0), Some(12)]);
        for wrong in ["", ".log", "x.log", "-1.log", "+1.log", "1.log.gz", "99999999999.log", "0.log.20260101-000000"] {
            assert_eq!(link::restart(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_name_makes_it_panic(file in "(?s).{0,300}", target in "(?s).{0,300}") {
            link::parse(&file, Some(&target));
            link::parse(&file, None);
            link::pod_directory(&file);
            link::restart(&file);
        }

        #[test]
        fn every_name_that_fits_comes_back_whole(
            pod in "[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?", namespace in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
            container in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", digits in "[0-9a-f]{64}", restart: u32,
        ) {
            let file = file_name(&pod, &namespace, &container, &digits);
            let link = link::parse(&file, Some(&target(&pod, &namespace, &container, restart))).unwrap();
            prop_assert_eq!(link.name, ContainerName { namespace, pod, container });
            prop_assert_eq!(link.restart_count, Some(restart));
            match link::key(&file).unwrap() {
                LinkKey::Id(id) => prop_assert_eq!(id.to_string(), digits),
                LinkKey::Cut(_) => prop_assert!(digits.starts_with(&link.id_prefix)),
            }
        }
    }
}

mod index {
    use super::*;

    const LIMITS: Limits = Limits { live: 4, gone: 3, keep_gone: Duration::from_mins(10) };

    /// An index with its own clock.
    struct Fixture {
        index: Index,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            Self { index: Index::new(LIMITS), now: Instant::now() }
        }

        fn add(&mut self, pod: &str, container: &str, id: &str, restart: u32) {
            let file = file_name(pod, "ns", container, id);
            let target = format!("/var/log/pods/ns_{pod}_uid-{}/{container}/{restart}.log", &pod[..1]);
            let link = link::parse(&file, Some(&target)).unwrap();
            self.index.apply(link::key(&file).unwrap(), link, self.now);
        }

        fn remove(&mut self, id: &str) {
            self.index.delete(&LinkKey::Id(container_id(id)), self.now);
        }

        fn wait(&mut self, duration: Duration) {
            self.now += duration;
        }

        /// `pod/container#restarts` of the container with this id.
        fn find(&self, id: &str, pod_uid: Option<&str>) -> Option<String> {
            let found = self.index.by_id(&container_id(id), pod_uid)?;
            let restarts = found.restart_count.map_or("?".into(), |count| count.to_string());
            Some(format!("{}/{}#{restarts}", found.name.pod, found.name.container))
        }

        fn changes(&mut self) -> (Vec<String>, Vec<String>) {
            let Changes { added, gone } = self.index.take_changes();
            let sorted = |names: Vec<std::sync::Arc<ContainerName>>| {
                let mut names: Vec<String> =
                    names.iter().map(|name| format!("{}/{}", name.pod, name.container)).collect();
                names.sort();
                names
            };
            (sorted(added), sorted(gone))
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_container_is_found_by_id_and_its_pod_by_uid() {
        let mut fixture = Fixture::new();
        fixture.add("a", "app", &id(1), 2);
        assert_eq!(fixture.find(&id(1), None).as_deref(), Some("a/app#2"));
        assert_eq!(fixture.find(&id(2), Some("uid-a")), None, "another container of the pod is not this one");
        assert_eq!(fixture.index.by_pod("uid-a").unwrap().name.pod, "a");
        assert!(fixture.index.by_pod("uid-b").is_none());
    }

    #[test]
    fn a_link_that_is_gone_keeps_its_name_for_ten_minutes() {
        let mut fixture = Fixture::new();
        fixture.add("a", "app", &id(1), 0);
        fixture.remove(&id(1));
        fixture.wait(Duration::from_secs(599));
        fixture.remove(&id(9));
        assert_eq!(fixture.find(&id(1), None).as_deref(), Some("a/app#0"));
        assert!(fixture.index.by_pod("uid-a").is_some());
        fixture.wait(Duration::from_secs(1));
        fixture.add("b", "app", &id(2), 0);
        assert_eq!(fixture.find(&id(1), None), None);
        assert!(fixture.index.by_pod("uid-a").is_none());
        assert_eq!((fixture.index.stats().live, fixture.index.stats().gone), (1, 0));
    }

    #[test]
    fn a_link_that_comes_back_lives_its_own_time() {
        let mut fixture = Fixture::new();
        fixture.add("a", "app", &id(1), 0);
        fixture.remove(&id(1));
        fixture.wait(Duration::from_mins(9));
        fixture.add("a", "app", &id(1), 0);
        fixture.wait(Duration::from_mins(9));
        fixture.add("b", "app", &id(2), 0);
        assert_eq!(fixture.find(&id(1), None).as_deref(), Some("a/app#0"), "its old tombstone's time is over");
        assert_eq!((fixture.index.stats().live, fixture.index.stats().gone), (2, 0));
    }

    #[test]
    fn a_full_index_refuses_and_says_so() {
        let mut fixture = Fixture::new();
        for number in 0..6 {
            fixture.add("a", "app", &id(number), number);
        }
        assert_eq!((fixture.index.stats().live, fixture.index.stats().refused), (4, 2));
        assert_eq!(fixture.find(&id(5), None), None);
        fixture.remove(&id(0));
        fixture.add("a", "app", &id(5), 5);
        assert_eq!(fixture.find(&id(5), None).as_deref(), Some("a/app#5"), "a free place is used");
    }

    #[test]
    fn tombstones_beyond_the_limit_go_oldest_first() {
        let mut fixture = Fixture::new();
        for number in 0..5 {
            fixture.add("a", "app", &id(number), number);
            fixture.remove(&id(number));
        }
        let stats = fixture.index.stats();
        assert_eq!((stats.live, stats.gone, stats.evicted), (0, 3, 2));
        assert_eq!(fixture.find(&id(1), None), None);
        assert!(fixture.find(&id(2), None).is_some());
    }

    #[test]
    fn a_link_that_flaps_fills_nothing() {
        let mut fixture = Fixture::new();
        for _ in 0..100 {
            fixture.add("a", "app", &id(1), 0);
            fixture.remove(&id(1));
        }
        let stats = fixture.index.stats();
        assert_eq!((stats.live, stats.gone, stats.evicted), (0, 1, 0));
    }

    #[test]
    fn what_a_scan_does_not_meet_is_gone() {
        let mut fixture = Fixture::new();
        fixture.add("a", "app", &id(1), 0);
        fixture.add("b", "app", &id(2), 0);
        fixture.index.begin_scan();
        assert!(fixture.index.touch(&LinkKey::Id(container_id(&id(1)))), "known: its target need not be read");
        assert!(!fixture.index.touch(&LinkKey::Id(container_id(&id(3)))));
        fixture.add("c", "app", &id(3), 0);
        fixture.index.end_scan(fixture.now);
        assert_eq!((fixture.index.stats().live, fixture.index.stats().gone), (2, 1));
        assert!(fixture.find(&id(2), None).is_some(), "as a tombstone");
        assert!(!fixture.index.touch(&LinkKey::Id(container_id(&id(2)))));
    }

    #[test]
    fn a_cut_id_is_found_by_what_is_left_of_it_in_its_pod() {
        let mut fixture = Fixture::new();
        let (pod, container) = ("a".repeat(140), "c".repeat(60));
        let (first, second) = (format!("1{}", &ID[1..]), format!("2{}", &ID[1..]));
        fixture.add(&pod, &container, &first, 0);
        fixture.add(&pod, &container, &second, 1);
        assert_eq!(fixture.find(&first, Some("uid-a")), Some(format!("{pod}/{container}#0")));
        assert_eq!(fixture.find(&second, Some("uid-a")), Some(format!("{pod}/{container}#1")));
        assert_eq!(fixture.find(ID, Some("uid-a")), None);
        assert_eq!(fixture.find(&first, Some("uid-b")), None, "only in its own pod");
        assert_eq!(fixture.find(&first, None), None);
        // Another container of the pod whose id begins with the same digits: neither is certain.
        fixture.add(&pod, &"c".repeat(50), &format!("{}0000", &first[..60]), 2);
        assert_eq!(fixture.find(&first, Some("uid-a")), None);
    }

    #[test]
    fn a_few_digits_left_of_an_id_are_no_evidence() {
        let mut fixture = Fixture::new();
        let (pod, container) = ("a".repeat(180), "c".repeat(60));
        fixture.add(&pod, &container, ID, 0);
        assert_eq!(fixture.find(ID, Some("uid-a")), None);
        assert!(fixture.index.by_pod("uid-a").is_some(), "but the pod has its name");
    }

    #[test]
    fn changes_are_told_once_and_by_container_not_by_restart() {
        let mut fixture = Fixture::new();
        fixture.add("a", "app", &id(1), 0);
        fixture.add("b", "app", &id(2), 0);
        assert_eq!(fixture.changes(), (names(&["a/app", "b/app"]), names(&[])));
        assert_eq!(fixture.changes(), (names(&[]), names(&[])));
        // A restart: the new instance's link, and then the old one's end.
        fixture.add("a", "app", &id(3), 1);
        fixture.remove(&id(1));
        assert_eq!(fixture.changes(), (names(&[]), names(&[])));
        fixture.remove(&id(3));
        fixture.remove(&id(3));
        assert_eq!(fixture.changes(), (names(&[]), names(&["a/app"])));
        // Between two questions: gone and back, and come and gone.
        fixture.remove(&id(2));
        fixture.add("b", "app", &id(4), 1);
        fixture.add("c", "app", &id(5), 0);
        fixture.remove(&id(5));
        assert_eq!(fixture.changes(), (names(&[]), names(&[])));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(u32, u8),
        Remove(u32),
        Scan(Vec<u32>),
        Wait(u64),
        Ask,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..8_u32, 0..3_u8).prop_map(|(number, pod)| Step::Add(number, pod)),
            3 => (0..8_u32).prop_map(Step::Remove),
            1 => prop::collection::vec(0..8_u32, 0..8).prop_map(Step::Scan),
            1 => (0..900_u64).prop_map(Step::Wait),
            2 => Just(Step::Ask),
        ]
    }

    proptest! {
        /// Whatever happens: the limits hold, and the reader of the changes knows exactly the containers that exist.
        #[test]
        fn limits_hold_and_changes_add_up(steps in prop::collection::vec(step(), 0..80)) {
            let mut fixture = Fixture::new();
            let mut told = std::collections::BTreeSet::new();
            for step in steps {
                match step {
                    Step::Add(number, pod) => fixture.add(["a", "b", "c"][usize::from(pod)], "app", &id(number), 0),
                    Step::Remove(number) => fixture.remove(&id(number)),
                    Step::Scan(met) => {
                        fixture.index.begin_scan();
                        for number in met {
                            fixture.index.touch(&LinkKey::Id(container_id(&id(number))));
                        }
                        fixture.index.end_scan(fixture.now);
                    }
                    Step::Wait(seconds) => fixture.wait(Duration::from_secs(seconds)),
                    Step::Ask => {
                        let (added, gone) = fixture.changes();
                        for name in added { prop_assert!(told.insert(name)); }
                        for name in gone { prop_assert!(told.remove(&name)); }
                    }
                }
                let stats = fixture.index.stats();
                prop_assert!(stats.live <= LIMITS.live && stats.gone <= LIMITS.gone, "{stats:?}");
            }
            let (added, gone) = fixture.changes();
            told.extend(added);
            for name in gone { told.remove(&name); }
            // Everything goes at once: the reader hears of exactly what it was told.
            fixture.index.begin_scan();
            fixture.index.end_scan(fixture.now);
            prop_assert_eq!(fixture.changes(), (vec![], told.into_iter().collect()));
            prop_assert_eq!(fixture.index.stats().live, 0);
        }
    }
}
