//! What was made against what was reported, and what the watcher holds at the beginning and at the end.

use std::{collections::HashMap, fmt::Write as _, ops::RangeInclusive};

use serde_json::Value;

use crate::{
    cgroup, machine,
    watcher::{Memory, Watcher, number, sample_of, text},
};

/// What its memory may grow by.
const GROWTH_MAX: u64 = 2 << 20;
/// What may be resident at the end, with the pages of code that the kernel happens to have there: a quarter of the chart's limit.
const RESIDENT_MAX: u64 = 16 << 20;
/// What the number of open files may grow by: connections of scrapers that are just there.
const FILES_MAX: usize = 4;
/// Stages that can lose a kill; the Event of one is another account.
const STAGES: [&str; 5] = ["ring_buffer", "decode", "attribute", "sink_stdout", "sink_metrics"];

/// A figure with its name.
pub(super) type Row = (&'static str, String);

/// Something that must hold.
pub(super) struct Check {
    what: String,
    holds: bool,
}

impl Check {
    pub(super) fn new(what: &str, holds: bool) -> Self {
        Self { what: what.to_owned(), holds }
    }
}

/// One kill: the cgroup, and the process.
type Kill = (String, u64);

/// How many kills: process ids come again, in an hour also in the same cgroup.
#[derive(Default)]
struct Entry {
    made: u64,
    /// Of those made: the container had a name before.
    named: u64,
    reported: u64,
    /// Of those reported.
    full: u64,
}

/// What the watcher holds.
#[derive(Clone, Copy, Debug, Default)]
struct Holdings {
    memory: Memory,
    open_files: usize,
    series: usize,
}

impl Holdings {
    fn of(watcher: &Watcher) -> Self {
        let files = std::fs::read_dir(format!("/proc/{}/fd", watcher.pid())).expect("it runs");
        let page = watcher.get("/metrics");
        let series = page.lines().filter(|line| line.starts_with("oom_") && line.contains("container=")).count();
        Self { memory: watcher.memory(), open_files: files.count(), series }
    }
}

/// The account.
pub(super) struct Account {
    kills: HashMap<Kill, Entry>,
    /// Kills in pods that were reported.
    pub(super) in_pods: u64,
    /// Kills in pods that have no name on the node.
    pub(super) unnamed: u64,
    /// Lines of enrichments.
    pub(super) enrichments: u64,
    /// Kills on this machine that the soak has nothing to do with.
    of_others: u64,
    /// What the kernel had counted just before the watcher was started and just after: the same, unless somebody else was killed
    /// meanwhile.
    kernel_before: [u64; 2],
    /// The same at its end.
    kernel_after: [u64; 2],
    start: Holdings,
    end: Holdings,
    most_series: usize,
    lost: [u64; STAGES.len()],
    missed: u64,
    seccomp: bool,
}

impl Account {
    /// Opens it with the count of the kernel around the start of the watcher.
    pub(super) fn open(kernel_before: [u64; 2]) -> Self {
        Self {
            kills: HashMap::new(),
            in_pods: 0,
            unnamed: 0,
            enrichments: 0,
            of_others: 0,
            kernel_before,
            kernel_after: [0; 2],
            start: Holdings::default(),
            end: Holdings::default(),
            most_series: 0,
            lost: [0; STAGES.len()],
            missed: 0,
            seccomp: false,
        }
    }

    /// A kill was made.
    pub(super) fn made(&mut self, path: &str, pid: u32, named: bool) {
        let entry = self.kills.entry((path.to_owned(), u64::from(pid))).or_default();
        entry.made += 1;
        entry.named += u64::from(named);
    }

    /// Lines came.
    pub(super) fn take(&mut self, lines: Vec<Value>) {
        for line in lines {
            if line["type"] == "enrichment" {
                self.enrichments += 1;
                continue;
            }
            self.in_pods += u64::from(line["kubernetes"].is_object());
            let path = text(&line, "/cgroup/path");
            if !cgroup::is_own(path) {
                self.of_others += 1;
                continue;
            }
            let kill = (path.to_owned(), number(&line, "/victim/tgid"));
            let entry = self.kills.entry(kill).or_default();
            entry.reported += 1;
            entry.full += u64::from(line["attribution"]["result"] == "full");
        }
    }

    /// What the watcher holds once it has warmed up.
    pub(super) fn begin(&mut self, watcher: &Watcher) {
        self.start = Holdings::of(watcher);
    }

    /// What it holds now and then.
    pub(super) fn look(&mut self, watcher: &Watcher) {
        self.most_series = self.most_series.max(Holdings::of(watcher).series);
    }

    /// What it holds at the end, and what it says that it lost.
    pub(super) fn end(&mut self, watcher: &Watcher) {
        self.end = Holdings::of(watcher);
        self.most_series = self.most_series.max(self.end.series);
        let page = watcher.get("/metrics");
        self.lost =
            STAGES.map(|stage| sample_of(&page, &format!("oom_watcher_lost_events_total{{stage=\"{stage}\"}}")) as u64);
        self.missed = sample_of(&page, "oom_watcher_missed_kills_total") as u64;
        self.seccomp = (sample_of(&page, "oom_watcher_seccomp") - 1.0).abs() < 0.1;
        self.kernel_after[0] = machine::vmstat_kills();
    }

    /// The watcher has ended.
    pub(super) fn ended(&mut self) {
        self.kernel_after[1] = machine::vmstat_kills();
    }

    /// How many kills the kernel counted while the watcher watched.
    fn kernel(&self) -> RangeInclusive<u64> {
        self.kernel_after[0] - self.kernel_before[1]..=self.kernel_after[1] - self.kernel_before[0]
    }

    fn sum(&self, what: fn(&Entry) -> u64) -> u64 {
        self.kills.values().map(what).sum()
    }

    /// Figures and verdicts.
    pub(super) fn close(&self) -> (Vec<Row>, Vec<Check>) {
        let made = self.sum(|entry| entry.made);
        let unreported = self.sum(|entry| entry.made.saturating_sub(entry.reported));
        let duplicates = self.sum(|entry| if entry.made > 0 { entry.reported.saturating_sub(entry.made) } else { 0 });
        let unexplained = self.sum(|entry| if entry.made == 0 { entry.reported } else { 0 });
        let unnamed = self.sum(|entry| entry.named.saturating_sub(entry.full));
        let kernel = self.kernel();
        let Self { start, end, of_others, missed, .. } = self;
        let lost: u64 = self.lost.iter().sum();
        let by_stage: Vec<String> =
            STAGES.iter().zip(self.lost).map(|(stage, lost)| format!("{stage} {lost}")).collect();
        let counted = if kernel.start() == kernel.end() { kernel.start().to_string() } else { format!("{kernel:?}") };
        let rows = vec![
            ("kills made", made.to_string()),
            ("kills of others on this machine", of_others.to_string()),
            ("kills by the kernel's own count", counted),
            ("reported", (made - unreported).to_string()),
            ("reported twice", duplicates.to_string()),
            ("reported, and made by nobody", unexplained.to_string()),
            ("lost, by stage", by_stage.join(", ")),
            ("missed by the watcher's own audit", missed.to_string()),
            ("of containers with a name, reported without it", unnamed.to_string()),
            ("memory of its own, start → end", format!("{} → {} bytes", start.memory.own, end.memory.own)),
            ("resident memory, start → end", format!("{} → {} bytes", start.memory.resident, end.memory.resident)),
            ("open files, start → end", format!("{} → {}", start.open_files, end.open_files)),
            (
                "series of containers, start → most → end",
                format!("{} → {} → {}", start.series, self.most_series, end.series),
            ),
        ];
        let checks = vec![
            Check::new("kills were made", made > 0),
            Check::new(
                "the kernel counted what was made and what others suffered",
                kernel.contains(&(made + of_others)),
            ),
            Check::new("each was reported", unreported == 0),
            Check::new("each was reported once", duplicates == 0),
            Check::new("nothing was reported that nobody made", unexplained == 0),
            Check::new("no stage lost one, and none was missed", lost + missed == 0),
            Check::new("each in a container with a name has it", unnamed == 0),
            Check::new("its memory is what it was", end.memory.own <= start.memory.own + GROWTH_MAX),
            Check::new("little of it is resident", end.memory.resident <= RESIDENT_MAX),
            Check::new("open files are what they were", end.open_files <= start.open_files + FILES_MAX),
            // Pods come and go all the time: without an end of old series there would be many times as many.
            Check::new("series are bounded", start.series > 0 && self.most_series <= 2 * start.series),
            Check::new("a system call that is not allowed would have ended it", self.seccomp),
        ];
        (rows, checks)
    }
}

/// The account as Markdown, and whether it closes.
pub(super) fn page(title: &str, rows: &[Row], checks: &[Check]) -> (String, bool) {
    let mut page = format!("## {title}\n\n| | |\n|---|--:|\n");
    for (name, value) in rows {
        let _ = writeln!(page, "| {name} | {value} |");
    }
    page.push('\n');
    for Check { what, holds } in checks {
        let _ = writeln!(page, "- {}: {what}", if *holds { "ok" } else { "**FAILED**" });
    }
    let closes = checks.iter().all(|check| check.holds);
    let _ = writeln!(page, "\nThe account {}.", if closes { "closes" } else { "does not close" });
    (page, closes)
}
