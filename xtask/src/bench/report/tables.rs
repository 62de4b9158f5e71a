//! The tables of docs/performance.md, and the figures in its prose.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Figures,
    value::{grouped, list, mib, number, string},
};

/// The cases of `standing`, and what they are called.
const STANDING: [(&str, &str); 3] =
    [("standalone", "standalone"), ("containers", "containers known"), ("everything", "the same, API client with TLS")];

pub(super) fn machine(results: &Value) -> Result<String> {
    let machine = &results["machine"];
    let text = |name: &str| string(&machine[name]);
    let mut text = format!(
        "Machine: {}, {} CPUs (virtual), Linux {}, {}, commit {}. Load when it began {:.1}, when it ended {:.1}.\n",
        text("processor")?,
        machine["cpus"],
        text("kernel")?,
        text("rustc")?,
        text("commit")?,
        number(&machine["load_at_start"])?,
        number(&machine["load_at_end"])?,
    );
    let mut apart = Vec::new();
    for (part, machine) in results["apart"].as_object().into_iter().flatten() {
        let [start, end] = ["load_at_start", "load_at_end"].map(|load| number(&machine[load]));
        apart.push(format!("{part} ({}, load {:.1} to {:.1})", string(&machine["commit"])?, start?, end?));
    }
    if !apart.is_empty() {
        writeln!(text, "\nMeasured apart, each by its commit and load: {}.", apart.join(", "))?;
    }
    Ok(text)
}

pub(super) fn latency(results: &Value) -> Result<String> {
    let mut text = String::from(
        "| | kills | line: median | p99 | /metrics: median | p99 | polling: median | p99 | times ahead |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for case in list(&results["latency"]["cases"])? {
        let of = |what: &str, share: &str| number(&case[what][share]);
        let (line, polling) = (of("line", "median_ms")?, of("polling_100_ms", "median_ms")?);
        let (line_p99, metrics) = (of("line", "p99_ms")?, of("metrics", "median_ms")?);
        let (metrics_p99, polling_p99) = (of("metrics", "p99_ms")?, of("polling_100_ms", "p99_ms")?);
        writeln!(
            text,
            "| {} | {} | {line:.2} ms | {line_p99:.2} ms | {metrics:.2} ms | {metrics_p99:.2} ms | {polling:.1} ms | \
             {polling_p99:.1} ms | {:.0} |",
            string(&case["case"])?,
            case["kills"],
            polling / line
        )?;
    }
    Ok(text)
}

pub(super) fn kernel(results: &Value) -> Result<String> {
    let kernel = &results["latency"]["kernel"];
    let kills = &kernel["kills"];
    let mut text = format!("| program, during {kills} kills | runs | ns a run | ns a kill |\n|---|--:|--:|--:|\n");
    let mut all = 0.0;
    for program in list(&kernel["programs"])? {
        let [run, kill] = ["ns_per_run", "ns_per_kill"].map(|ns| number(&program[ns]));
        let kill = kill?;
        all += kill;
        writeln!(text, "| `{}` | {} | {:.0} | {kill:.0} |", string(&program["program"])?, program["runs"], run?)?;
    }
    writeln!(text, "| **a kill** | | | **{all:.0}** |")?;
    Ok(text)
}

/// Instructions that verifiers went through: of this machine and of the guests.
pub(super) fn verified(results: &Value) -> Result<String> {
    const HOOKS: [&str; 4] = ["mark_victim", "signal_generate", "out_of_memory", "memory_max_write"];
    let mut text = format!("| kernel | {} |\n|---|--:|--:|--:|--:|\n", HOOKS.join(" | "));
    let mut row = |kernel: &str, count: &dyn Fn(&str) -> Option<f64>| {
        let cells = HOOKS.map(|hook| count(hook).map_or_else(|| "–".to_owned(), grouped));
        writeln!(text, "| {kernel} | {} |", cells.join(" | "))
    };
    let own = &results["counts"];
    let kernel = string(&results["machine"]["kernel"])?;
    row(&format!("{kernel} (this machine)"), &|hook| own[format!("verified_instructions_{hook}")].as_f64())?;
    for guest in list(&results["verified"])? {
        let kernel = format!("{}, {}", string(&guest["kernel"])?, string(&guest["guest"])?);
        row(&kernel, &|hook| guest["hooks"][hook].as_f64())?;
    }
    Ok(text)
}

