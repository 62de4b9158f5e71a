//! Whom a kill hit: at once from memory, and later from the node's files.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oom_watcher::attribute::{Attributed, DEADLINE, Outcome, PENDING_MAX, Pending, Resolver, Sources};
use oom_watcher::cgroup::{Identity, Node, identify};
use oom_watcher::names::{Feed, Limits, Names, Scanner};
use oom_watcher::report::AttributionResult::{Foreign, Full, Host, Id, Pod};
use oom_watcher::report::AttributionSource::{
    Bundle, Index, Path as PathOnly, PodDirectory, Rescan, RuntimeFile, Sibling,
};
use oom_watcher::report::{AttributionResult, AttributionSource};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const UID: &str = "50fd2fd4-9b3d-4e5f-8a7b-1c2d3e4f3d78";

fn id(number: u32) -> String {
    format!("{number:064x}")
}

fn identity(path: &str) -> Identity {
    let segments: Vec<&str> = path.split('/').collect();
    identify(&segments, &Node::default())
}

/// A container of the one pod of these tests.
fn in_pod(number: u32) -> Identity {
    identity(&format!("/kubepods/burstable/pod{UID}/{}", id(number)))
}

/// The files of a node, and a resolver that reads them. Nothing follows them: what is known is what a scan found.
struct Fixture {
    base: TempDir,
    names: Names,
    resolver: Arc<Resolver>,
}

impl Fixture {
    fn with(sources: impl FnOnce(&Path) -> Sources) -> Self {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("containers")).unwrap();
        let names = Names::new(Limits::default());
        let scanner = Arc::new(Scanner::new(base.path().join("containers"), names.clone()));
        let resolver = Resolver::new(scanner, sources(base.path()));
        Self { base, names, resolver }
    }

    fn new() -> Self {
        Self::with(|_| Sources::default())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    fn link(&self, container: &str, number: u32, restart: u32) {
        let target = format!("/var/log/pods/shop_web-0_{UID}/{container}/{restart}.log");
        symlink(target, self.path(&format!("containers/web-0_shop_{container}-{}.log", id(number)))).unwrap();
    }

    /// The log file of a start of a container, made now.
    fn log(&self, container: &str, restart: u32) {
        let folder = self.path(&format!("pods/shop_web-0_{UID}/{container}"));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{restart}.log"));
        fs::write(&file, "").unwrap();
        let made = fs::metadata(file).unwrap().created().expect("the file system of tests says when a file was made");
        assert!(made <= SystemTime::now());
    }

    async fn scan(&self) {
        Scanner::new(self.path("containers"), self.names.clone()).scan_since(Instant::now()).await.unwrap();
    }

    #[track_caller]
    fn done(&self, identity: &Identity) -> Attributed {
        match self.resolver.attribute(identity) {
            Outcome::Done(who) => who,
            Outcome::Pending(pending) => panic!("not done: {pending:?}"),
        }
    }

    #[track_caller]
    fn pending(&self, identity: &Identity) -> Pending {
        match self.resolver.attribute(identity) {
            Outcome::Pending(pending) => pending,
            Outcome::Done(who) => panic!("nothing more to look for: {who:?}"),
        }
    }
}

/// `namespace/pod/container#restarts`, with `-` for what is absent.
fn names(who: &Attributed) -> String {
    let text = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".into());
    who.kubernetes.as_ref().map_or("none".into(), |kubernetes| {
        let restarts = kubernetes.restart_count.map_or("-".into(), |count| count.to_string());
        format!("{}/{}/{}#{restarts}", text(&kubernetes.namespace), text(&kubernetes.pod), text(&kubernetes.container))
    })
}

#[track_caller]
fn check(who: &Attributed, result: AttributionResult, source: AttributionSource, expected: &str) {
    assert_eq!((who.attribution.result, who.attribution.source, names(who).as_str()), (result, source, expected));
}

mod from_memory {
    use super::*;

