//! `cargo xtask vm`: a suite in guests with other kernels.
//!
//! This file knows the order of the work; what a kernel is, how a guest is filled and how its console is read are each
//! one of its modules. A guest that fails stops no other, and all failures are reported together.

pub(crate) mod guest;
pub(crate) mod initramfs;
pub(crate) mod kernels;
pub(crate) mod qemu;
mod runtimes;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use self::{
    guest::{Part, Suite},
    kernels::{Arch, Image, Kernel},
};
use crate::{kernel_support, paths};

/// Of each guest's disk, which takes no room before it is written.
const DISK_SIZE: u64 = 64 << 20;

/// Which guests are run, and what runs in them.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Keys of kernels, separated by commas; without --arch those of amd64
    #[arg(long, value_delimiter = ',', required_unless_present_any = ["all", "list"])]
    kernels: Vec<String>,
    /// Architecture of the kernels that --kernels names
    #[arg(long, value_enum, default_value_t = Arch::Amd64)]
    arch: Arch,
    /// What runs in the guests
    #[arg(long, value_enum, default_value_t = Suite::Kernel)]
    suite: Suite,
    /// Every kernel of both architectures
    #[arg(long, conflicts_with_all = ["kernels", "arch"])]
    all: bool,
    /// Show the kernels and where they come from
    #[arg(long)]
    list: bool,
    /// Guests at the same time; each has two virtual processors
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
    /// Run only the tests whose name contains one of these, separated by commas
    #[arg(long, value_delimiter = ',')]
    filter: Vec<String>,
    /// Only get the kernels and build what runs in the guests
    #[arg(long)]
    build_only: bool,
    /// Seconds after which a guest is ended as hung
    #[arg(long, default_value_t = 900)]
    time_limit: u64,
}

/// The names of all guests, as their results are named.
pub(crate) fn names() -> Vec<String> {
    kernels::ALL.iter().map(Kernel::name).collect()
}

/// One guest that is ready to start.
struct Job {
    kernel: &'static Kernel,
    image: Image,
    initramfs: PathBuf,
    part: Part,
}

/// `cargo xtask vm`.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.list {
        for kernel in kernels::ALL {
            println!("{:<24} Debian {}", kernel.name(), kernel.suite);
        }
        return Ok(());
    }
    let chosen = choose(options)?;
    let mut failures = Vec::new();
    let jobs = prepare(&chosen, options.suite, &mut failures)?;
    let guests = jobs.len() + failures.len();
    let logs = paths::make(&paths::target().join("vm"))?;
    if !options.build_only {
        failures.extend(run_all(&jobs, options, &logs));
    }
    if !failures.is_empty() {
        bail!("{} of {guests} guests failed:\n\n{}", failures.len(), failures.join("\n\n"));
    }
    if options.build_only {
        println!("all that {guests} guests are made of is there");
        return Ok(());
    }
    println!("{guests} guests passed; their consoles are in {}", logs.display());
    Ok(())
}

fn choose(options: &Options) -> Result<Vec<&'static Kernel>> {
    if options.all {
        return Ok(kernels::ALL.iter().collect());
    }
    options.kernels.iter().map(|key| kernels::find(key, options.arch)).collect()
}

/// Gets every kernel, and builds for each architecture once. A kernel that cannot be got is a failure of that guest.
fn prepare(chosen: &[&'static Kernel], suite: Suite, failures: &mut Vec<String>) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for arch in [Arch::Amd64, Arch::Arm64] {
        let kernels = chosen.iter().filter(|kernel| kernel.arch == arch);
        let mut images = Vec::new();
        for kernel in kernels {
            match kernel.provide() {
                Ok(image) => images.push((*kernel, image)),
                Err(error) => failures.push(format!("{}: {error:#}", kernel.name())),
            }
        }
        if images.is_empty() {
            continue;
        }
        let entries = guest::build(arch, suite)?;
        let initramfs = paths::target().join("vm").join(format!("initramfs-{}-{arch}.cpio", suite.name()));
        initramfs::write(&initramfs, &entries)?;
        for (kernel, image) in images {
            let job = |part: &Part| Job { kernel, image: image.clone(), initramfs: initramfs.clone(), part: *part };
            jobs.extend(suite.parts().iter().map(job));
        }
    }
    Ok(jobs)
}

/// Runs the guests, as many at a time as the options say, and gives the failures in the order of the jobs.
fn run_all(jobs: &[Job], options: &Options, logs: &Path) -> Vec<String> {
    let next = Mutex::new(jobs.iter().enumerate());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                loop {
                    let Some((index, job)) = next.lock().unwrap_or_else(PoisonError::into_inner).next() else { break };
                    if let Err(failure) = run_one(job, options, logs) {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push((index, format!("{failure:#}")));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort();
    failures.into_iter().map(|(_, failure)| failure).collect()
}

fn run_one(job: &Job, options: &Options, logs: &Path) -> Result<()> {
    let name = log_name(job, options.suite);
    let arguments: Vec<String> =
        job.part.arguments.iter().map(|&argument| argument.to_owned()).chain(options.filter.iter().cloned()).collect();
    println!("{name}: starting {}", job.image.version);
    let started = Instant::now();
    let disk = logs.join(format!("{name}.disk"));
    File::create(&disk)
        .and_then(|file| file.set_len(DISK_SIZE))
        .with_context(|| format!("cannot make {}", disk.display()))?;
    let guest = qemu::Guest {
        arch: job.kernel.arch,
        kernel: &job.image.file,
        initramfs: &job.initramfs,
        cgroup_v1: job.kernel.cgroup_v1,
        memory: options.suite.memory(),
        disk: Some(&disk),
        arguments: &arguments,
        time_limit: Duration::from_secs(options.time_limit),
    };
    let log = logs.join(format!("{name}.log"));
    let outcome = guest.run(&log)?;
    let results = logs.join(format!("{name}.jsonl"));
    fs::write(&results, outcome.results()).with_context(|| format!("cannot write {}", results.display()))?;
    let version = &job.image.version;
    let counts = outcome.test_result().map(|line| format!("\n{name}: test result: {line}")).unwrap_or_default();
    if let Err(error) = outcome.verdict() {
        bail!("{name} ({version}): {error:#}{counts}\n  console in {}, its end:\n{}", log.display(), outcome.tail());
    }
    println!("{name}: success on {version} in {:.1} s{counts}", started.elapsed().as_secs_f32());
    if options.suite == Suite::Kernel {
        // After the verdict: a guest that failed may not have come to say anything of the verifier.
        let figures = kernel_support::compare(&name, &outcome.results()).with_context(|| name.clone())?;
        println!("{name}: {}", figures.join("; "));
    }
    Ok(())
}

/// The kernel suite's results are the kernel's own: docs/kernel-support.md is made of them.
fn log_name(job: &Job, suite: Suite) -> String {
    match suite {
        Suite::Kernel => job.kernel.name(),
        Suite::Restart | Suite::Containers => format!("{}-{}{}", suite.name(), job.kernel.name(), job.part.name),
    }
}