pub(super) fn standing(results: &Value) -> Result<String> {
    let standing = &results["standing"];
    let mut text = String::from(
        "| | RSS | of it anonymous | PSS | RSS after a scrape | peak | wake-ups in 10 s | CPU time in 10 s |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (name, title) in STANDING {
        let case = &standing[name];
        let seconds = number(&case["idle"]["seconds"])?;
        let disturbed = match case["idle"]["kills_of_others"].as_u64() {
            Some(0) => String::new(),
            kills => format!(" ({} kills of others meanwhile)", kills.context("not said whether others killed")?),
        };
        writeln!(
            text,
            "| {title} | {:.1} MiB | {:.1} MiB | {:.1} MiB | {:.1} MiB | {:.1} MiB | {:.2}{disturbed} | {:.0} µs |",
            mib(&case["steady"]["rss_kib"])?,
            mib(&case["steady"]["anonymous_kib"])?,
            mib(&case["steady"]["pss_kib"])?,
            mib(&case["after_a_scrape"]["rss_kib"])?,
            mib(&case["peak_kib"])?,
            10.0 * number(&case["idle"]["switches"])? / seconds,
            10.0 * number(&case["idle"]["cpu_us"])? / seconds,
        )?;
    }
    Ok(text)
}

/// Who woke up.
pub(super) fn threads(results: &Value) -> Result<String> {
    let mut text = String::from("| | thread | wake-ups | CPU time | in |\n|---|---|--:|--:|--:|\n");
    for (name, title) in STANDING {
        let idle = &results["standing"][name]["idle"];
        for thread in list(&idle["threads"])? {
            let (thread_name, switches, us) = (string(&thread["thread"])?, &thread["switches"], &thread["cpu_us"]);
            writeln!(text, "| {title} | `{thread_name}` | {switches} | {us} µs | {} s |", idle["seconds"])?;
        }
    }
    Ok(text)
}

pub(super) fn start(results: &Value) -> Result<String> {
    let start = &results["standing"]["start"];
    Ok(format!(
        "| exec → attached, median | best | a drill, median |\n|--:|--:|--:|\n| {:.0} ms | {:.0} ms | {:.0} ms |\n",
        number(&start["exec_to_attached_median_ms"])?,
        number(&start["exec_to_attached_min_ms"])?,
        number(&start["drill_median_ms"])?,
    ))
}

pub(super) fn stages(results: &Value) -> Result<String> {
    let runs = list(&results["stages"]["by_kills"])?;
    let run = runs.get(1).context("no run")?;
    let mut text = String::from("| stage | time | allocations | bytes allocated |\n|---|--:|--:|--:|\n");
    let mut total = [0.0; 3];
    for stage in list(&run["stages"])? {
        let row = [number(&stage["ns"])?, number(&stage["allocations"])?, number(&stage["allocated_bytes"])?];
        writeln!(text, "| {} | {:.0} ns | {:.1} | {:.0} |", string(&stage["stage"])?, row[0], row[1], row[2])?;
        total.iter_mut().zip(row).for_each(|(total, value)| *total += value);
    }
    let [ns, allocations, bytes] = total;
    writeln!(text, "| **a kill** | **{ns:.0} ns** | **{allocations:.1}** | **{bytes:.0}** |")?;
    writeln!(text, "\nThat is {:.0} kills a second on one CPU.", 1e9 / ns)?;
    Ok(text)
}

pub(super) fn by_containers(results: &Value) -> Result<String> {
    by(results, "by_containers", "containers")
}

pub(super) fn by_kills(results: &Value) -> Result<String> {
    by(results, "by_kills", "kills")
}

/// A row for each run, a column for each stage, and a plot of the whole.
fn by(results: &Value, runs: &str, what: &str) -> Result<String> {
    let runs = list(&results["stages"][runs])?;
    let names: Vec<&str> = list(&runs.first().context("no run")?["stages"])?
        .iter()
        .map(|stage| string(&stage["stage"]))
        .collect::<Result<_>>()?;
    let mut text = format!("| {what} | {} | all |\n|--:|{}--:|\n", names.join(" | "), "--:|".repeat(names.len()));
    let mut totals = Vec::new();
    for run in runs {
        let times: Vec<f64> = list(&run["stages"])?.iter().map(|stage| number(&stage["ns"])).collect::<Result<_>>()?;
        let total: f64 = times.iter().sum();
        let cells: Vec<String> = times.iter().map(|ns| format!("{ns:.0} ns")).collect();
        writeln!(text, "| {} | {} | {total:.0} ns |", run[what], cells.join(" | "))?;
        totals.push((run[what].to_string(), total));
    }
    Ok(text + "\n" + &plot(&format!("ns per kill, by {what}"), &totals))
}

