//! Everything that a developer or CI runs. Each command says what it does and leaves the machine as it was where it can.

#![forbid(unsafe_code)]

mod apt;
mod bench;
mod bpf_linker;
mod btf_excerpt;
mod cargo_tool;
mod chart;
mod deny;
mod deps;
mod docs;
mod ebpf;
mod ebpf_object;
mod fuzz;
mod image;
mod kernel_support;
mod miri;
mod paths;
mod process;
mod release;
mod shipped;
mod soak;
mod test;
mod tidy;
mod toolchain;
mod vm;

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs the packages of the system that development needs, or says which
    Deps,
    /// Provides the pinned nightly and bpf-linker that build-ebpf and the arm64 build need
    Toolchain,
    /// Builds the kernel program and writes the committed object
    BuildEbpf(ebpf::Options),
    /// Cuts a test fixture out of a kernel's BTF
    BtfExcerpt(btf_excerpt::Options),
    /// Runs the kernel or the container suite in guests with other kernels
    Vm(vm::Options),
    /// Keeps the results of the guests and writes docs/kernel-support.md from them
    KernelSupport(kernel_support::Options),
    /// Builds the image and proves it under crun and runc
    Image(image::Options),
    /// Checks everything about a release that can be known before its tag
    Release(release::Options),
    /// Writes the files that are generated from the code
    Docs(docs::Options),
    /// Checks the rules of the house that no other tool holds
    Tidy,
    /// Tests the chart, its manifests, alerts and dashboard, or writes what is generated from it
    Chart(chart::Options),
    /// Checks the workflows of GitHub and what keeps them current
    Workflows,
    /// Checks licences, sources and advisories of the dependencies
    Deny,
    /// Has a container killed on the cluster of KUBECONFIG, and checks what the agent there makes of it
    E2e(test::E2eOptions),
    /// Feeds the parsers of what strangers write with input that nobody would think of
    Fuzz(fuzz::Options),
    /// Runs the unit tests of what outside bytes go through in Miri, which rustup's servers have
    Miri,
    /// Runs the unit tests, and as root an agent under real kills, with the address sanitizer
    Asan,
    /// Watches hours of mixed load, and closes the account
    Soak(soak::Options),
    /// Measures the agent, or holds what does not wobble against its budgets
    Bench(bench::Options),
    /// Runs every check and says what ran, what did not and why
    Test(test::Options),
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<()> {
    match task {
        Task::Deps => deps::provide(),
        Task::Toolchain => toolchain::provide(),
        Task::BuildEbpf(options) => ebpf::build(options),
        Task::BtfExcerpt(options) => btf_excerpt::run(options),
        Task::Vm(options) => vm::run(options),
        Task::KernelSupport(options) => kernel_support::run(options),
        Task::Image(options) => image::run(options),
        Task::Release(options) => release::run(options),
        Task::Docs(options) => docs::run(options),
        Task::Tidy => tidy::run(),
        Task::Chart(options) => chart::run(options),
        Task::Workflows => script(".github/lint.sh"),
        Task::Deny => deny::run(),
        Task::E2e(options) => test::run_e2e(options),
        Task::Fuzz(options) => fuzz::run(options),
        Task::Miri => miri::miri(),
        Task::Asan => miri::asan(),
        Task::Soak(options) => soak::run(options),
        Task::Bench(options) => bench::run(options),
        Task::Test(options) => test::run(options),
    }
}

fn script(path: &str) -> Result<()> {
    process::run(&mut Command::new(paths::workspace().join(path)))
}
