//! One step: what it needs, how it is run, and what its output counts.

use std::{
    env, fmt, fs,
    io::{self, PipeReader, Read as _, Write as _},
    ops::Add,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{paths, process};

/// A line of a step's output that begins so says what the step had to leave out, though it passed; the summary repeats it.
pub(crate) const NOT_CHECKED: &str = "NOT CHECKED: ";

/// A cargo command with a name.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) cargo: &'static [&'static str],
}

/// Whom a step runs beside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Nobody, or those of the other lanes. Its output is shown as it comes.
    First,
    /// Those of the first lane. Its output is in its log; the summary shows the end of it if it fails.
    Second,
    /// The same; and the machine is theirs before it is this one's.
    Spare,
}

/// What a machine may lack.
pub(crate) enum Need {
    Root,
    Program(&'static str),
    /// An environment variable that says where something is.
    Variable(&'static str),
}

/// How a step ended.
pub(crate) enum Outcome {
    /// With what it left out.
    Passed(Counts, Vec<String>),
    Failed(Counts, PathBuf),
    /// The machine lacks something.
    NotRun(String),
    /// The caller did not want it.
    LeftOut(&'static str),
}

/// Tests, where the output counts them; else the step itself is one.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Step {
    /// Whether it needs root, guests or a cluster.
    pub(crate) fn is_slow(&self) -> bool {
        self.needs.iter().any(|need| match need {
            Need::Root | Need::Variable(_) => true,
            Need::Program(name) => name.starts_with("qemu"),
        })
    }

    /// Runs the step with its output kept in `logs`.
    pub(crate) fn run(&self, logs: &Path, lane: Lane) -> Result<Outcome> {
        for need in self.needs {
            if let Some(reason) = need.unmet()? {
                println!("\n== {}: not run: {reason}", self.name);
                return Ok(Outcome::NotRun(reason));
            }
        }
        println!("\n== {}: cargo {}", self.name, self.cargo.join(" "));
        let log = logs.join(format!("{}.log", self.name));
        let success = self.run_logged(&log, lane)?;
        let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let text = String::from_utf8_lossy(&text);
        let counts = Counts::of(&text, success);
        Ok(if success { Outcome::Passed(counts, not_checked(&text)) } else { Outcome::Failed(counts, log) })
    }

    fn run_logged(&self, log: &Path, lane: Lane) -> Result<bool> {
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        let mut command = match lane {
            Lane::First | Lane::Second => process::cargo(),
            Lane::Spare => process::cargo_after_others(),
        };
        command.args(self.cargo).current_dir(paths::workspace());
        if self.is_slow() {
            // These run the agent as it is: a system call that its filter should allow, and does not, must not go unseen.
            command.env("SECCOMP", "kill");
        }
        command.stdout(writer.try_clone().context("cannot share a pipe")?).stderr(writer);
        let mut child = command.spawn().with_context(|| format!("cannot start `{}`", process::shown(&command)))?;
        // The command holds the pipe's other end, too: with it open the output would never end.
        drop(command);
        let copied = copy(reader, log, lane);
        let status = child.wait().context("cannot wait for cargo")?;
        copied.with_context(|| format!("cannot write {}", log.display()))?;
        Ok(status.success())
    }
}

/// The end of a failed step's log: a summary is read first, and may be all that is kept.
pub(crate) fn last_lines(log: &Path) -> Result<String> {
    const LINES: usize = 60;
    let text = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LINES)..].join("\n"))
}

fn not_checked(log: &str) -> Vec<String> {
    log.lines().filter_map(|line| line.strip_prefix(NOT_CHECKED)).map(str::to_owned).collect()
}

fn copy(mut reader: PipeReader, log: &Path, lane: Lane) -> io::Result<()> {
    let mut file = fs::File::create(log)?;
    let mut buffer = [0; 8192];
    loop {
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..length])?;
        if lane == Lane::First {
            io::stdout().write_all(&buffer[..length])?;
        }
    }
}

impl Need {
    /// Why the need is not met.
    fn unmet(&self) -> Result<Option<String>> {
        Ok(match self {
            Self::Root => (!process::is_root()?).then(|| "it needs root".to_owned()),
            Self::Program(name) => {
                (!process::found(name)).then(|| format!("{name} is not installed: run ./scripts/setup-dev.sh"))
            }
            Self::Variable(name) => {
                env::var_os(name).is_none_or(|value| value.is_empty()).then(|| format!("{name} is not set"))
            }
        })
    }
}

