//! The soak: hours of mixed load on one watcher, and an account at the end.
//!
//! Kills in pods that come and go, in containers that nobody can name and in cgroups of the machine, alone and in bursts; a
//! scraper, a scraper that never reads, and an API server that fails in every way it can, each in turn. It passes when the
//! account closes: every kill made was reported, once, what became of its Event is what the API server says, and nothing grew.

mod account;
mod api;
mod events;
mod phase;
mod pods;
mod scraper;

use std::{
    path::Path,
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use self::{account::Account, api::Api, events::Events, phase::Schedule, pods::Pods, scraper::Scraper};
use crate::{cgroup::Cgroup, hog::Hog, machine, watcher::Watcher};

/// First argument of a soak; the second is its length in seconds, the third a file for the account.
pub(crate) const WORD: &str = "--soak";

/// Memory of one victim's cgroup.
const LIMIT: u64 = 8 << 20;
/// More than the limit allows.
const TOO_MUCH: &str = "33554432";
/// Victims of a burst.
const BURST: usize = 20;
/// Pause between two steps: with the kills' own time, five to ten kills a second.
const PAUSE: Duration = Duration::from_millis(50);
/// After that, what is resident and open counts as the start: every pool and buffer has been used.
const WARM_UP: Duration = Duration::from_mins(1);
/// A name that nobody knows is looked for so long at most, and then the kill is reported without.
const LAST_REPORTS: Duration = Duration::from_secs(8);
/// How long the last Events may take once the API is well for good: the longest pause after its failures, and a write every two
/// seconds for each pod that there is.
const LAST_EVENTS: Duration = Duration::from_mins(4);

/// Runs one.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let Some(Ok(seconds)) = arguments.first().map(|text| text.parse::<u64>()) else {
        println!("how many seconds?");
        return ExitCode::FAILURE;
    };
    let (page, closes) = soak(Duration::from_secs(seconds));
    println!("{page}");
    if let Some(file) = arguments.get(1) {
        std::fs::write(file, page).expect("the account can be written");
    }
    if closes { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn soak(length: Duration) -> (String, bool) {
    let schedule = Arc::new(Schedule::new(length));
    let api = Api::start(&schedule);
    let links = tempfile::tempdir().expect("a directory for the links");
    let kubeconfig = links.path().join("kubeconfig");
    std::fs::write(&kubeconfig, api.kubeconfig()).expect("it is written");
    let before = machine::vmstat_kills();
    let watcher = start(links.path(), &kubeconfig);
    let mut account = Account::open([before, machine::vmstat_kills()]);
    let mut events = Events::default();
    let scraper = Scraper::start(watcher.port());
    load(&watcher, links.path(), &mut account, &mut events, &schedule, length);
    schedule.end();
    account.take(watcher.rest_within(LAST_REPORTS));
    let deadline = Instant::now() + LAST_EVENTS;
    while !events.end(&watcher, account.in_pods) && Instant::now() < deadline {
        account.take(watcher.rest_within(Duration::from_secs(1)));
    }
    let books = api.books();
    account.end(&watcher);
    let pages_read = scraper.scrapes();
    drop(scraper);
    account.take(watcher.stop());
    account.ended();
    let (mut rows, mut checks) = account.close();
    rows.push(("scrapes", pages_read.to_string()));
    checks.push(account::Check::new("it was scraped all the time", pages_read > 0));
    let (more, further) = events.close(&books, account.in_pods, account.unnamed, account.enrichments);
    rows.extend(more);
    checks.extend(further);
    account::page(&title(length), &rows, &checks)
}

fn title(length: Duration) -> String {
    let check = machine::check();
    let said = |key: &str| check[key].as_str().unwrap_or("?").to_owned();
    format!(
        "Soak of {} seconds: oom-watcher {}, Linux {} on {}, {} CPUs, memory cgroup {}",
        length.as_secs(),
        said("version"),
        said("kernel"),
        said("machine"),
        machine::cpus(),
        said("memory_cgroup")
    )
}

fn start(links: &Path, kubeconfig: &Path) -> Watcher {
    Watcher::start_with_environment(
        &[
            "--container-log-dir",
            links.to_str().expect("the path is text"),
            "--kubernetes-enrichment=true",
            "--kubernetes-events=true",
            "--seccomp=kill",
            // Short, so that series of pods that are gone go during the soak.
            "--series-retention=60",
        ],
        &[("KUBECONFIG", kubeconfig.to_str().expect("the path is text"))],
    )
}

fn load(
    watcher: &Watcher,
    links: &Path,
    account: &mut Account,
    events: &mut Events,
    schedule: &Schedule,
    length: Duration,
) {
    let mut pods = Pods::new(links);
    let plain = Cgroup::new("soak");
    plain.limit(LIMIT);
    let begun = Instant::now();
    let mut warm = false;
    for step in 0_u32.. {
        let elapsed = begun.elapsed();
        if elapsed >= length {
            break;
        }
        if !warm && elapsed >= WARM_UP.min(length / 4) {
            account.begin(watcher);
            warm = true;
        }
        match step % 200 {
            0 | 100 => kill_at_once(&pods.newest(BURST), account),
            10 | 60 | 110 | 160 => kill(&plain, false, account),
            20 | 120 => {
                kill(&pods.unnamed(), false, account);
                account.unnamed += 1;
            }
            30 => {
                // The pod is gone before its report can ask for it.
                let pod = pods.take_oldest();
                kill(pod.container(), true, account);
            }
            _ => kill(pods.next().container(), true, account),
        }
        pods.turn_over();
        account.take(watcher.waiting());
        if events.look(watcher, schedule) {
            account.look(watcher);
        }
        thread::sleep(PAUSE);
    }
}

fn start_in(cgroup: &Cgroup) -> Hog {
    Hog::start(cgroup, &["anon", TOO_MUCH])
}

fn kill(cgroup: &Cgroup, named: bool, account: &mut Account) {
    let mut hog = start_in(cgroup);
    hog.go();
    hog.must_be_killed();
    account.made(cgroup.path(), hog.pid(), named);
}

fn kill_at_once(cgroups: &[&Cgroup], account: &mut Account) {
    let mut hogs: Vec<Hog> = cgroups.iter().map(|cgroup| start_in(cgroup)).collect();
    hogs.iter_mut().for_each(Hog::go);
    for (cgroup, hog) in cgroups.iter().zip(&mut hogs) {
        hog.must_be_killed();
        account.made(cgroup.path(), hog.pid(), true);
    }
}
