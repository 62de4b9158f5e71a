//! The agent's parts on their own: what `benches` measures, at several sizes, and the sizes of what is built.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Programs;
use crate::{paths, process};

/// Containers on the node, and kills in one run, that show how the stages grow.
const CONTAINERS: [&str; 4] = ["10", "100", "1000", "10000"];
const KILLS: [&str; 3] = ["1000", "10000", "100000"];
const SERIES: [&str; 3] = ["50", "500", "5000"];

/// Every stage on nodes of several sizes, and with more and more kills.
pub(super) fn stages(programs: &Programs) -> Result<Value> {
    let on = |containers: &&str| programs.bench(&["stages", "--kills", "20000", "--containers", containers]);
    let with = |kills: &&str| programs.bench(&["stages", "--kills", kills, "--containers", "500"]);
    Ok(json!({
        "by_containers": CONTAINERS.iter().map(on).collect::<Result<Vec<_>>>()?,
        "by_kills": KILLS.iter().map(with).collect::<Result<Vec<_>>>()?,
    }))
}

/// /metrics at several sizes.
pub(super) fn scrape(programs: &Programs) -> Result<Value> {
    SERIES.iter().map(|series| programs.bench(&["scrape", "--series", series])).collect()
}

/// Memory after more and more kills.
pub(super) fn growth(programs: &Programs) -> Result<Value> {
    programs.bench(&["memory", "--kills", "100000"])
}

/// What is built, and of how much.
pub(super) fn sizes(programs: &Programs) -> Result<Value> {
    Ok(json!({
        "agent_bytes": length(&programs.agent)?,
        "object_bytes": length(&paths::workspace().join("oom-watcher/bpf/oom-watcher.bpf.o"))?,
        "dependencies": dependencies()?,
    }))
}

fn length(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len())
}

/// Packages of others that are in the agent, on this platform.
fn dependencies() -> Result<usize> {
    let mut tree = Command::new("cargo");
    tree.args(["tree", "--locked", "--package", "oom-watcher", "--edges", "normal", "--prefix", "none"]);
    let text = process::output(tree.args(["--format", "{p}"]).current_dir(paths::workspace()))?;
    let mut packages: Vec<&str> = text.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    packages.retain(|package| !package.starts_with("oom-watcher"));
    packages.sort_unstable();
    packages.dedup();
    Ok(packages.len())
}