    #[tokio::test]
    async fn a_container_that_has_a_link_has_all_its_names() {
        let fixture = Fixture::new();
        fixture.link("app", 1, 3);
        fixture.scan().await;
        let who = fixture.done(&in_pod(1));
        check(&who, Full, Index, "shop/web-0/app#3");
        let kubernetes = who.kubernetes.unwrap();
        assert_eq!((kubernetes.pod_uid.as_str(), kubernetes.container_id), (UID, Some(id(1))));
        assert_eq!(kubernetes.qos_class.as_deref(), Some("burstable"));
        assert_eq!((who.container, who.systemd_unit), (None, None));
    }

    #[tokio::test]
    async fn a_container_whose_link_is_gone_still_has_its_names() {
        let fixture = Fixture::new();
        fixture.link("app", 1, 0);
        fixture.scan().await;
        fs::remove_dir_all(fixture.path("containers")).unwrap();
        fs::create_dir(fixture.path("containers")).unwrap();
        fixture.scan().await;
        assert_eq!(fixture.names.stats().live, 0);
        check(&fixture.done(&in_pod(1)), Full, Index, "shop/web-0/app#0");
    }

    #[tokio::test]
    async fn a_process_of_the_pod_and_of_no_container_has_the_pods_name() {
        let fixture = Fixture::new();
        fixture.link("app", 1, 0);
        fixture.scan().await;
        for path in [
            format!("/kubepods/burstable/pod{UID}"),
            format!("/kubepods/burstable/pod{UID}/crio-conmon-{}", id(1)),
            format!("/kubepods/burstable/pod{UID}/kata_{}", id(9)),
        ] {
            check(&fixture.done(&identity(&path)), Pod, Sibling, "shop/web-0/-#-");
        }
    }

    #[test]
    fn what_is_in_no_pod_is_the_hosts() {
        let fixture = Fixture::new();
        let who = fixture.done(&identity("/system.slice/sshd.service"));
        check(&who, Host, PathOnly, "none");
        assert_eq!(who.systemd_unit.as_deref(), Some("sshd.service"));
        let who = fixture.done(&identity(&format!("/system.slice/docker-{}.scope", id(7))));
        check(&who, Host, PathOnly, "none");
        let container = who.container.unwrap();
        assert_eq!((container.id, container.runtime.as_deref(), container.name), (id(7), Some("docker"), None));
        for other in [Identity::Root, Identity::Other, Identity::Kubepods] {
            assert_eq!(fixture.done(&other), Attributed { attribution: who.attribution, ..Attributed::default() });
        }
        check(&fixture.done(&Identity::Foreign), Foreign, PathOnly, "none");
    }

    #[tokio::test]
    async fn a_container_outside_of_pods_that_has_a_link_is_the_kubelets() {
        let fixture = Fixture::new();
        fixture.link("app", 1, 2);
        fixture.scan().await;
        let who = fixture.done(&identity(&format!("/k8s.io/{}", id(1))));
        check(&who, Full, Index, "shop/web-0/app#2");
        assert_eq!((who.kubernetes.unwrap().pod_uid.as_str(), who.container), (UID, None));
    }
}

/// The clock of these tests is tokio's: it jumps to the next timer while nothing else is left to do.
mod later {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_link_that_comes_after_the_kill_is_found_at_the_next_look() {
        for late in [2_u64, 28, 60, 900] {
            let fixture = Fixture::new();
            let pending = fixture.pending(&in_pod(1));
            let killed = Instant::now();
            let search = tokio::spawn(pending.finish());
            sleep(Duration::from_millis(late)).await;
            fixture.link("app", 1, 0);
            check(&search.await.unwrap(), Full, Rescan, "shop/web-0/app#0");
            let waited = u64::try_from(killed.elapsed().as_millis()).unwrap();
            let expected = [15, 50, 150, 400, 1000].into_iter().find(|look| *look >= late).unwrap();
            assert!((expected..expected + 20).contains(&waited), "{late} ms late, found after {waited} ms");
        }
    }

