//! Swap: a cgroup fills its memory and its share of swap, and each figure is what the kernel says.
//!
//! The guest has an NVMe disk, whose driver Debian builds into every kernel of its clouds; nothing else uses it.

use std::{
    ffi::CString,
    fs,
    io::{Error, Write as _},
};

use serde_json::Value;

use crate::{
    account::{Account, Expected},
    cgroup::{self, Cgroup},
    hog::Hog,
    machine,
    scenario::Scenario,
    session::Session,
    victims::assert_limited,
    watcher::{number, text},
};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 20 * MIB;
const SWAP: u64 = 16 * MIB;
/// The guest's disk, and how much of it is used.
const DISK: &str = "/dev/nvme0n1";
const DISK_SIZE: u64 = 48 * MIB;
/// Every kernel of the guests has pages of this size.
const PAGE: u64 = 4096;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario { name: "swap-on", possible, run: swap_on }];

fn possible() -> Result<(), String> {
    machine::guest()?;
    if !fs::exists(DISK).unwrap_or(false) {
        return Err(format!("this kernel has no driver for a disk: {DISK} is not there"));
    }
    let probe = Cgroup::new("swap-probe");
    let file = if cgroup::hierarchy().v2 { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    probe.read(file).map(|_| ()).ok_or_else(|| format!("this kernel counts no swap for a cgroup: it has no {file}"))
}

/// Swap space on the disk; off again when dropped.
struct Swap(CString);

impl Swap {
    #[track_caller]
    fn on() -> Self {
        let mut disk = fs::OpenOptions::new().write(true).open(DISK).expect("the disk can be written");
        disk.write_all(&header()).and_then(|()| disk.sync_all()).expect("the disk takes the header");
        let path = CString::new(DISK).expect("no NUL");
        // SAFETY: the path is a C string that outlives the call.
        let result = unsafe { libc::swapon(path.as_ptr(), 0) };
        assert_eq!(result, 0, "swapon: {}", Error::last_os_error());
        Self(path)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: the path is a C string that outlives the call.
        let result = unsafe { libc::swapoff(self.0.as_ptr()) };
        if result != 0 {
            println!("swapoff: {}", Error::last_os_error());
        }
    }
}

/// The first page of swap space, as mkswap(8) makes it: after 1024 bytes the version, the last page and no bad pages; the
/// magic word at the end.
fn header() -> Vec<u8> {
    let mut page = vec![0; PAGE as usize];
    let last_page = (DISK_SIZE / PAGE - 1) as u32;
    page[1024..1028].copy_from_slice(&1_u32.to_ne_bytes());
    page[1028..1032].copy_from_slice(&last_page.to_ne_bytes());
    page[PAGE as usize - 10..].copy_from_slice(b"SWAPSPACE2");
    page
}

fn swap_on() {
    let watcher = Session::open();
    let _swap = Swap::on();
    let cgroup = Cgroup::new("swap");
    cgroup.limit_with_swap(LIMIT, SWAP);
    let account = Account::open(&[&cgroup]);
    let mut hog = Hog::start(&cgroup, &["anon", "67108864"]);
    hog.go();
    hog.must_be_killed();
    let event = watcher.exactly(1).remove(0);
    machine::event("swap-on", &event);
    // With swap the kernel may count another attempt before the victim is gone: seen on 6.1, not always.
    account.assert(&Expected { ran_out: &[&cgroup], asked_again: true, kills: &[(&cgroup, 1)], ..Expected::default() });
    let dump = Dump::of(hog.pid());
    let swapped = number(&event, "/victim/swap_bytes");
    assert!(swapped.abs_diff(dump.victim_swap) <= dump.victim_slack, "swapped out {swapped}, the kernel says {dump:?}");
    assert!(swapped + MIB >= SWAP, "the victim filled its share of swap: {event:#}");
    if cgroup::hierarchy().v2 {
        assert_v2(&event, &cgroup, &dump);
    } else {
        assert_v1(&event, &cgroup, &dump);
    }
}

/// Swap has a counter of its own, and it is that of memory.swap.current.
#[track_caller]
fn assert_v2(event: &Value, cgroup: &Cgroup, dump: &Dump) {
    assert_limited(event, cgroup, cgroup, LIMIT);
    let usage = number(event, "/incident/swap_usage_bytes");
    assert_eq!(usage, dump.swap_usage, "the kernel says {dump:?}");
    assert_eq!(number(event, "/incident/swap_limit_bytes"), SWAP);
    assert_eq!(dump.swap_limit, SWAP);
    assert!(usage <= SWAP && usage + MIB >= SWAP, "swap {usage} of {SWAP}");
    // From Linux 6.5 on.
    if let Some(peak) = cgroup.read("memory.swap.peak") {
        assert_peak(&peak, usage);
    }
    assert_share(event, usage);
}

/// Memory and swap have one counter together, and it is what runs out: what of it is swap, only the statistics tell.
#[track_caller]
fn assert_v1(event: &Value, cgroup: &Cgroup, dump: &Dump) {
    assert_eq!(text(event, "/incident/memcg_path"), cgroup.path());
    assert_eq!(number(event, "/incident/limit_bytes"), LIMIT);
    let usage = number(event, "/incident/usage_bytes");
    assert!(usage <= LIMIT && usage + 4 * MIB >= LIMIT, "usage {usage} of {LIMIT}");
    assert!(event["incident"].get("swap_usage_bytes").is_none(), "no counter counts swap alone: {event:#}");
    assert_eq!(dump.swap_limit, LIMIT + SWAP);
    let most = cgroup.read("memory.memsw.max_usage_in_bytes").expect("the counter is there");
    assert_peak(&most, dump.swap_usage);
    assert_share(event, dump.swap_usage.saturating_sub(usage));
}

/// The most that a counter has had is what it had at the kill, but for what CPUs gave back before.
#[track_caller]
fn assert_peak(most: &str, usage: u64) {
    let most: u64 = most.trim().parse().expect("a number");
    assert!(most >= usage && most - usage <= 64 * PAGE * machine::cpus(), "{usage} at the kill, {most} at most");
}

/// The share of swap in what filled the memory, which may lag by a batch of each CPU.
#[track_caller]
fn assert_share(event: &Value, swap: u64) {
    let Some(memory) = event.get("memory") else { return };
    let share = memory["swap_bytes"].as_u64().expect("swap");
    assert!(share.abs_diff(swap) <= 64 * PAGE * machine::cpus(), "swap {share} of {swap}");
}

/// What the kernel printed of swap at a kill.
#[derive(Debug)]
struct Dump {
    swap_usage: u64,
    swap_limit: u64,
    victim_swap: u64,
    /// What the victim's figure may be wrong by: from 6.2 on the kernel's table leaves out what CPUs hold.
    victim_slack: u64,
}

impl Dump {
    #[track_caller]
    fn of(pid: u32) -> Self {
        let log = machine::kernel_log();
        let end = log.find(&format!("Killed process {pid} (")).expect("the kernel names the victim");
        let lines: Vec<&str> = log[..end].lines().collect();
        // "swap: usage 16384kB, limit 16384kB, failcnt 7", on v1 "memory+swap: usage …".
        let swap = last(&lines, "swap: usage ");
        let kib = |word: &str| -> u64 {
            let value = swap.split(word).nth(1).and_then(|rest| rest.split("kB").next());
            value.and_then(|value| value.trim().parse::<u64>().ok()).expect("a figure in kB") * 1024
        };
        // "[  pid  ]   uid  tgid total_vm      rss … pgtables_bytes swapents oom_score_adj name", in pages.
        let row = last(&lines, &format!("[{pid:>7}]"));
        let entries = row.split_whitespace().rev().nth(2).and_then(|value| value.parse::<u64>().ok());
        let percpu = last(&lines, "pgtables_bytes swapents").contains("rss_anon");
        Self {
            swap_usage: kib("usage "),
            swap_limit: kib("limit "),
            victim_swap: entries.expect("swapped pages") * PAGE,
            victim_slack: if percpu { 64 * PAGE * machine::cpus() } else { 0 },
        }
    }
}

/// The last line that has this.
#[track_caller]
fn last<'a>(lines: &[&'a str], text: &str) -> &'a str {
    lines.iter().rev().find(|line| line.contains(text)).unwrap_or_else(|| panic!("the kernel log has no {text:?}"))
}
