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
mod page;
mod parts;
mod peers;
mod report;
mod standing;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{paths, process};

/// The part that takes minutes, and is measured only when it is asked for.
const COLD_BUILD: &str = "cold_build";

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only what does not wobble, and fail where it is over its budget
    #[arg(long, conflicts_with_all = ["render", "only", "cold_build", "nodes", "kills", "seconds"])]
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
    /// Kills of each case of the latency, and one at a time beside other watchers
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// Seconds that the agent is watched doing nothing
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// `cargo xtask bench`.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.render {
        return report::write(&read()?);
    }
    let programs = Programs::build()?;
    if options.budgets {
        return budgets::hold(&programs);
    }
    ensure!(process::is_root()?, "the agent and its kills need root");
    let parts: [(&str, &dyn Fn() -> Result<Value>); 14] = [
        ("sizes", &|| parts::sizes(&programs)),
        ("image", &parts::image),
        ("counts", &|| budgets::figures(&programs)),
        ("verified", &parts::verified),
        ("records", &|| programs.bench(&["records"])),
        ("stages", &|| parts::stages(&programs)),
        ("scrape", &|| parts::scrape(&programs)),
        ("growth", &|| parts::growth(&programs, options.kills * 20)),
        ("standing", &|| standing::measure(&programs, options.seconds)),
        ("latency", &|| latency::measure(&programs, options.kills)),
        ("api", &|| api::measure(&programs)),
        ("fleet", &|| api::fleet(&programs, options.nodes, options.seconds)),
        ("peers", &|| peers::measure(&programs, options.kills, options.seconds)),
        (COLD_BUILD, &parts::cold_build),
    ];
    let known = parts.map(|(name, _)| name);
    if let Some(unknown) = options.only.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("no part {unknown:?}; there are {}", known.join(", "));
    }
    let whole = options.only.is_empty();
    let is_wanted = |name: &str| {
        if whole { name != COLD_BUILD || options.cold_build } else { options.only.iter().any(|only| only == name) }
    };
    let machine = machine::describe()?;
    let mut results = read()?;
    if whole {
        results = json!({ "machine": machine, COLD_BUILD: results[COLD_BUILD] });
    }
    // Every part is written as soon as it is there: a part that fails costs what comes after it only.
    for (name, measure) in parts.iter().filter(|(name, _)| is_wanted(name)) {
        println!("== {name}");
        results[*name] = measure().with_context(|| format!("cannot measure {name}"))?;
        let load = json!(machine::load()?);
        if whole {
            results["machine"]["load_at_end"] = load;
        } else {
            results["apart"][*name] = machine.clone();
            results["apart"][*name]["load_at_end"] = load;
        }
        save(&results)?;
    }
    report::write(&results)
}

/// What is run.
pub(crate) struct Programs {
    /// The agent, as a user builds it.
    agent: PathBuf,
    /// Its parts on their own.
    benches: PathBuf,
}

impl Programs {
    fn build() -> Result<Self> {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--locked", "--package", "oom-watcher", "--package", "benches"]);
        // This program's own: a build script that reads them would be run again, and all that is built on it.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG_")) {
            cargo.env_remove(name);
        }
        cargo.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH");
        process::run(cargo.current_dir(paths::workspace()))?;
        let folder = paths::target().join("release");
        Ok(Self { agent: folder.join("oom-watcher"), benches: folder.join("benches") })
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

fn results() -> PathBuf {
    paths::workspace().join("benches/results.json")
}

fn read() -> Result<Value> {
    let file = results();
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot understand {}", file.display()))
}

fn save(value: &Value) -> Result<()> {
    let file = results();
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The value at `share` (0 to 1) of what was measured: the nearest rank.
fn quantile(values: &mut [f64], share: f64) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len().saturating_sub(1) as f64 * share).round() as usize;
    values.get(rank).copied().context("nothing was measured")
}
