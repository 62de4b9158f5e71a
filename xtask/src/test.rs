//! `cargo xtask test`: every check in order, and at the end what ran, what did not and why.
//!
//! This file owns the tables and the summary; each command is also one that a developer can run alone. A step that fails
//! stops no other. One runs at a time, but for what leaves most of a machine to another: suites that wait, and single guests.

mod step;

use std::{env, fs, path::Path, thread, time::Instant};

use anyhow::{Context as _, Result, anyhow, bail};

pub(crate) use self::step::NOT_CHECKED;
use self::step::{Counts, Lane, Need, Outcome, Step};
use crate::{paths, process};

const CONTAINERS: &[Need] =
    &[Need::Root, Need::Program("containerd"), Need::Program("runc"), Need::Program("crun"), Need::Program("busybox")];
const IMAGE: &[Need] = &[
    Need::Root,
    Need::Program("buildah"),
    Need::Program("mmdebstrap"),
    Need::Program("crun"),
    Need::Program("runc"),
    Need::Program("prometheus"),
];
/// The image is compiled by the toolchain that `guests-arm64` compiles with, too.
const IMAGE_ARM64: &[Need] = &[
    Need::Root,
    Need::Program("buildah"),
    Need::Program("mmdebstrap"),
    Need::Program("rustup"),
    Need::Program("qemu-system-aarch64"),
];
/// It takes the image of the step before.
const IMAGE_GUEST: &[Need] = &[Need::Root, Need::Program("mmdebstrap"), Need::Program("qemu-system-x86_64")];
const GUEST_AMD64: &[Need] = &[Need::Program("qemu-system-x86_64"), Need::Program("apt-get")];
const GUEST_ARM64: &[Need] =
    &[Need::Program("qemu-system-aarch64"), Need::Program("apt-get"), Need::Program("aarch64-linux-gnu-gcc")];
const CLUSTER: &[Need] = &[Need::Variable("KUBECONFIG"), Need::Program("kubectl")];
/// Run only when it is asked for by name: nobody's cluster gets pods because a variable happened to be set.
const E2E: &str = "e2e";

/// The container suite on cgroup v2, in a guest for each runtime. Without filters it has everything, and takes eight minutes on two
/// CPUs; these are the scenarios in which the version of cgroups matters. What is left out is where names come from, and thirty
/// containers at once.
const GUEST_CONTAINERS: &[&str] = &[
    "xtask",
    "vm",
    "--suite",
    "containers",
    "--kernels",
    "6.12",
    "--jobs",
    "2",
    "--filter",
    "one-container,guaranteed,a-child-only,a-whole-container,in-the-sandbox,restart-loop,pod-removed,clock",
    "--filter",
    "limit,static-pod,driver,outside-of-pods",
];

/// The restart suite where hooks are pinned that this machine may not have, the agent has CAP_SYS_RESOURCE and the clock may be
/// set. All of it takes six minutes (`cargo xtask vm --suite restart`).
const GUEST_RESTART: &[&str] = &[
    "xtask",
    "vm",
    "--suite",
    "restart",
    "--kernels",
    "6.1",
    "--filter",
    "three-kills",
    "--filter",
    "update",
    "--filter",
    "killed-while",
    "--filter",
    "read-only",
    "--filter",
    "pinned",
    "--filter",
    "power",
    "--filter",
    "calls",
    "--filter",
    "clock",
    "--filter",
    "removed",
    "--filter",
    "its-",
    "--filter",
    "memory",
    "--filter",
    "beside",
];

/// The kernel of `image-guest`, which runs all proofs of the image: its column of docs/security.md is compared.
pub(crate) const COMPARED_IN_CI: &str = "6.1";

/// The image for arm64, which `image-arm64` takes.
const BUILD_IMAGE_ARM64: &[&str] = &["xtask", "image", "--arch", "arm64", "--build-only"];

/// Of the image for arm64 what the architecture could change: the program is static, and kills are reported, by both runtimes and
/// with the API, under the filters of both kinds and with its own set to kill.
const IMAGE_IN_ARM64: &[&str] =
    &["xtask", "image", "--no-build", "--arch", "arm64", "--guest", "6.12", "--filter", "reported,static"];

/// `--all-targets` leaves out the suites that plain `cargo test` does not run, even where they are named beside it.
const CLIPPY_SUITES: &[&str] = &[
    "clippy",
    "--package",
    "oom-watcher",
    "--test",
    "kernel",
    "--test",
    "restart",
    "--test",
    "containers",
    "--test",
    "e2e",
    "--all-features",
    "--",
    "-D",
    "warnings",
];