impl Outcome {
    /// What it adds to the total; `strict` makes a step that could not run a failure.
    pub(crate) fn counts(&self, strict: bool) -> Counts {
        match self {
            Self::Passed(counts, _) | Self::Failed(counts, _) => *counts,
            Self::NotRun(_) if strict => Counts { passed: 0, failed: 1 },
            Self::NotRun(_) | Self::LeftOut(_) => Counts::default(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(counts, left_out) => {
                write!(formatter, "passed ({})", counts.passed)?;
                left_out.iter().try_for_each(|what| write!(formatter, "; {NOT_CHECKED}{what}"))
            }
            Self::Failed(counts, log) => write!(formatter, "FAILED ({}), see {}", counts.failed, log.display()),
            Self::NotRun(reason) => write!(formatter, "NOT RUN: {reason}"),
            Self::LeftOut(why) => write!(formatter, "left out {why}"),
        }
    }
}

impl Counts {
    /// Adds up the lines that count tests: cargo's `test result: ok. 9 passed; 0 failed`, and `9 passed, 0 failed`.
    fn of(log: &str, success: bool) -> Self {
        let is_count =
            |line: &&str| line.contains("test result: ") || line.starts_with(|first: char| first.is_ascii_digit());
        let tests = log.lines().filter(is_count).map(Self::of_line);
        let mut total = tests.fold(Self::default(), Self::add);
        // A step may fail with all its tests passed, or before any ran.
        if success && total == Self::default() {
            total.passed = 1;
        } else if !success && total.failed == 0 {
            total.failed = 1;
        }
        total
    }

    /// A line without both words counts nothing.
    fn of_line(line: &str) -> Self {
        match (before(line, " passed"), before(line, " failed")) {
            (Some(passed), Some(failed)) => Self { passed, failed },
            _ => Self::default(),
        }
    }
}

/// The number in front of `word`.
fn before(text: &str, word: &str) -> Option<u64> {
    let (front, _) = text.split_once(word)?;
    front.rsplit(' ').next()?.parse().ok()
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
6.1-amd64: test result: 12 passed, 1 failed, 3 not possible here
19 passed, 2 failed, 1 not possible here
2 files have passed
a test that says 5 passed, 5 failed
";

    #[test]
    fn tests_are_counted_over_all_lines() {
        assert_eq!(Counts::of(LOG, false), Counts { passed: 40, failed: 3 });
    }

    #[test]
    fn a_step_without_tests_is_one() {
        assert_eq!(Counts::of("fine", true), Counts { passed: 1, failed: 0 });
        assert_eq!(Counts::of("error: could not compile", false), Counts { passed: 0, failed: 1 });
    }

    #[test]
    fn a_failed_step_counts_a_failure_though_its_tests_passed() {
        assert_eq!(Counts::of("test result: ok. 9 passed; 0 failed;", false), Counts { passed: 9, failed: 1 });
    }

    #[test]
    fn what_could_not_run_fails_only_where_it_must_run() {
        let outcome = Outcome::NotRun("it needs root".into());
        assert_eq!(outcome.counts(false), Counts::default());
        assert_eq!(outcome.counts(true), Counts { passed: 0, failed: 1 });
        assert_eq!(Outcome::LeftOut("by --quick").counts(true), Counts::default());
    }

    #[test]
    fn what_a_step_left_out_is_in_the_summary() {
        let left_out = not_checked("fine\nNOT CHECKED: advisories: no network\n  NOT CHECKED: not a line of its own\n");
        let outcome = Outcome::Passed(Counts { passed: 1, failed: 0 }, left_out);
        assert_eq!(outcome.to_string(), "passed (1); NOT CHECKED: advisories: no network");
    }

    #[test]
    fn a_variable_that_is_not_set_is_said() {
        let unmet = |name| Need::Variable(name).unmet().unwrap();
        assert_eq!(unmet("OOM_WATCHER_NO_SUCH_VARIABLE"), Some("OOM_WATCHER_NO_SUCH_VARIABLE is not set".to_owned()));
        assert_eq!(unmet("PATH"), None);
    }

    #[test]
    fn quick_leaves_out_root_guests_and_clusters_only() {
        let slow = |needs| Step { name: "a", needs, cargo: &[] }.is_slow();
        assert!(
            slow(&[Need::Root])
                && slow(&[Need::Variable("KUBECONFIG")])
                && slow(&[Need::Program("qemu-system-x86_64")])
        );
        assert!(!slow(&[]) && !slow(&[Need::Program("rustup")]));
    }
}
