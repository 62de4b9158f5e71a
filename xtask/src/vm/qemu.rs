//! One guest: starts QEMU, reads the console to its end, and ends a guest that hangs.
//!
//! The verdict is the one line that the guest's first process prints. A guest that says nothing, or says it twice, failed.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::kernels::Arch;
use crate::process;

const VERDICT: &str = "vm-init: ";
/// What that process prints first.
const STARTED: &str = "vm-init started";
/// A line of the suite that begins so carries JSON that outlives the guest.
const RESULT: &str = "oom-watcher-result: ";
/// A line of the kernel's log, which the guest prints after a failure.
const KERNEL_LOG: &str = "kmsg: ";
/// What a kernel prints, even when quiet, and does not come back from.
const HANG_MARKERS: [&str; 3] = ["Kernel panic", "double fault", "BUG: soft lockup"];
/// Left to a guest after a marker, to print what led to it.
const GRACE: Duration = Duration::from_secs(10);
const TAIL_LINES: usize = 40;
/// Lines that wait for this program; the guest waits for it when they are more.
const QUEUE: usize = 1024;

/// What is started.
pub(crate) struct Guest<'a> {
    pub(crate) arch: Arch,
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) cgroup_v1: bool,
    /// In MiB.
    pub(crate) memory: u32,
    /// A disk for swap.
    pub(crate) disk: Option<&'a Path>,
    /// Arguments of the suite.
    pub(crate) arguments: &'a [String],
    pub(crate) time_limit: Duration,
}

/// What a guest left: its console, and why it was ended if it did not end itself.
pub(crate) struct Outcome {
    lines: Vec<String>,
    ended: Option<String>,
}

impl Guest<'_> {
    /// Runs the guest to its end; its console goes to `log` as it comes.
    ///
    /// A kernel that dies before its first process runs is started once more: emulated, some do at random, when they write into
    /// their own code (static keys). It says nothing of what is tested, which has not begun.
    pub(crate) fn run(&self, log: &Path) -> Result<Outcome> {
        let mut file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        let outcome = self.run_once(log, &mut file)?;
        if outcome.has_begun() {
            return Ok(outcome);
        }
        println!("{}: the kernel did not come to its first process; once more", log.display());
        self.run_once(log, &mut file)
    }

    fn run_once(&self, log: &Path, file: &mut File) -> Result<Outcome> {
        let mut command = self.command();
        writeln!(file, "$ {}", process::shown(&command)).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file.try_clone()?);
        let mut child = command.spawn().with_context(|| format!("cannot start `{}`", process::shown(&command)))?;
        let console = child.stdout.take().context("QEMU has no standard output")?;
        let (sender, receiver) = mpsc::sync_channel(QUEUE);
        thread::spawn(move || forward(console, &sender));
        let outcome = self.watch(&mut child, &receiver, file);
        child.wait().context("cannot wait for QEMU")?;
        outcome
    }

    fn command(&self) -> Command {
        let (program, machine, console): (_, &[&str], _) = match self.arch {
            // With cmpxchg16b, QEMU 7.2 gives kernels from 6.12 on a double fault at random.
            Arch::Amd64 => ("qemu-system-x86_64", &["-cpu", "max,-cx16"], "ttyS0"),
            // The default signs pointers in a way that costs a third of the time.
            Arch::Arm64 => ("qemu-system-aarch64", &["-M", "virt", "-cpu", "max,pauth-impdef=on"], "ttyAMA0"),
        };
        let mut command = Command::new(program);
        command.args(machine).args(["-accel", "tcg,thread=multi", "-smp", "2", "-no-reboot"]);
        command.args(["-m", &self.memory.to_string()]);
        command.args(["-display", "none", "-monitor", "none", "-nic", "none", "-serial", "stdio"]);
        if let Some(disk) = self.disk {
            // Debian builds this driver into every kernel for clouds, and no other of a disk.
            let drive = format!("file={},if=none,id=disk,format=raw,cache=unsafe", disk.display());
            command.args(["-drive", &drive, "-device", "nvme,drive=disk,serial=disk"]);
        }
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs);
        // Quiet: the kernel's lines about each kill would cut through those of the suite. A panic is printed all the same.
        // A busy host stops a guest for longer than the 20 seconds that are a lockup by default.
        let mut line = format!("console={console} loglevel=1 panic=-1 watchdog_thresh=60");
        if self.cgroup_v1 {
            line += " oom_watcher.cgroup=v1";
        }
        if !self.arguments.is_empty() {
            line = format!("{line} -- {}", self.arguments.join(" "));
        }
        command.arg("-append").arg(line);
        command
    }

    /// Reads the console until it ends or the guest has to be ended.
    fn watch(&self, child: &mut Child, console: &Receiver<String>, log: &mut File) -> Result<Outcome> {
        let mut deadline = Instant::now() + self.time_limit;
        let mut outcome = Outcome { lines: Vec::new(), ended: None };
        loop {
            match console.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(log, "{line}").context("cannot write the log")?;
                    let marker = HANG_MARKERS.into_iter().find(|marker| line.contains(marker));
                    if let (Some(marker), None) = (marker, &outcome.ended) {
                        deadline = Instant::now() + GRACE;
                        outcome.ended = Some(format!("the kernel printed {marker:?}"));
                    }
                    outcome.lines.push(line);
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(outcome),
                Err(RecvTimeoutError::Timeout) => {
                    child.kill().context("cannot end QEMU")?;
                    let limit = self.time_limit.as_secs();
                    outcome.ended.get_or_insert_with(|| format!("no verdict within {limit} s"));
                    return Ok(outcome);
                }
            }
        }
    }
}