/// Of the kernels what this machine and the other guests have not: the oldest and the newest. 6.1 and 6.12 are those of the suites
/// below; `cargo xtask vm --all` has them all.
const GUESTS_AMD64: &[&str] = &["xtask", "vm", "--kernels", "5.10-old,newest", "--jobs", "2"];

/// Where functions are hooked by kprobes, for the kernel has no trampolines: attached, used, and detached under the filter of system
/// calls.
const GUEST_KPROBES: &[&str] = &[
    "xtask",
    "vm",
    "--kernels",
    "5.10-old",
    "--arch",
    "arm64",
    "--filter",
    "leaf-limit,ancestor-limit,the-limit-is-lowered,two-watchers,no-privilege-is-kept,drill",
];

/// The cheap ones first: what a reader can repair in a minute is said within one.
const FIRST: &[Step] = &[
    step("fmt", &[], &["fmt", "--all", "--check"]),
    step("tidy", &[], &["xtask", "tidy"]),
    step("clippy", &[], &["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]),
    step("clippy-suites", &[], CLIPPY_SUITES),
    step("test", &[], &["test", "--workspace"]),
    step("docs", &[], &["xtask", "docs", "--check"]),
    step("build-ebpf", &[Need::Program("rustup")], &["xtask", "build-ebpf", "--check"]),
];

/// Programs in other forms, whose last step of compiling is one thread's.
const COMPILED: &[Step] = &[
    step("release", &[], &["xtask", "release", "--dry-run"]),
    step("deny", &[], &["xtask", "deny"]),
    step("fuzz", &[Need::Program("rustup")], &["xtask", "fuzz", "--dev", "--seconds", "5"]),
    step("budgets", &[Need::Root, Need::Program("valgrind")], &["xtask", "bench", "--budgets"]),
];

/// What Python tests, which is one thread's too, and a build that is done when those are.
const MANIFESTS: &[Step] = &[
    step("chart", &[Need::Program("python3")], &["xtask", "chart"]),
    step("workflows", &[Need::Program("python3")], &["xtask", "workflows"]),
    step("build-image-arm64", IMAGE_ARM64, BUILD_IMAGE_ARM64),
];

/// Kills on this machine, and little to compute. Each reads the machine's counts of kills, so no two run at once.
const HERE: &[Step] = &[
    step("kernel", &[Need::Root], &["test", "--package", "oom-watcher", "--test", "kernel"]),
    step("restart", &[Need::Root], &["test", "--package", "oom-watcher", "--test", "restart"]),
    step("containers", CONTAINERS, &["test", "--package", "oom-watcher", "--test", "containers"]),
];

/// Builds for the steps after, and every kernel that they start, in the time that those above leave.
const BUILDS: &[Step] = &[
    step("build-arm64", GUEST_ARM64, &["xtask", "vm", "--build-only", "--kernels", "5.10-old,6.12", "--arch", "arm64"]),
    step("build-amd64", GUEST_AMD64, &["xtask", "vm", "--build-only", "--kernels", "5.10-old,6.1,6.12,newest"]),
];

/// Containers of the image, here and in guests.
const IMAGES: &[Step] = &[
    step("image", IMAGE, &["xtask", "image"]),
    step("image-guest", IMAGE_GUEST, &["xtask", "image", "--no-build", "--guest", COMPARED_IN_CI]),
    step("image-arm64", IMAGE_ARM64, IMAGE_IN_ARM64),
];

/// One guest at a time.
const GUESTS: &[Step] = &[
    step("guests-arm64", GUEST_ARM64, &["xtask", "vm", "--kernels", "6.12", "--arch", "arm64"]),
    step("guest-kprobes", GUEST_ARM64, GUEST_KPROBES),
    step("guest-restart", GUEST_AMD64, GUEST_RESTART),
];

/// Two guests at a time.
const LAST: &[Step] =
    &[step("guests-amd64", GUEST_AMD64, GUESTS_AMD64), step("guest-containers", GUEST_AMD64, GUEST_CONTAINERS)];

/// Run by its name only.
const ON_A_CLUSTER: &[Step] =
    &[step(E2E, CLUSTER, &["test", "--package", "oom-watcher", "--test", "e2e", "--", "--require"])];

const NOT_ASKED: &str = "since it needs a cluster: KUBECONFIG=… cargo xtask e2e";

const fn step(name: &'static str, needs: &'static [Need], cargo: &'static [&'static str]) -> Step {
    Step { name, needs, cargo }
}

/// Which steps are run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only what needs neither root nor guests
    #[arg(long)]
    quick: bool,
    /// Only these steps
    #[arg(value_name = "STEP")]
    steps: Vec<String>,
}