    /// The kernel tells the feed of the link; no look at the directory is due for a second.
    #[tokio::test]
    async fn a_link_that_the_feed_meets_ends_the_search() {
        let fixture = Fixture::new();
        let scanner = Scanner::new(fixture.path("containers"), fixture.names.clone());
        let (feed, mut health) = Feed::new(Arc::new(scanner));
        let feed = tokio::spawn(feed.run());
        health.wait_for(|state| state.filled).await.unwrap();
        let killed = Instant::now();
        let search = tokio::spawn(fixture.pending(&in_pod(1)).finish());
        sleep(Duration::from_millis(1100)).await;
        fixture.link("other", 2, 0);
        fixture.link("app", 1, 0);
        let linked = killed.elapsed();
        check(&search.await.unwrap(), Full, Rescan, "shop/web-0/app#0");
        let late = killed.elapsed().saturating_sub(linked);
        assert!(late < Duration::from_millis(500), "{late:?} after the link");
        feed.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_kill_without_a_link_goes_out_at_the_last_look_with_its_identifiers() {
        let fixture = Fixture::new();
        let killed = Instant::now();
        let who = fixture.pending(&in_pod(1)).finish().await;
        check(&who, Id, PathOnly, "-/-/-#-");
        let kubernetes = who.kubernetes.unwrap();
        assert_eq!((kubernetes.pod_uid.as_str(), kubernetes.container_id), (UID, Some(id(1))));
        assert!((2000..2020).contains(&killed.elapsed().as_millis()), "{:?}", killed.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn another_container_of_the_pod_gives_the_pods_name() {
        let fixture = Fixture::new();
        fixture.link("app", 1, 0);
        fixture.scan().await;
        let who = fixture.pending(&in_pod(2)).finish().await;
        check(&who, Pod, Sibling, "shop/web-0/-#-");
        assert_eq!(who.kubernetes.unwrap().container_id, Some(id(2)));
    }

    /// A process of the pod that is in none of its containers: the first link names all that can be known.
    #[tokio::test(start_paused = true)]
    async fn the_first_link_of_a_pod_names_who_is_in_no_container() {
        let fixture = Fixture::new();
        let pending = fixture.pending(&identity(&format!("/kubepods/burstable/pod{UID}")));
        fixture.link("app", 1, 0);
        check(&pending.finish().await, Pod, Rescan, "shop/web-0/-#-");
    }

    #[tokio::test(start_paused = true)]
    async fn the_directory_of_links_may_be_missing() {
        let fixture = Fixture::new();
        fs::remove_dir(fixture.path("containers")).unwrap();
        let killed = Instant::now();
        check(&fixture.pending(&in_pod(1)).finish().await, Id, PathOnly, "-/-/-#-");
        assert!(killed.elapsed() <= DEADLINE);
        assert_eq!(fixture.names.stats().errors, 7);
    }

    fn with_pod_logs() -> Fixture {
        Fixture::with(|base| Sources { pod_logs: Some(base.join("pods")), ..Sources::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_never_started_has_its_names_from_the_log_directory() {
        let fixture = with_pod_logs();
        fixture.log("app", 10);
        let container = fixture.path(&format!("pods/shop_web-0_{UID}/app"));
        fs::create_dir_all(fixture.path("pods/shop_web-1_another-uid/app")).unwrap();
        fs::write(container.join("9.log.20260101-000000.gz"), "").unwrap();
        check(&fixture.pending(&in_pod(1)).finish().await, Full, PodDirectory, "shop/web-0/app#10");
        // A process of the pod itself has no container, however many there are.
        let in_pod_only = identity(&format!("/kubepods/pod{UID}"));
        check(&fixture.pending(&in_pod_only).finish().await, Pod, PodDirectory, "shop/web-0/-#-");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sandbox_that_was_too_small_has_the_pods_name_only() {
        let fixture = with_pod_logs();
        fs::create_dir_all(fixture.path(&format!("pods/shop_web-0_{UID}"))).unwrap();
        check(&fixture.pending(&in_pod(1)).finish().await, Pod, PodDirectory, "shop/web-0/-#-");
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_containers_none_is_guessed() {
        let fixture = with_pod_logs();
        for container in ["app", "side-car"] {
            fixture.log(container, 0);
        }
        check(&fixture.pending(&in_pod(1)).finish().await, Pod, PodDirectory, "shop/web-0/-#-");
    }

    /// The kubelet makes a killed sandbox anew; the log of the container that ran in the old one is still there.
    #[tokio::test(start_paused = true)]
    async fn a_sandbox_that_was_made_anew_is_not_the_container_that_ran_before() {
        let fixture = with_pod_logs();
        fixture.log("app", 0);
        fixture.link("app", 7, 0);
        check(&fixture.pending(&in_pod(1)).finish().await, Pod, PodDirectory, "shop/web-0/-#-");
        // Its next start is another matter.
        fixture.log("app", 1);
        check(&fixture.pending(&in_pod(2)).finish().await, Full, PodDirectory, "shop/web-0/app#1");
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_container_of_several_that_has_no_link_is_meant() {
        let fixture = with_pod_logs();
        fixture.log("app", 0);
        fixture.log("side-car", 2);
        fixture.link("app", 7, 0);
        check(&fixture.pending(&in_pod(1)).finish().await, Full, PodDirectory, "shop/web-0/side-car#2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_of_another_time_is_not_of_this_start() {
        let fixture = with_pod_logs();
        // Made after the kill: a restart.
        let pending = fixture.pending(&in_pod(1));
        // Files are dated by a clock that ticks in steps of up to 10 ms.
        std::thread::sleep(Duration::from_millis(20));
        fixture.log("app", 1);
        check(&pending.finish().await, Pod, PodDirectory, "shop/web-0/-#-");
    }

    #[tokio::test(start_paused = true)]
    async fn without_links_no_container_is_guessed() {
        let fixture = with_pod_logs();
        fixture.log("app", 0);
        fs::remove_dir(fixture.path("containers")).unwrap();
        check(&fixture.pending(&in_pod(1)).finish().await, Pod, PodDirectory, "shop/web-0/-#-");
    }

    fn with_crio() -> Fixture {
        let fixture = Fixture::with(|base| Sources { crio_bundles: Some(base.join("crio")), ..Sources::default() });
        for (number, name) in [(1, "container"), (2, "sandbox")] {
            let userdata = fixture.path(&format!("crio/{}/userdata", id(number)));
            fs::create_dir_all(&userdata).unwrap();
            let shape = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/crio/{name}.json"));
            fs::copy(shape, userdata.join("config.json")).unwrap();
        }
        fixture
    }

    #[tokio::test(start_paused = true)]
    async fn a_bundle_of_crio_names_the_container_and_a_sandbox_only_its_pod() {
        let fixture = with_crio();
        let slice =
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
        let in_crio = |number| identity(&format!("{slice}/crio-{}.scope/container", id(number)));
        check(&fixture.pending(&in_crio(1)).finish().await, Full, Bundle, "shop/web-0/app#4");
        check(&fixture.pending(&in_crio(2)).finish().await, Pod, Bundle, "shop/web-0/-#-");
        check(&fixture.pending(&in_crio(3)).finish().await, Id, PathOnly, "-/-/-#-");
    }

    #[tokio::test(start_paused = true)]
    async fn a_bundle_that_makes_no_sense_or_is_another_pods_names_nothing() {
        let fixture = with_crio();
        let file = fixture.path(&format!("crio/{}/userdata/config.json", id(1)));
        let whole = fs::read_to_string(&file).unwrap();
        let half = &whole[..whole.len() / 2];
        let another = whole.replace(UID, "another-uid");
        let hostile = whole.replace("\"shop\"", "\"kube system\\n\"");
        for text in ["", "{}", "[]", half, &another, &hostile] {
            fs::write(&file, text).unwrap();
            check(&fixture.pending(&in_pod(1)).finish().await, Id, PathOnly, "-/-/-#-");
        }
    }

    #[tokio::test]
    async fn docker_and_podman_write_their_containers_names() {
        let fixture = Fixture::with(|base| Sources {
            docker: Some(base.join("docker")),
            podman: Some(base.join("containers.json")),
            ..Sources::default()
        });
        let docker = fixture.path(&format!("docker/{}", id(1)));
        fs::create_dir_all(&docker).unwrap();
        fs::write(docker.join("config.v2.json"), r#"{"Config":{"Env":["SECRET=1"]},"Name":"/web"}"#).unwrap();
        let podman = format!(r#"[{{"id":"{}","names":["db"],"layer":"x"}},{{"id":"{}"}}]"#, id(2), id(3));
        fs::write(fixture.path("containers.json"), podman).unwrap();
        let paths = [
            (format!("/docker/{}", id(1)), Some("web")),
            (format!("/machine.slice/libpod-{}.scope/container", id(2)), Some("db")),
            (format!("/machine.slice/libpod-{}.scope", id(3)), None),
        ];
        for (path, expected) in paths {
            let who = fixture.pending(&identity(&path)).finish().await;
            assert_eq!(who.container.unwrap().name.as_deref(), expected, "{path}");
            let source = if expected.is_some() { RuntimeFile } else { PathOnly };
            assert_eq!((who.attribution.result, who.attribution.source), (Host, source));
        }
    }

    #[tokio::test]
    async fn files_that_make_no_sense_give_no_name() {
        let fixture = Fixture::with(|base| Sources { docker: Some(base.join("docker")), ..Sources::default() });
        let docker = fixture.path(&format!("docker/{}", id(1)));
        fs::create_dir_all(&docker).unwrap();
        for text in ["", "{", "[]", r#"{"Name":7}"#, r#"{"Name":"/"}"#, r#"{"Name":"/a b"}"#, r#"{"Name":"/a\n"}"#] {
            fs::write(docker.join("config.v2.json"), text).unwrap();
            let who = fixture.pending(&identity(&format!("/docker/{}", id(1)))).finish().await;
            assert_eq!((who.container.unwrap().name, who.attribution.result), (None, Host), "{text}");
        }
    }

    /// A FIFO without a writer stands in for a disk that does not answer; the clock is the real one.
    #[tokio::test]
    async fn a_file_that_does_not_answer_holds_up_nothing_beyond_the_deadline() {
        let fixture = Fixture::with(|base| Sources { docker: Some(base.join("docker")), ..Sources::default() });
        let docker = fixture.path(&format!("docker/{}", id(1)));
        fs::create_dir_all(&docker).unwrap();
        let fifo = docker.join("config.v2.json");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let killed = Instant::now();
        let who = fixture.pending(&identity(&format!("/docker/{}", id(1)))).finish().await;
        assert_eq!((who.container.unwrap().name, who.attribution.result), (None, Host));
        assert!((DEADLINE..DEADLINE * 2).contains(&killed.elapsed()), "{:?}", killed.elapsed());
        // Lets the thread that reads it end.
        drop(fs::OpenOptions::new().write(true).open(fifo).unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_misses_is_bounded_and_shares_its_scans() {
        let fixture = Fixture::new();
        let searches: Vec<_> = (0..PENDING_MAX).map(|_| tokio::spawn(fixture.pending(&in_pod(1)).finish())).collect();
        assert_eq!((fixture.resolver.pending(), fixture.resolver.refused()), (PENDING_MAX, 0));
        check(&fixture.done(&in_pod(1)), Id, PathOnly, "-/-/-#-");
        assert_eq!(fixture.resolver.refused(), 1);
        for search in searches {
            check(&search.await.unwrap(), Id, PathOnly, "-/-/-#-");
        }
        assert_eq!(fixture.resolver.pending(), 0);
        let scans = fixture.names.stats().scans;
        assert!((7..=14).contains(&scans), "{scans} scans for {PENDING_MAX} misses");
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_that_is_given_up_frees_its_place() {
        let fixture = Fixture::new();
        let pending = fixture.pending(&in_pod(1));
        assert_eq!(fixture.resolver.pending(), 1);
        drop(pending);
        let search = tokio::spawn(fixture.pending(&in_pod(1)).finish());
        sleep(Duration::from_millis(10)).await;
        search.abort();
        assert!(search.await.unwrap_err().is_cancelled());
        assert_eq!(fixture.resolver.pending(), 0);
    }
}
