//! The agent's parts on their own: what `benches` measures, at several sizes, and the sizes of what is built.

use std::{fs, path::Path, thread, time::Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Programs,
    agent::Watcher,
    kills::{self, Cgroup},
    machine, standing,
};
use crate::{paths, process, vm::kernels::Arch};

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

/// Memory after more and more kills: replayed ones, in a process that has the agent's parts, and real ones of the agent itself, as
/// many as there is time for.
pub(super) fn growth(programs: &Programs, kills: usize) -> Result<Value> {
    let links = kills::links(0)?.display().to_string();
    let agent = Watcher::agent_with(&programs.agent, None, &["--container-log-dir", &links], &[])?;
    // What starting took is given back.
    thread::sleep(standing::SETTLED);
    let cgroup = Cgroup::of(0)?;
    let mut points = Vec::new();
    for killed in 0..=kills {
        if killed % (kills / 4).max(1) == 0 {
            points.push(json!({ "kills": killed, "rss_kib": agent.memory()?["rss_kib"] }));
        }
        cgroup.kill(0)?;
        agent.latency_ms()?;
    }
    Ok(json!({ "replayed": programs.bench(&["memory", "--kills", "100000"])?, "agent": { "points": points } }))
}

/// What is built, and of how much.
pub(super) fn sizes(programs: &Programs) -> Result<Value> {
    Ok(json!({
        "agent_bytes": length(&programs.agent)?,
        "object_bytes": length(&paths::workspace().join("oom-watcher/bpf/oom-watcher.bpf.o"))?,
        "dependencies": dependencies()?,
    }))
}

/// The image that `cargo xtask image` built last, as a registry has it.
pub(super) fn image() -> Result<Value> {
    let layout = paths::target().join(format!("image/proof-{}/oci", Arch::own()));
    ensure!(layout.is_dir(), "no image is in {}: run `cargo xtask image --build-only`", layout.display());
    let read = |file: &Path| -> Result<Value> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("cannot understand {}", file.display()))
    };
    let index = read(&layout.join("index.json"))?;
    let digest = index["manifests"][0]["digest"].as_str().context("the image has no manifest")?;
    let manifest = read(&layout.join("blobs").join(digest.replace(':', "/")))?;
    let layers = manifest["layers"].as_array().context("the manifest has no layers")?;
    let bytes = layers.iter().chain([&manifest["config"]]).filter_map(|blob| blob["size"].as_u64());
    Ok(json!({ "compressed_bytes": bytes.sum::<u64>(), "layers": layers.len() }))
}

/// Instructions that the verifiers of other kernels went through, as the guests that docs/kernel-support.md is made of said.
pub(super) fn verified() -> Result<Value> {
    const GUESTS: &str = "docs/kernel-support.jsonl";
    let text = fs::read_to_string(paths::workspace().join(GUESTS)).with_context(|| format!("cannot read {GUESTS}"))?;
    let guest = |line: &str| -> Result<Value> {
        let guest: Value = serde_json::from_str(line).with_context(|| format!("cannot understand {GUESTS}"))?;
        let hooks = guest["hooks"].as_array().context("a guest has no hooks")?;
        let count = |hook: &Value| Some((hook["hook"].as_str()?.to_owned(), hook["verified_instructions"].clone()));
        let hooks: serde_json::Map<_, _> = hooks.iter().filter_map(count).collect();
        Ok(json!({ "guest": guest["guest"], "kernel": guest["kernel"], "hooks": hooks }))
    };
    text.lines().map(guest).collect()
}

/// Time of a release build that finds nothing built, and of how much CPU.
pub(super) fn cold_build() -> Result<Value> {
    let target = paths::target().join("bench/cold");
    let started = Instant::now();
    let mut cargo = process::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "oom-watcher", "--target-dir"]).arg(&target);
    process::run(cargo.current_dir(paths::workspace()))?;
    let seconds = started.elapsed().as_secs_f64();
    fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))?;
    Ok(json!({ "seconds": seconds, "machine": machine::describe()? }))
}

fn length(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len())
}

/// Packages of others that are in the agent, on this platform.
fn dependencies() -> Result<usize> {
    let mut tree = process::cargo();
    tree.args(["tree", "--locked", "--package", "oom-watcher", "--edges", "normal", "--prefix", "none"]);
    let text = process::output(tree.args(["--format", "{p}"]).current_dir(paths::workspace()))?;
    let mut packages: Vec<&str> = text.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    packages.retain(|package| !package.starts_with("oom-watcher"));
    packages.sort_unstable();
    packages.dedup();
    Ok(packages.len())
}
