//! What was made against what was reported, and what the watcher holds at the beginning and at the end.

use std::{collections::HashMap, process::ExitCode};

use serde_json::Value;

use crate::{
    cgroup, machine,
    watcher::{Watcher, number, text},
};

/// What resident memory may grow by.
const GROWTH_MAX: u64 = 2 << 20;
/// Stages that can lose a kill.
const STAGES: [&str; 5] = ["ring_buffer", "decode", "attribute", "sink_stdout", "sink_metrics"];

/// One kill: the cgroup, and the process.
type Kill = (String, u64);

/// What is known of a kill.
#[derive(Default)]
struct Entry {
    made: bool,
    /// Its container had a name before it was killed.
    named: bool,
    reported: u32,
    full: bool,
}

/// What the watcher holds.
#[derive(Clone, Copy, Debug, Default)]
struct Holdings {
    resident_bytes: u64,
    open_files: usize,
    series: usize,
}

impl Holdings {
    fn of(watcher: &Watcher) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{}/status", watcher.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel counts its memory");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        let files = std::fs::read_dir(format!("/proc/{}/fd", watcher.pid())).expect("it runs");
        let page = watcher.get("/metrics");
        let series = page.lines().filter(|line| line.starts_with("oom_") && line.contains("container=")).count();
        Self { resident_bytes: kilobytes * 1024, open_files: files.count(), series }
    }
}

/// The account.
#[derive(Default)]
pub(super) struct Account {
    kills: HashMap<Kill, Entry>,
    enrichments: u64,
    /// Kills on this machine that the soak has nothing to do with.
    of_others: u64,
    kernel_before: u64,
    kernel_after: u64,
    start: Holdings,
    end: Holdings,
    lost: Vec<(&'static str, u64)>,
    missed: u64,
}

impl Account {
    pub(super) fn open() -> Self {
        Self { kernel_before: machine::vmstat_kills(), ..Self::default() }
    }

    /// A kill was made.
    pub(super) fn made(&mut self, path: &str, pid: u32, named: bool) {
        let entry = self.kills.entry((path.to_owned(), u64::from(pid))).or_default();
        entry.made = true;
        entry.named = named;
    }

    /// Lines came.
    pub(super) fn take(&mut self, lines: Vec<Value>) {
        for line in lines {
            if line["type"] == "enrichment" {
                self.enrichments += 1;
                continue;
            }
            let path = text(&line, "/cgroup/path");
            if !cgroup::is_own(path) {
                self.of_others += 1;
                continue;
            }
            let kill = (path.to_owned(), number(&line, "/victim/tgid"));
            let entry = self.kills.entry(kill).or_default();
            entry.reported += 1;
            entry.full |= line["attribution"]["result"] == "full";
        }
    }

    /// What the watcher holds once it has warmed up.
    pub(super) fn begin(&mut self, watcher: &Watcher) {
        self.start = Holdings::of(watcher);
    }

    /// What it holds at the end, and what it says that it lost.
    pub(super) fn end(&mut self, watcher: &Watcher) {
        self.end = Holdings::of(watcher);
        self.kernel_after = machine::vmstat_kills();
        let lost = |stage| watcher.metric(&format!("oom_watcher_lost_events_total{{stage=\"{stage}\"}}")) as u64;
        self.lost = STAGES.map(|stage| (stage, lost(stage))).into();
        self.missed = watcher.metric("oom_watcher_missed_kills_total") as u64;
    }

    /// Prints the account; a success when it closes.
    pub(super) fn close(self) -> ExitCode {
        let count = |which: fn(&Entry) -> bool| self.kills.values().filter(|entry| which(entry)).count();
        let made = count(|entry| entry.made);
        let unreported = count(|entry| entry.made && entry.reported == 0);
        let duplicates = count(|entry| entry.reported > 1);
        let unexplained = count(|entry| !entry.made);
        let unnamed = count(|entry| entry.named && !entry.full);
        let lost: u64 = self.lost.iter().map(|(_, lost)| lost).sum();
        println!(
            "kills made {made}, of others {}, by the kernel's count {}",
            self.of_others,
            self.kernel_after - self.kernel_before
        );
        println!(
            "reported {}, duplicates {duplicates}, unreported {unreported}, unexplained {unexplained}",
            made - unreported
        );
        println!("lost {:?}, missed {}, enrichment lines {}", self.lost, self.missed, self.enrichments);
        println!("of containers with a name, reported without it: {unnamed}");
        println!("resident memory {} → {} bytes", self.start.resident_bytes, self.end.resident_bytes);
        println!(
            "open files {} → {}, series {} → {}",
            self.start.open_files, self.end.open_files, self.start.series, self.end.series
        );
        let grown = self.end.resident_bytes > self.start.resident_bytes + GROWTH_MAX
            || self.end.open_files > self.start.open_files + 8;
        let closes =
            made > 0 && unreported + duplicates + unexplained + unnamed == 0 && lost + self.missed == 0 && !grown;
        println!("the account {}", if closes { "closes" } else { "does not close" });
        if closes { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