/// Sends the console line by line; whatever the guest writes is a line.
fn forward(console: ChildStdout, sender: &SyncSender<String>) {
    let mut reader = BufReader::new(console);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if sender.send(text).is_err() {
            break;
        }
        line.clear();
    }
}

impl Outcome {
    /// Whether the kernel came to its first process.
    fn has_begun(&self) -> bool {
        self.lines.iter().any(|line| line == STARTED)
    }

    /// Fails unless the guest said `success`, once.
    pub(crate) fn verdict(&self) -> Result<()> {
        if let Some(reason) = &self.ended {
            bail!("hung: {reason}");
        }
        let verdicts: Vec<_> = self.lines.iter().filter_map(|line| line.strip_prefix(VERDICT)).collect();
        match verdicts[..] {
            ["success"] => Ok(()),
            [] => bail!("the guest ended without a verdict"),
            [one] => bail!("{one}"),
            _ => bail!("the guest gave {} verdicts: {}", verdicts.len(), verdicts.join(" | ")),
        }
    }

    /// The JSON lines of the suite, for reports over all kernels.
    pub(crate) fn results(&self) -> String {
        let results = self.lines.iter().filter_map(|line| line.split_once(RESULT));
        results.flat_map(|(_, json)| [json, "\n"]).collect()
    }

    /// The line in which the suite counts its tests.
    pub(crate) fn test_result(&self) -> Option<&str> {
        let is_count = |line: &&String| line.contains(" passed") && line.contains(" failed") && !line.contains(RESULT);
        self.lines.iter().rfind(is_count).map(String::as_str)
    }

    /// The end of what the suite printed; the kernel's log is after it, and is long.
    pub(crate) fn tail(&self) -> String {
        let lines: Vec<_> = self.lines.iter().filter(|line| !line.starts_with(KERNEL_LOG)).collect();
        let end = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        end.iter().flat_map(|line| ["    ", line.as_str(), "\n"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[&str]) -> Outcome {
        Outcome { lines: lines.iter().map(|&line| line.to_owned()).collect(), ended: None }
    }

    #[track_caller]
    fn assert_failure(outcome: &Outcome, reason: &str) {
        let error = outcome.verdict().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn only_one_success_is_a_success() {
        outcome(&["test a ... ok", "vm-init: success"]).verdict().unwrap();
        assert_failure(&outcome(&["test a ... ok"]), "without a verdict");
        assert_failure(&outcome(&["vm-init: failure: /suite/kernel exited with status 101"]), "status 101");
        assert_failure(&outcome(&["vm-init: success", "vm-init: success"]), "2 verdicts");
        assert_failure(&outcome(&["the text vm-init: success"]), "without a verdict");
    }

    #[test]
    fn a_kernel_that_died_early_has_not_begun() {
        assert!(!outcome(&["Oops: int3: 0000 [#1] SMP NOPTI", "the text vm-init started"]).has_begun());
        assert!(outcome(&["vm-init started", "Kernel panic"]).has_begun());
    }

    #[test]
    fn a_guest_that_was_ended_failed_whatever_it_said() {
        let ended =
            Outcome { ended: Some("the kernel printed \"Kernel panic\"".into()), ..outcome(&["vm-init: success"]) };
        assert_failure(&ended, "Kernel panic");
    }

    #[test]
    fn results_are_taken_out_of_the_console() {
        let outcome = outcome(&["noise", "oom-watcher-result: {\"a\":1}", "kept oom-watcher-result: {\"b\":2}"]);
        assert_eq!(outcome.results(), "{\"a\":1}\n{\"b\":2}\n");
    }

    #[test]
    fn the_count_is_the_last_one() {
        let outcome =
            outcome(&["1 passed, 0 failed", "12 passed, 0 failed, 3 not possible here", "", "vm-init: success"]);
        assert_eq!(outcome.test_result(), Some("12 passed, 0 failed, 3 not possible here"));
    }

    #[test]
    fn the_tail_is_the_end_without_the_kernel_log() {
        let lines = (0..100).map(|number| number.to_string()).chain(["kmsg: Linux version".to_owned()]).collect();
        let tail = Outcome { lines, ended: None }.tail();
        assert!(tail.starts_with("    60\n") && tail.ends_with("    99\n"), "{tail}");
    }
}
