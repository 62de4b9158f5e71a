//! Measures the agent's parts on their own. Every command writes one JSON object to standard output; `cargo xtask bench` runs
//! them, puts them beside what it measures of the agent itself, and knows what the figures should be.

#![forbid(unsafe_code)]

mod api;
mod fleet;
mod memory;
mod node;
mod peers;
mod poll;
mod recorded;
mod scrape;
mod stages;

use std::{alloc::System, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use rustix::time::{ClockId, clock_gettime};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts allocations; the allocator below is the agent's.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Parser)]
#[command(name = "benches", about)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Time and allocations of each stage, from recorded bytes
    Stages(stages::Options),
    /// The same kills through all stages, with nothing measured: for callgrind
    Replay(stages::Replay),
    /// Memory of a process that has replayed more and more kills
    Memory(memory::Options),
    /// Sizes of the kernel program's records
    Records,
    /// Time and size of /metrics
    Scrape(scrape::Options),
    /// The common design as a yard-stick: looks into the ring buffer every so often (root)
    Poll(poll::Options),
    /// This watcher and others see the same kills (root, in a guest that has them)
    Peers(peers::Options),
    /// Stands in for the Kubernetes API; KUBECONFIG names a file that is written
    Api(api::Options),
    /// What the agents of a fleet ask of the Kubernetes API; KUBECONFIG names a file that is written
    Fleet(fleet::Options),
    /// Waits for the end of its input, then takes memory until it is killed: one of the kills above
    Hog,
    /// Writes the bytes of the next kill of this machine to a file (root)
    Record {
        /// The file
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let outcome = match &Arguments::parse().bench {
        Bench::Stages(options) => stages::run(options).and_then(|result| print(&result)),
        Bench::Replay(options) => stages::replay(options),
        Bench::Memory(options) => memory::run(options).and_then(|result| print(&result)),
        Bench::Scrape(options) => scrape::run(options).and_then(|result| print(&result)),
        Bench::Records => recorded::sizes().and_then(|sizes| print(&sizes)),
        Bench::Poll(options) => poll::run(options),
        Bench::Peers(options) => peers::run(options).and_then(|result| print(&result)),
        Bench::Api(options) => api::run(options),
        Bench::Fleet(options) => fleet::run(options).and_then(|result| print(&result)),
        Bench::Hog => peers::hog(),
        Bench::Record { file } => poll::record(file),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Time that this thread has run: what others do on the machine is not in it.
fn cpu_ns() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn print(result: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}
