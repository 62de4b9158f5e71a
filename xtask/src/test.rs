//! `cargo xtask test`: every check in order, and at the end what ran, what did not and why.
//!
//! This file owns the table and the summary; each command is also one that a developer can run alone. A step that fails
//! stops no other.

mod step;

use std::{env, fs, process::Command, time::Instant};

use anyhow::{Context as _, Result, bail};

pub(crate) use self::step::NOT_CHECKED;
use self::step::{Counts, Need, Outcome, Step};
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

/// Of the image for arm64 what the architecture could change: the program is static, and kills are reported, by both runtimes and
/// with the API, under the filters of both kinds and with its own set to kill.
const IMAGE_IN_ARM64: &[&str] =
    &["xtask", "image", "--arch", "arm64", "--guest", "6.12", "--filter", "reported,static"];

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

/// The cheap ones first: what a reader can repair in a minute is said within one.
const STEPS: &[Step] = &[
    step("fmt", &[], &["fmt", "--all", "--check"]),
    step("tidy", &[], &["xtask", "tidy"]),
    step("clippy", &[], &["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]),
    step("clippy-suites", &[], CLIPPY_SUITES),
    step("test", &[], &["test", "--workspace"]),
    step("docs", &[], &["xtask", "docs", "--check"]),
    step("build-ebpf", &[Need::Program("rustup")], &["xtask", "build-ebpf", "--check"]),
    step("chart", &[Need::Program("python3")], &["xtask", "chart"]),
    step("workflows", &[Need::Program("python3")], &["xtask", "workflows"]),
    step("release", &[], &["xtask", "release", "--dry-run"]),
    step("deny", &[], &["xtask", "deny"]),
    step("fuzz", &[Need::Program("rustup")], &["xtask", "fuzz", "--dev", "--seconds", "10"]),
    step("budgets", &[Need::Root, Need::Program("valgrind")], &["xtask", "bench", "--budgets"]),
    step("kernel", &[Need::Root], &["test", "--package", "oom-watcher", "--test", "kernel"]),
    step("restart", &[Need::Root], &["test", "--package", "oom-watcher", "--test", "restart"]),
    step("containers", CONTAINERS, &["test", "--package", "oom-watcher", "--test", "containers"]),
    step("image", IMAGE, &["xtask", "image"]),
    step("image-guest", IMAGE_GUEST, &["xtask", "image", "--no-build", "--guest", "6.1"]),
    step("image-arm64", IMAGE_ARM64, IMAGE_IN_ARM64),
    step("guests-amd64", GUEST_AMD64, &["xtask", "vm", "--kernels", "5.10-old,6.1,6.12,newest", "--jobs", "2"]),
    step("guest-restart", GUEST_AMD64, GUEST_RESTART),
    step("guest-containers", GUEST_AMD64, GUEST_CONTAINERS),
    step("guests-arm64", GUEST_ARM64, &["xtask", "vm", "--kernels", "6.12", "--arch", "arm64"]),
    step(E2E, CLUSTER, &["test", "--package", "oom-watcher", "--test", "e2e", "--", "--require"]),
];

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

/// `cargo xtask test`. With `CI=true`, a step that cannot run is a failure.
pub(crate) fn run(options: &Options) -> Result<()> {
    let logs = paths::make(&paths::target().join("test-logs"))?;
    let mut report = Vec::new();
    for step in choose(options)? {
        let started = Instant::now();
        let outcome = match step {
            _ if options.quick && step.is_slow() => Outcome::LeftOut("by --quick"),
            _ if options.steps.is_empty() && step.name == E2E => Outcome::LeftOut(NOT_ASKED),
            _ => step.run(&logs)?,
        };
        report.push((step.name, outcome, started.elapsed().as_secs()));
    }
    let total = report.iter().fold(Counts::default(), |total, (_, outcome, _)| total + outcome.counts(strict()));
    println!("\n{:<14} {:>6}  outcome", "step", "time");
    for (name, outcome, seconds) in &report {
        println!("{name:<14} {seconds:>4} s  {outcome}");
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
    let step = choose(&Options { quick: false, steps: vec![E2E.to_owned()] })?[0];
    let more = [("--image", &options.image), ("--node", &options.node)];
    let more = more.into_iter().filter_map(|(flag, value)| Some([flag, value.as_deref()?])).flatten();
    process::run(Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args(step.cargo).args(more))
}

fn choose(options: &Options) -> Result<Vec<&'static Step>> {
    if options.steps.is_empty() {
        return Ok(STEPS.iter().collect());
    }
    let find = |name: &String| {
        STEPS.iter().find(|step| step.name == name).with_context(|| {
            let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
            format!("no step {name:?}; there are {}", names.join(", "))
        })
    };
    options.steps.iter().map(find).collect()
}

fn strict() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}
