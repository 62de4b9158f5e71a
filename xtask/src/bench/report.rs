//! Results → docs/performance.md. Pure but for the writing: no figure of the page is typed by hand.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::paths;

const PAGE: &str = "docs/performance.md";
/// What stands between the figures; the places of the tables are marked.
const TEMPLATE: &str = include_str!("../../../benches/performance.md");

/// Renders the page.
pub(super) fn write(results: &Value) -> Result<()> {
    let file = paths::workspace().join(PAGE);
    fs::write(&file, page(results)?).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{PAGE} is written");
    Ok(())
}

/// The template with its marks replaced.
fn page(results: &Value) -> Result<String> {
    let mut page = TEMPLATE.to_owned();
    for (mark, table) in [
        ("machine", machine as fn(&Value) -> Result<String>),
        ("latency", latency),
        ("kernel", kernel),
        ("standing", standing),
        ("start", start),
        ("stages", stages),
        ("containers", by_containers),
        ("kills", by_kills),
        ("growth", growth),
        ("scrape", scrape),
        ("api", api),
        ("sizes", sizes),
    ] {
        let text = table(results).with_context(|| format!("the results do not give {mark}"))?;
        page = page.replace(&format!("<!-- {mark} -->\n"), &text);
    }
    Ok(page)
}

fn machine(results: &Value) -> Result<String> {
    let machine = &results["machine"];
    let text = |name: &str| machine[name].as_str().with_context(|| format!("no {name}"));
    Ok(format!(
        "Machine: {}, {} CPUs (virtual), Linux {}, {}, commit {}. Load when it began {:.1}, when it ended {:.1}.\n",
        text("processor")?,
        machine["cpus"],
        text("kernel")?,
        text("rustc")?,
        text("commit")?,
        number(&machine["load_at_start"])?,
        number(&machine["load_at_end"])?,
    ))
}

fn latency(results: &Value) -> Result<String> {
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

fn kernel(results: &Value) -> Result<String> {
    let kernel = &results["latency"]["kernel"];
    let mut text = format!(
        "| program, by how often it ran during {} kills | runs | ns per run |\n|---|--:|--:|\n",
        kernel["kills"]
    );
    for (number_of, program) in list(&kernel["programs"])?.iter().enumerate() {
        let ns = number(&program["ns_per_run"])?;
        writeln!(text, "| {} | {} | {ns:.0} |", number_of + 1, program["runs"])?;
    }
    Ok(text)
}

fn standing(results: &Value) -> Result<String> {
    let standing = &results["standing"];
    let mut text = String::from(
        "| | RSS | of it anonymous | PSS | RSS after a scrape | peak | switches | CPU time |\n|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (name, title) in
        [("standalone", "standalone"), ("containers", "500 containers"), ("everything", "500 containers, API client")]
    {
        let case = &standing[name];
        let mib = |value: &Value| Ok::<_, anyhow::Error>(number(value)? / 1024.0);
        let seconds = number(&case["idle"]["seconds"])?;
        writeln!(
            text,
            "| {title} | {:.1} MiB | {:.1} MiB | {:.1} MiB | {:.1} MiB | {:.1} MiB | {:.2} in 10 s | {:.0} µs in 10 s |",
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

fn start(results: &Value) -> Result<String> {
    let start = &results["standing"]["start"];
    Ok(format!(
        "| exec → attached, median | best | a drill, median |\n|--:|--:|--:|\n| {:.0} ms | {:.0} ms | {:.0} ms |\n",
        number(&start["exec_to_attached_median_ms"])?,
        number(&start["exec_to_attached_min_ms"])?,
        number(&start["drill_median_ms"])?,
    ))
}

fn stages(results: &Value) -> Result<String> {
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

fn by_containers(results: &Value) -> Result<String> {
    by(results, "by_containers", "containers")
}

fn by_kills(results: &Value) -> Result<String> {
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

fn growth(results: &Value) -> Result<String> {
    let points = list(&results["growth"]["points"])?;
    let point = |point: &Value| Ok((point["kills"].to_string(), number(&point["rss_kib"])? / 1024.0));
    Ok(plot("resident MiB after so many kills", &points.iter().map(point).collect::<Result<Vec<_>>>()?))
}

fn scrape(results: &Value) -> Result<String> {
    let mut text = String::from("| series about containers | time | bytes | allocations |\n|--:|--:|--:|--:|\n");
    for run in list(&results["scrape"])? {
        let (ns, allocations) = (number(&run["ns"])?, number(&run["allocations"])?);
        writeln!(text, "| {} | {:.2} ms | {} | {allocations:.0} |", run["series"], ns / 1e6, run["bytes"])?;
    }
    Ok(text)
}

fn api(results: &Value) -> Result<String> {
    let mut text = String::from(
        "| kills in one container | within | pods asked for | Events made | Events raised | bytes sent |\n|--:|--:|--:|--:|--:|--:|\n",
    );
    for run in list(&results["api"])? {
        let seconds = number(&run["seconds"])?;
        let [kills, get, post, patch, bytes] =
            ["kills", "get", "post", "patch", "request_bytes"].map(|name| &run[name]);
        writeln!(text, "| {kills} | {seconds:.0} s | {get} | {post} | {patch} | {bytes} |")?;
    }
    Ok(text)
}

fn sizes(results: &Value) -> Result<String> {
    let sizes = &results["sizes"];
    Ok(format!(
        "| agent | kernel program | packages of others in it |\n|--:|--:|--:|\n| {:.1} MiB | {:.1} KiB | {} |\n",
        number(&sizes["agent_bytes"])? / 1024.0 / 1024.0,
        number(&sizes["object_bytes"])? / 1024.0,
        sizes["dependencies"],
    ))
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

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("not a list")
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} is no number"))
}

fn string(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_kept_results_give() {
        let committed = fs::read_to_string(paths::workspace().join(PAGE)).unwrap();
        let rendered = page(&crate::bench::read().unwrap()).unwrap();
        assert!(committed == rendered, "{PAGE} is not that of its template and results: cargo xtask bench --render");
    }
}
