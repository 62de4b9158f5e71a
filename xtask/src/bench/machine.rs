//! What the figures were measured on.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{paths, process};

/// Processor, kernel, load and commit.
pub(super) fn describe() -> Result<Value> {
    let cpuinfo = read("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let has_hypervisor = |line: &str| line.starts_with("flags") && line.split(' ').any(|flag| flag == "hypervisor");
    let meminfo = read("/proc/meminfo")?;
    let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let git =
        process::output(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(paths::workspace()));
    Ok(json!({
        "processor": model.map_or("not known", |(_, model)| model),
        "cpus": std::thread::available_parallelism()?.get(),
        "is_virtual": cpuinfo.lines().any(has_hypervisor),
        "memory_kib": memory.context("/proc/meminfo has no total")?.parse::<u64>().context("not a number")?,
        "kernel": kernel()?,
        "rustc": process::output(Command::new("rustc").arg("--version"))?.trim(),
        "commit": git.unwrap_or_default().trim(),
        "load_at_start": load()?,
    }))
}

/// Release of the running kernel.
pub(super) fn kernel() -> Result<String> {
    Ok(read("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

/// Processes that want a CPU, averaged over the last minute.
pub(super) fn load() -> Result<f64> {
    let text = read("/proc/loadavg")?;
    let first = text.split_whitespace().next().context("/proc/loadavg is empty")?;
    first.parse().context("the load is no number")
}

/// Processes that were killed for want of memory since the machine started.
pub(super) fn kills() -> Result<u64> {
    let text = read("/proc/vmstat")?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.context("/proc/vmstat does not count kills")?.trim().parse().context("the count is no number")
}

pub(super) fn read(file: &str) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {file}"))
}