pub(super) fn growth(results: &Value) -> Result<String> {
    let point = |point: &Value| Ok((point["kills"].to_string(), mib(&point["rss_kib"])?));
    let points = |of: &str| list(&results["growth"][of]["points"])?.iter().map(point).collect::<Result<Vec<_>>>();
    let replayed = plot("resident MiB after so many replayed kills", &points("replayed")?);
    Ok(replayed + "\n" + &plot("resident MiB of the agent after so many real kills", &points("agent")?))
}

pub(super) fn scrape(results: &Value) -> Result<String> {
    let mut text = String::from("| series about containers | time | bytes | allocations |\n|--:|--:|--:|--:|\n");
    for run in list(&results["scrape"])? {
        let (ns, allocations) = (number(&run["ns"])?, number(&run["allocations"])?);
        writeln!(text, "| {} | {:.2} ms | {} | {allocations:.0} |", run["series"], ns / 1e6, run["bytes"])?;
    }
    Ok(text)
}

pub(super) fn api(results: &Value) -> Result<String> {
    let mut text = String::from(
        "| kills | in pods | within | the last told after | pods asked for | Events made | Events raised | bytes sent |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for run in list(&results["api"])? {
        let [seconds, told] = ["seconds", "told_after_seconds"].map(|name| number(&run[name]));
        let (seconds, told) = (seconds?, told?);
        let [kills, pods, get, post, patch, bytes] =
            ["kills", "pods", "get", "post", "patch", "request_bytes"].map(|name| &run[name]);
        writeln!(text, "| {kills} | {pods} | {seconds:.0} s | {told:.0} s | {get} | {post} | {patch} | {bytes} |")?;
    }
    Ok(text)
}

pub(super) fn sizes(results: &Value) -> Result<String> {
    let sizes = &results["sizes"];
    let image = format!("{:.1} MiB", number(&results["image"]["compressed_bytes"])? / 1024.0 / 1024.0);
    let build = match results["cold_build"]["seconds"].as_f64() {
        Some(seconds) => format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0),
        None => "not timed".to_owned(),
    };
    Ok(format!(
        "| agent | kernel program | image, compressed | packages of others in the agent | release build from nothing |\n\
         |--:|--:|--:|--:|--:|\n| {:.1} MiB | {:.1} KiB | {image} | {} | {build} |\n",
        number(&sizes["agent_bytes"])? / 1024.0 / 1024.0,
        number(&sizes["object_bytes"])? / 1024.0,
        sizes["dependencies"],
    ))
}

/// What the prose names.
pub(super) fn figures(results: &Value) -> Result<Figures> {
    let records = |name: &str| Ok::<_, anyhow::Error>(grouped(number(&results["records"][name])?));
    let mut verified = 0.0;
    for (name, count) in results["counts"].as_object().context("no counts")? {
        verified += if name.starts_with("verified_instructions_") { number(count)? } else { 0.0 };
    }
    Ok(vec![
        ("kill_bytes", records("kill")?),
        ("further_bytes", records("further")?),
        ("longest_bytes", records("longest")?),
        ("incident_end_bytes", records("incident_end")?),
        ("ring_header_bytes", records("ring_header")?),
        ("ring_buffer_kib", grouped(number(&results["records"]["ring_buffer"])? / 1024.0)),
        ("kills_held", records("kills_held")?),
        ("further_held", records("further_held")?),
        ("instructions_per_kill", grouped(number(&results["counts"]["instructions_per_kill"])?)),
        ("verified_here", grouped(verified)),
        ("settled_seconds", results["standing"]["standalone"]["settled_seconds"].to_string()),
        ("idle_seconds", results["standing"]["standalone"]["idle"]["seconds"].to_string()),
        ("known_containers", results["standing"]["known_containers"].to_string()),
    ])
}

/// A line from point to point, drawn by whatever shows the page.
fn plot(title: &str, points: &[(String, f64)]) -> String {
    let (names, values): (Vec<_>, Vec<_>) =
        points.iter().map(|(name, value)| (name.clone(), format!("{value:.1}"))).unzip();
    let top = points.iter().map(|point| point.1).fold(0.0, f64::max) * 1.2;
    format!(
        "```mermaid\nxychart-beta\n    title \"{title}\"\n    x-axis [{}]\n    y-axis 0 --> {top:.0}\n    line [{}]\n```\n",
        names.join(", "),
        values.join(", ")
    )
}
