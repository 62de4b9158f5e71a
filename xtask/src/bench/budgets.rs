//! What does not wobble, held against `benches/budgets.json`: instructions, allocations, sizes. Never a time.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::{Programs, machine, parts};
use crate::{paths, process, test::NOT_CHECKED};

/// Kills of the two replays whose difference is what a kill takes; what starting takes falls out.
const KILLS: [u64; 2] = [1000, 2000];

/// Containers of the node when it is counted what attribution takes: it has to be the same.
const CONTAINERS: [u64; 2] = [10, 10_000];

/// One line of the file.
#[derive(serde::Deserialize)]
struct Budget {
    figure: String,
    at_most: f64,
    /// Beginning of the kernel's release that the figure is of, if it is of one: another verifier counts otherwise.
    kernel: Option<String>,
    #[expect(dead_code, reason = "for who reads the file; parsing holds that each budget has one")]
    reason: String,
}

/// Measures every figure that has a budget; one that is over it is an error.
pub(super) fn hold(programs: &Programs) -> Result<()> {
    let file = paths::workspace().join("benches/budgets.json");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let budgets: Vec<Budget> =
        serde_json::from_str(&text).with_context(|| format!("cannot understand {}", file.display()))?;
    let figures = measure(programs)?;
    let release = machine::kernel()?;
    let (mut passed, mut failed) = (0, 0);
    for Budget { figure, at_most, kernel, .. } in &budgets {
        if let Some(kernel) = kernel.as_ref().filter(|kernel| !release.starts_with(*kernel)) {
            println!("{NOT_CHECKED}{figure}: its budget is of Linux {kernel}, and this is {release}");
            continue;
        }
        let value = figures.iter().find(|(name, _)| name == figure).map(|(_, value)| *value);
        let verdict = match value {
            Some(value) if value <= *at_most => "within",
            Some(_) => "OVER",
            None => "NOT MEASURED, of",
        };
        let shown = value.map_or("-".to_owned(), |value| format!("{value:.1}"));
        println!("{figure:<32} {shown:>12}  {verdict} {at_most}");
        *if verdict == "within" { &mut passed } else { &mut failed } += 1;
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        bail!("{failed} figures are over their budgets: see benches/budgets.json for why they are what they are");
    }
    Ok(())
}

/// Every figure, for the page.
pub(super) fn figures(programs: &Programs) -> Result<Value> {
    Ok(measure(programs)?.into_iter().map(|(name, value)| (name, json!(value))).collect::<Map<_, _>>().into())
}

fn measure(programs: &Programs) -> Result<Vec<(String, f64)>> {
    let mut figures = vec![("instructions_per_kill".to_owned(), instructions_per_kill(programs)?)];
    for containers in CONTAINERS {
        let name = format!("instructions_per_attribution_among_{containers}");
        figures.push((name, instructions_per_attribution(programs, containers)?));
    }
    let stages = programs.bench(&["stages", "--kills", "2000"])?;
    let sum = |field: &str| -> Result<f64> {
        let stages = stages["stages"].as_array().context("benches gave no stages")?;
        Ok(stages.iter().filter_map(|stage| stage[field].as_f64()).sum())
    };
    figures.push(("allocations_per_kill".to_owned(), sum("allocations")?));
    figures.push(("allocated_bytes_per_kill".to_owned(), sum("allocated_bytes")?));
    let scrape = programs.bench(&["scrape", "--series", "500"])?;
    figures.push(("scrape_500_bytes".to_owned(), number(&scrape["bytes"])?));
    for (name, value) in parts::sizes(programs)?.as_object().context("no sizes")? {
        figures.push((name.clone(), number(value)?));
    }
    if process::is_root()? {
        figures.extend(verified(programs)?);
    }
    Ok(figures)
}

fn instructions_per_kill(programs: &Programs) -> Result<f64> {
    let [few, many] = KILLS.map(|kills| instructions(programs, &["--kills", &kills.to_string()]));
    Ok((many? - few?) as f64 / (KILLS[1] - KILLS[0]) as f64)
}

/// The same kills, each attributed once and many times: the other stages' tables have other hashes in each run.
fn instructions_per_attribution(programs: &Programs, containers: u64) -> Result<f64> {
    let (kills, containers) = (KILLS[1].to_string(), containers.to_string());
    let of = |times| ["--kills", &*kills, "--containers", &*containers, "--attributions", times];
    let [once, often] = ["1", "21"].map(|times| instructions(programs, &of(times)));
    Ok((often? - once?) as f64 / (20 * KILLS[1]) as f64)
}

/// What callgrind counts for one replay.
fn instructions(programs: &Programs, options: &[&str]) -> Result<i64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(&programs.benches);
    valgrind.arg("replay").args(options);
    let output = valgrind.output().context("cannot start valgrind: run ./scripts/setup-dev.sh")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.with_context(|| format!("valgrind counted nothing: {text}"))
}

/// Instructions that this kernel's verifier went through, by hook; only a hook that is attached has them.
fn verified(programs: &Programs) -> Result<Vec<(String, f64)>> {
    let text = process::output(Command::new(&programs.agent).args(["check", "--output", "json"]))?;
    let check: Value = serde_json::from_str(&text).context("check wrote no JSON")?;
    let hooks = check["hooks"].as_array().context("check lists no hooks")?;
    let of = |hook: &Value| {
        let name = hook["hook"].as_str()?;
        Some((format!("verified_instructions_{name}"), hook["verified_instructions"].as_f64()?))
    };
    Ok(hooks.iter().filter_map(of).collect())
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} is no number"))
}
