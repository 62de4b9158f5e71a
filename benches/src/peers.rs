//! This watcher beside others, in a guest whose kernel has what they need: each sees the same real kills, and each one's lines
//! are read by this program with the time at which they came.
//!
//! This file owns the order and the figures. What is run and how its lines are read is in `watcher`, what is killed in `kills`.

mod kills;
mod watcher;

use std::{
    collections::HashMap,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

pub(crate) use self::kills::hog;
use self::{
    kills::Cgroup,
    watcher::{CLOCK, KINDS, Telling, Watcher},
};

/// How much is done.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The agent
    #[arg(long)]
    agent: PathBuf,
    /// Kills one at a time
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Processes of the group that is killed, and cgroups that have a process killed at the same time
    #[arg(long, default_value_t = 20)]
    burst: usize,
    /// Seconds that all are watched doing nothing
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

/// Turns that the kills one at a time are made in, so that what the machine does meanwhile is done to all.
const ROUNDS: usize = 4;
/// After the last line of any watcher, until nothing more is expected.
const QUIET: Duration = Duration::from_secs(5);
/// Longer than any kill takes to be told.
const PATIENCE: Duration = Duration::from_mins(1);
/// Long enough to tell what waited.
const AWAKE: Duration = Duration::from_secs(3);
/// What starting left behind is over.
const SETTLED: Duration = Duration::from_secs(15);

#[derive(Serialize)]
pub(crate) struct Peers {
    kernel: String,
    cpus: usize,
    kills: usize,
    burst: usize,
    watchers: Vec<Figures>,
}

/// One watcher's.
#[derive(Serialize)]
struct Figures {
    name: &'static str,
    /// Why it could not be run; then it has no figures.
    refused: Option<String>,
    start: Option<watcher::Start>,
    memory: Option<watcher::Memory>,
    idle: Option<Idle>,
    alone: Option<Told>,
    group: Option<Told>,
    at_once: Option<Told>,
}

/// What doing nothing takes.
#[derive(Serialize)]
struct Idle {
    seconds: f64,
    switches: u64,
    cpu_us: u64,
}

/// Which kills were told, and how long after the time that our record gives them.
#[derive(Serialize)]
struct Told {
    victims: usize,
    #[serde(rename = "told")]
    count: usize,
    /// Of each that was told.
    after_ms: Vec<f64>,
}

/// Starts every watcher, has processes killed, and counts.
pub(crate) fn run(options: &Options) -> Result<Peers> {
    let links = kills::links(options.burst)?;
    let mut watchers = Vec::new();
    let mut figures: Vec<Figures> = KINDS.iter().map(|kind| Figures::of(kind.name)).collect();
    for (kind, figures) in KINDS.iter().zip(&mut figures) {
        eprintln!("starting {}", kind.name);
        match Watcher::start(kind, &options.agent, &links) {
            Ok(watcher) => {
                figures.start = Some(watcher.started()?);
                watchers.push(Some(watcher));
            }
            Err(error) => {
                figures.refused = Some(format!("{error:#}"));
                watchers.push(None);
            }
        }
    }
    idle(&watchers, &mut figures, options.seconds)?;
    eprintln!("killing one at a time");
    let mut alone: Vec<Alone> = KINDS.iter().map(|_| Alone::default()).collect();
    for round in 0..ROUNDS {
        let kills = options.kills * (round + 1) / ROUNDS - options.kills * round / ROUNDS;
        for (place, alone) in alone.iter_mut().enumerate() {
            alone.add(&watchers, place, kills)?;
        }
    }
    for ((place, figures), alone) in figures.iter_mut().enumerate().zip(&alone) {
        figures.alone = watchers[place].as_ref().map(|_| alone.told(place));
    }
    eprintln!("killing many at a time");
    let group = burst(&watchers, &kills::group(options.burst)?);
    let at_once = burst(&watchers, &kills::at_once(options.burst)?);
    for ((figures, group), at_once) in figures.iter_mut().zip(group).zip(at_once) {
        (figures.group, figures.at_once) = (group, at_once);
    }
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
    Ok(Peers {
        kernel: kernel.trim().to_owned(),
        cpus: thread::available_parallelism()?.get(),
        kills: options.kills,
        burst: options.burst,
        watchers: figures,
    })
}

/// Kills that only one watcher is awake for, and the loop, which gives their times: on two CPUs, each would wait for the others.
#[derive(Default)]
struct Alone {
    victims: Vec<u32>,
    times: Telling,
    own: Telling,
}

impl Alone {
    /// Some more for the watcher at `place`, if it runs.
    fn add(&mut self, watchers: &[Option<Watcher>], place: usize, kills: usize) -> Result<()> {
        let Some(watcher) = &watchers[place] else { return Ok(()) };
        let is_asleep = |&(other, _): &(usize, &Option<Watcher>)| other != place && other != CLOCK;
        let asleep: Vec<_> =
            watchers.iter().enumerate().filter(is_asleep).filter_map(|(_, watcher)| watcher.as_ref()).collect();
        asleep.iter().try_for_each(|watcher| watcher.set_running(false))?;
        // What it was told while it was asleep itself.
        thread::sleep(AWAKE);
        let clock = watchers[CLOCK].as_ref().context("nothing gives the times of the kills")?;
        for _ in 0..kills {
            let cgroup = Cgroup::new(0)?;
            self.victims.push(cgroup.add()?.release()?);
            let known = &self.victims[self.victims.len() - 1..];
            // The loop itself is listened to once.
            let also = (place != CLOCK).then_some((watcher, &mut self.own));
            listen(&mut [(clock, &mut self.times)].into_iter().chain(also).collect::<Vec<_>>(), known);
        }
        asleep.iter().try_for_each(|watcher| watcher.set_running(true))
    }

    fn told(&self, place: usize) -> Told {
        let own = if place == CLOCK { &self.times } else { &self.own };
        Told::of(&self.victims, &self.times.kills, own)
    }
}

/// What each makes of victims that all of them saw.
fn burst(watchers: &[Option<Watcher>], victims: &[u32]) -> Vec<Option<Told>> {
    let mut tellings: Vec<Telling> = watchers.iter().map(|_| Telling::default()).collect();
    let both = watchers.iter().zip(&mut tellings).filter_map(|(watcher, telling)| Some((watcher.as_ref()?, telling)));
    listen(&mut both.collect::<Vec<_>>(), victims);
    let times = tellings[CLOCK].kills.clone();
    let of =
        |(watcher, telling): (&Option<Watcher>, &Telling)| watcher.as_ref().map(|_| Told::of(victims, &times, telling));
    watchers.iter().zip(&tellings).map(of).collect()
}

/// Memory, wake-ups and CPU time of all of them, none of which has anything to tell.
fn idle(watchers: &[Option<Watcher>], figures: &mut [Figures], seconds: u64) -> Result<()> {
    thread::sleep(SETTLED);
    let before: Vec<_> = watchers.iter().map(|watcher| watcher.as_ref().map(Watcher::switches_and_ns)).collect();
    let started = Instant::now();
    thread::sleep(Duration::from_secs(seconds));
    for ((watcher, before), figures) in watchers.iter().zip(before).zip(figures) {
        let (Some(watcher), Some(before)) = (watcher, before) else { continue };
        let ((switches, ns), (switches_before, ns_before)) = (watcher.switches_and_ns()?, before?);
        figures.idle = Some(Idle {
            seconds: started.elapsed().as_secs_f64(),
            switches: switches - switches_before,
            cpu_us: (ns - ns_before) / 1000,
        });
        figures.memory = Some(watcher.memory()?);
    }
    Ok(())
}

/// Takes the lines of these, until each has told of all victims or has nothing more to tell.
fn listen(watchers: &mut [(&Watcher, &mut Telling)], victims: &[u32]) {
    let started = Instant::now();
    let mut last = started;
    while started.elapsed() < PATIENCE && last.elapsed() < QUIET {
        for (watcher, telling) in &mut *watchers {
            if watcher.take(telling) {
                last = Instant::now();
            }
        }
        if watchers.iter().all(|(_, telling)| victims.iter().all(|pid| telling.came.contains_key(pid))) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

impl Figures {
    const fn of(name: &'static str) -> Self {
        Self { name, refused: None, start: None, memory: None, idle: None, alone: None, group: None, at_once: None }
    }
}

impl Told {
    fn of(victims: &[u32], times: &HashMap<u32, jiff::Timestamp>, telling: &Telling) -> Self {
        let count = victims.iter().filter(|pid| telling.came.contains_key(pid)).count();
        let after = |pid: &u32| Some(telling.came.get(pid)?.duration_since(*times.get(pid)?).as_secs_f64() * 1e3);
        Self { victims: victims.len(), count, after_ms: victims.iter().filter_map(after).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_is_timed_by_the_kills_that_it_told() {
        let time = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap();
        let times = HashMap::from([(1, time(1000)), (2, time(2000)), (3, time(3000))]);
        let telling =
            Telling { came: HashMap::from([(1, time(1010)), (3, time(3002)), (9, time(9000))]), ..Telling::default() };
        let told = Told::of(&[1, 2, 3], &times, &telling);
        assert_eq!((told.victims, told.count, told.after_ms), (3, 2, vec![10.0, 2.0]));
        let nothing = Told::of(&[1], &times, &Telling::default());
        assert_eq!((nothing.count, nothing.after_ms), (0, vec![]));
    }
}