/// What a step came to, and the seconds that it took.
type Line = (&'static str, Outcome, u64);

/// `cargo xtask test`. With `CI=true`, a step that cannot run is a failure.
pub(crate) fn run(options: &Options) -> Result<()> {
    let logs = paths::make(&paths::target().join("test-logs"))?;
    let report = if options.steps.is_empty() {
        run_all(options.quick, &logs)?
    } else {
        in_order(find(&options.steps)?, |step| run_unless(options.quick, step, &logs, Lane::First))?
    };
    let total = report.iter().fold(Counts::default(), |total, (_, outcome, _)| total + outcome.counts(strict()));
    println!("\n{:<18} {:>6}  outcome", "step", "time");
    for (name, outcome, seconds) in &report {
        println!("{name:<18} {seconds:>4} s  {outcome}");
    }
    for (name, outcome, _) in &report {
        if let Outcome::Failed(_, log) = outcome {
            println!("\n== {name} failed; its last lines:\n{}", step::last_lines(log)?);
        }
    }
    let summary = format!("{} passed, {} failed", total.passed, total.failed);
    let file = logs.join("summary");
    fs::write(&file, format!("{summary}\n")).with_context(|| format!("cannot write {}", file.display()))?;
    println!("\nlogs are in {}\n{summary}", logs.display());
    if total.failed > 0 {
        bail!("not everything passed");
    }
    Ok(())
}

/// Every step but the one that takes a cluster.
fn run_all(quick: bool, logs: &Path) -> Result<Vec<Line>> {
    let in_lane = |steps: &'static [Step], lane| in_order(steps, |step| run_unless(quick, step, logs, lane));
    let side_by_side = |first, others, lane| -> Result<Vec<Line>> {
        let (first, others) = thread::scope(|scope| {
            let others = scope.spawn(|| in_lane(others, lane));
            (in_lane(first, Lane::First), others.join().unwrap_or_else(|_| Err(anyhow!("the other lane panicked"))))
        });
        let mut report = first?;
        report.extend(others?);
        Ok(report)
    };
    let mut report = in_lane(FIRST, Lane::First)?;
    report.extend(side_by_side(COMPILED, MANIFESTS, Lane::Second)?);
    report.extend(side_by_side(HERE, BUILDS, Lane::Spare)?);
    report.extend(side_by_side(IMAGES, GUESTS, Lane::Second)?);
    report.extend(in_lane(LAST, Lane::First)?);
    report.push((E2E, Outcome::LeftOut(NOT_ASKED), 0));
    Ok(report)
}

fn in_order(
    steps: impl IntoIterator<Item = &'static Step>,
    run: impl Fn(&'static Step) -> Result<Outcome>,
) -> Result<Vec<Line>> {
    let timed = |step: &'static Step| {
        let started = Instant::now();
        Ok((step.name, run(step)?, started.elapsed().as_secs()))
    };
    steps.into_iter().map(timed).collect()
}

fn run_unless(quick: bool, step: &Step, logs: &Path, lane: Lane) -> Result<Outcome> {
    if quick && step.is_slow() { Ok(Outcome::LeftOut("by --quick")) } else { step.run(logs, lane) }
}

/// How a cluster is asked.
#[derive(clap::Args)]
pub(crate) struct E2eOptions {
    /// Image of the pod, which must have sh, sleep and tail
    #[arg(long)]
    image: Option<String>,
    /// Node of the pod; without it the scheduler chooses
    #[arg(long)]
    node: Option<String>,
}

/// `cargo xtask e2e`.
pub(crate) fn run_e2e(options: &E2eOptions) -> Result<()> {
    let step = find(&[E2E.to_owned()])?[0];
    let more = [("--image", &options.image), ("--node", &options.node)];
    let more = more.into_iter().filter_map(|(flag, value)| Some([flag, value.as_deref()?])).flatten();
    process::run(process::cargo().args(step.cargo).args(more))
}

fn steps() -> impl Iterator<Item = &'static Step> {
    [FIRST, COMPILED, MANIFESTS, HERE, BUILDS, IMAGES, GUESTS, LAST, ON_A_CLUSTER].into_iter().flatten()
}

fn find(names: &[String]) -> Result<Vec<&'static Step>> {
    let find = |name: &String| {
        steps().find(|step| step.name == name).with_context(|| {
            let names: Vec<_> = steps().map(|step| step.name).collect();
            format!("no step {name:?}; there are {}", names.join(", "))
        })
    };
    names.iter().map(find).collect()
}

fn strict() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}
