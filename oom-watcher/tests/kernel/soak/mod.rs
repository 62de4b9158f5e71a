//! The soak: hours of mixed load on one watcher, and an account at the end.
//!
//! Kills in pods that come and go, in containers that nobody can name and in cgroups of the machine, alone and in bursts; a
//! scraper, a scraper that never reads, and an API server that fails in every way it can, each in turn. It passes when the
//! account closes: every kill made was reported, once, and nothing grew.

mod account;
mod api;
mod pods;
mod scraper;

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use self::{account::Account, api::Api, pods::Pods, scraper::Scraper};
use crate::{cgroup::Cgroup, hog::Hog, watcher::Watcher};

/// First argument of a soak; the second is its length in minutes.
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

/// Runs one.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let Some(Ok(minutes)) = arguments.first().map(|text| text.parse::<u64>()) else {
        println!("how many minutes?");
        return ExitCode::FAILURE;
    };
    let length = Duration::from_mins(minutes);
    let api = Api::start();
    let links = tempfile::tempdir().expect("a directory for the links");
    let kubeconfig = links.path().join("kubeconfig");
    std::fs::write(&kubeconfig, api.kubeconfig()).expect("it is written");
    let watcher = start(links.path(), &kubeconfig);
    let scraper = Scraper::start(watcher.port());
    let mut account = Account::open();
    load(&watcher, links.path(), &mut account, length);
    account.take(watcher.rest_within(LAST_REPORTS));
    account.end(&watcher);
    println!("{} requests to the API, {} scrapes", api.requests(), scraper.scrapes());
    drop(scraper);
    account.take(watcher.stop());
    account.close()
}

fn start(links: &std::path::Path, kubeconfig: &std::path::Path) -> Watcher {
    Watcher::start_with_environment(
        &[
            "--container-log-dir",
            links.to_str().expect("the path is text"),
            "--kubernetes-enrichment=true",
            "--kubernetes-events=true",
            // Short, so that series of pods that are gone go during the soak.
            "--series-retention=60",
        ],
        &[("KUBECONFIG", kubeconfig.to_str().expect("the path is text"))],
    )
}

fn load(watcher: &Watcher, links: &std::path::Path, account: &mut Account, length: Duration) {
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
        match step % 50 {
            0 => kill_at_once(&pods.newest(BURST), account),
            10 | 35 => kill(&plain, false, account),
            20 => kill(&pods.unnamed(), false, account),
            30 => {
                // The pod is gone before its report can ask for it.
                let pod = pods.take_oldest();
                kill(pod.container(), true, account);
            }
            _ => kill(pods.next().container(), true, account),
        }
        pods.turn_over();
        account.take(watcher.waiting());
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
