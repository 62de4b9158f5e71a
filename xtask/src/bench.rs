//! `cargo xtask bench`: what the agent costs and how fast it is, measured on this machine and in a guest with real kills and written
//! to `benches/results.json`; `docs/performance.md` and `docs/scale.md` are rendered from that file alone.
//!
//! This file owns the order; each module measures one thing, and none says what is good but the page's targets. `--budgets` is the
//! other half: what does not wobble, held against `benches/budgets.json`.

mod agent;
mod api;
mod budgets;
mod kills;
mod latency;
mod machine;
mod mappings;
mod page;
mod parts;
mod peers;
mod report;
mod results;
mod standing;
mod statistics;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{process, shipped};

/// The part that takes minutes, and is measured only when it is asked for.
const COLD_BUILD: &str = "cold_build";

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only what does not wobble, and fail where it is over its budget
    #[arg(long, conflicts_with_all = ["render", "only", "cold_build", "nodes", "kills", "seconds", "rounds", "results"])]
    budgets: bool,
    /// Measure nothing: render the pages from the results that are there
    #[arg(long)]
    render: bool,
    /// Measure only these parts, and keep what the results have of the others
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    /// Time a release build that finds nothing built, too; else the last one's time is kept
    #[arg(long)]
    cold_build: bool,
    /// Nodes of the fleet whose traffic with the Kubernetes API is made up
    #[arg(long, default_value_t = 15_000)]
    nodes: usize,
    /// Kills of each case of the latency, and a fifth of them one at a time beside other watchers
    #[arg(long, default_value_t = 300)]
    kills: usize,
    /// Rounds that medians and ranges of memory, starts and stages are of
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that the agent is watched doing nothing
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Keep the results in this file, and render no page: for a look on a machine that is busy
    #[arg(long, value_name = "FILE", conflicts_with = "render")]
    results: Option<PathBuf>,
}

/// The name of a part, and what measures it.
type Part<'a> = (&'static str, &'a dyn Fn() -> Result<Value>);

/// `cargo xtask bench`.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.render {
        return report::write(&results::read(&results::published())?);
    }
    let programs = Programs::build()?;
    if options.budgets {
        return budgets::hold(&programs);
    }
    ensure!(process::is_root()?, "the agent and its kills need root");
    let (rounds, seconds) = (options.rounds, options.seconds);
    measure(
        options,
        &[
            ("sizes", &|| parts::sizes(&programs)),
            ("image", &parts::image),
            ("counts", &|| budgets::figures(&programs)),
            ("verified", &parts::verified),
            ("records", &|| programs.bench(&["records"])),
            ("stages", &|| parts::stages(&programs, rounds)),
            ("scrape", &|| parts::scrape(&programs)),
            ("growth", &|| parts::growth(&programs, options.kills * 7, rounds)),
            ("standing", &|| standing::measure(&programs, rounds, seconds)),
            ("latency", &|| latency::measure(&programs, options.kills)),
            ("api", &|| api::measure(&programs)),
            ("fleet", &|| api::fleet(&programs, options.nodes, seconds)),
            ("peers", &|| peers::measure(&programs, options.kills.div_ceil(5), seconds)),
            (COLD_BUILD, &parts::cold_build),
        ],
    )
}

/// Measures the parts that are wanted, one after the other, and renders the pages.
fn measure(options: &Options, parts: &[Part<'_>]) -> Result<()> {
    let known: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = options.only.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("no part {unknown:?}; there are {}", known.join(", "));
    }
    let whole = options.only.is_empty();
    let is_wanted = |name: &str| {
        if whole { name != COLD_BUILD || options.cold_build } else { options.only.iter().any(|only| only == name) }
    };
    let file = options.results.clone().unwrap_or_else(results::published);
    let machine = machine::describe()?;
    let mut results = results::read_or_begin(&file)?;
    if whole {
        results = json!({ "machine": machine, COLD_BUILD: results[COLD_BUILD] });
    }
    // Every part is written as soon as it is there: a part that fails costs what comes after it only.
    for (name, measure) in parts.iter().filter(|(name, _)| is_wanted(name)) {
        println!("== {name}");
        let load_before = json!(machine::load()?);
        results[*name] = measure().with_context(|| format!("cannot measure {name}"))?;
        let load = json!(machine::load()?);
        if whole {
            results["machine"]["load_at_end"] = load;
        } else {
            let mut apart = machine.clone();
            (apart["load_at_start"], apart["load_at_end"]) = (load_before, load);
            results["apart"][*name] = apart;
        }
        results::save(&file, &results)?;
    }
    if options.results.is_some() { Ok(()) } else { report::write(&results) }
}

/// What is run.
pub(crate) struct Programs {
    /// The agent, as the image and the archives of a release have it.
    agent: PathBuf,
    /// Its parts on their own.
    benches: PathBuf,
}

impl Programs {
    fn build() -> Result<Self> {
        Ok(Self { agent: shipped::build("oom-watcher")?, benches: shipped::build("benches")? })
    }

    /// The JSON that a command of `benches` writes.
    fn bench(&self, arguments: &[&str]) -> Result<Value> {
        self.bench_with(arguments, &[])
    }

    fn bench_with(&self, arguments: &[&str], environment: &[(&str, &Path)]) -> Result<Value> {
        let text = process::output(Command::new(&self.benches).args(arguments).envs(environment.iter().copied()))?;
        serde_json::from_str(&text).with_context(|| format!("benches wrote {text:?}"))
    }
}
