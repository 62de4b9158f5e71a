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
use crate::{image, paths, process, vm::kernels::Arch};

/// Containers on the node, and kills in one run, that show how the stages grow.
const CONTAINERS: [&str; 4] = ["10", "100", "1000", "10000"];
const KILLS: [&str; 3] = ["1000", "10000", "100000"];
const SERIES: [&str; 3] = ["50", "500", "5000"];

/// Every stage on nodes of several sizes, and with more and more kills.
pub(super) fn stages(programs: &Programs, rounds: usize) -> Result<Value> {
    let on = |containers: &&str| programs.bench(&["stages", "--kills", "20000", "--containers", containers]);
    let with = |kills: &&str| programs.bench(&["stages", "--kills", kills, "--containers", "500"]);
    let (mut by_containers, mut by_kills) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        by_containers.push(CONTAINERS.iter().map(on).collect::<Result<Vec<_>>>()?);
        by_kills.push(KILLS.iter().map(with).collect::<Result<Vec<_>>>()?);
    }
    Ok(json!({ "by_containers": each_time(&by_containers), "by_kills": each_time(&by_kills) }))
}

/// The runs of the first round, each with the times of every round: what is allocated is the same each time.
fn each_time(rounds: &[Vec<Value>]) -> Vec<Value> {
    let mut runs = rounds.first().cloned().unwrap_or_default();
    for (place, run) in runs.iter_mut().enumerate() {
        for (stage, figures) in run["stages"].as_array_mut().into_iter().flatten().enumerate() {
            figures["ns"] = rounds.iter().map(|round| round[place]["stages"][stage]["ns"].clone()).collect();
        }
    }
    runs
}

/// /metrics at several sizes.
pub(super) fn scrape(programs: &Programs) -> Result<Value> {
    SERIES.iter().map(|series| programs.bench(&["scrape", "--series", series])).collect()
}

/// Memory after more and more kills: replayed ones, in processes that have the agent's parts, one for each round, and real ones of the agent itself, as
/// many as there is time for.
pub(super) fn growth(programs: &Programs, kills: usize, rounds: usize) -> Result<Value> {
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
    let replay = |_| programs.bench(&["memory", "--kills", "100000"]);
    let rounds = (0..rounds).map(replay).collect::<Result<Vec<_>>>()?;
    let mut replayed = rounds.first().cloned().context("no round")?;
    for (place, point) in replayed["points"].as_array_mut().into_iter().flatten().enumerate() {
        point["rss_kib"] = rounds.iter().map(|round| round["points"][place]["rss_kib"].clone()).collect();
    }
    Ok(json!({ "replayed": replayed, "agent": { "points": points } }))
}

/// What is built, and of how much.
pub(super) fn sizes(programs: &Programs) -> Result<Value> {
    Ok(json!({
        "agent_bytes": length(&programs.agent)?,
        "object_bytes": length(&paths::workspace().join("oom-watcher/bpf/oom-watcher.bpf.o"))?,
        "dependencies": dependencies()?,
    }))
}

/// The image that `cargo xtask image` built last, as a registry has it, and the commit that it says it is of.
pub(super) fn image() -> Result<Value> {
    let layout = paths::target().join(format!("image/proof-{}/oci", Arch::own()));
    ensure!(layout.is_dir(), "no image is in {}: run `cargo xtask image --build-only`", layout.display());
    let read = |file: &Path| -> Result<Value> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("cannot understand {}", file.display()))
    };
    let index = read(&layout.join("index.json"))?;
    let blob = |digest: &Value| -> Result<Value> {
        read(&layout.join("blobs").join(digest.as_str().context("a blob without a digest")?.replace(':', "/")))
    };
    let manifest = blob(&index["manifests"][0]["digest"])?;
    let layers = manifest["layers"].as_array().context("the manifest has no layers")?;
    let bytes = layers.iter().chain([&manifest["config"]]).filter_map(|blob| blob["size"].as_u64());
    let config = blob(&manifest["config"]["digest"])?;
    let commit = config["config"]["Labels"]["org.opencontainers.image.revision"].as_str();
    let commit = commit.context("the image does not say which commit it is of")?;
    if commit != image::revision()? {
        println!("the image is of another commit than this one: {commit}, as its row will say");
    }
    Ok(json!({ "compressed_bytes": bytes.sum::<u64>(), "layers": layers.len(), "commit": commit }))
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
    // Before: afterwards the load is the build's own.
    let machine = machine::describe()?;
    let started = Instant::now();
    let mut cargo = process::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "oom-watcher", "--target-dir"]).arg(&target);
    process::run(cargo.current_dir(paths::workspace()))?;
    let seconds = started.elapsed().as_secs_f64();
    fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))?;
    Ok(json!({ "seconds": seconds, "machine": machine }))
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
