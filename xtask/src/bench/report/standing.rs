//! What docs/performance.md says of an agent that stands by, and of its start.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::value::{MB, list, number, ranged, samples, spread, string};
use crate::bench::{mappings, statistics::Spread};

/// The cases, and what they are called.
const CASES: [(&str, &str); 3] =
    [("standalone", "standalone"), ("containers", "containers known"), ("everything", "everything on")];

/// What the kinds of mappings are.
const MAPPINGS: [(&str, &str); mappings::KINDS.len()] = [
    ("text", "program text (shared with the page cache)"),
    ("constants", "constants of the program (the same, but for what is relocated)"),
    ("data", "its data"),
    ("ring", "ring buffer, mapped twice"),
    ("heap", "heap"),
    ("other", "stack and others"),
];

/// Megabytes.
pub(super) fn resident(results: &Value, case: &str, when: &str) -> Result<Spread> {
    Ok(spread(&results["standing"][case][when]["rss_kib"])?.times(MB))
}

/// Of each round the case with the largest peak, in megabytes.
pub(super) fn peak(results: &Value) -> Result<Spread> {
    let cases = CASES.map(|(case, _)| samples(&results["standing"][case]["peak_kib"]));
    let mut largest: Vec<f64> = Vec::new();
    for case in cases {
        let case = case?;
        largest.resize(case.len(), 0.0);
        largest.iter_mut().zip(case).for_each(|(most, peak)| *most = most.max(peak));
    }
    Ok(Spread::of(&largest)?.times(MB))
}

/// In ten seconds of the window in which nothing happens, everything on.
pub(super) fn in_ten(results: &Value, figure: &str) -> Result<f64> {
    per_ten(&results["standing"]["everything"]["idle"], figure)
}

fn per_ten(idle: &Value, figure: &str) -> Result<f64> {
    Ok(10.0 * number(&idle[figure])? / number(&idle["seconds"])?)
}

pub(super) fn memory(results: &Value) -> Result<String> {
    let mut text = String::from(
        "| | RSS | of it anonymous | PSS | RSS after a scrape | peak |\n\
         |---|--:|--:|--:|--:|--:|\n",
    );
    for (name, title) in CASES {
        let case = &results["standing"][name];
        let steady = &case["steady"];
        let mut cells = Vec::new();
        for figure in [
            &steady["rss_kib"],
            &steady["anonymous_kib"],
            &steady["pss_kib"],
            &case["after_a_scrape"]["rss_kib"],
            &case["peak_kib"],
        ] {
            cells.push(ranged(spread(figure)?.times(MB), "MB", 1));
        }
        writeln!(text, "| {title} | {} |", cells.join(" | "))?;
    }
    Ok(text)
}

/// What was resident, standalone before a scrape and after it, and with everything on.
pub(super) fn by_mapping(results: &Value) -> Result<String> {
    let mut text =
        String::from("| | standalone | after a scrape | more | everything on, steady |\n|---|--:|--:|--:|--:|\n");
    let mut total = [0.0; 3];
    let mut row = |title: &str, [before, after, everything]: [f64; 3]| {
        let more = after - before;
        writeln!(text, "| {title} | {before:.2} MB | {after:.2} MB | {more:.2} MB | {everything:.2} MB |")
    };
    for (kind, title) in MAPPINGS {
        let at = |case: &str, when: &str| -> Result<f64> {
            Ok(spread(&results["standing"][case][when]["mappings_kib"][kind])?.median * MB)
        };
        let of = [at("standalone", "steady")?, at("standalone", "after_a_scrape")?, at("everything", "steady")?];
        total.iter_mut().zip(of).for_each(|(total, one)| *total += one);
        row(title, of)?;
    }
    row("**all**", total)?;
    Ok(text)
}

/// What the agent does in a window in which nobody is killed.
pub(super) fn idle(results: &Value) -> Result<String> {
    let mut text = String::from(
        "| in 10 s | wake-ups | switches, voluntary | involuntary | CPU time | window |\n|---|--:|--:|--:|--:|--:|\n",
    );
    let everything = &results["standing"]["everything"];
    let quiet = CASES.map(|(name, title)| (title, &results["standing"][name]["idle"]));
    for (title, idle) in quiet.into_iter().chain([("everything on, as deployed", &everything["as_deployed"])]) {
        let disturbed = match idle["kills_of_others"].as_u64() {
            Some(0) => String::new(),
            kills => format!(", {} kills of others meanwhile", kills.context("not said whether others killed")?),
        };
        let [runs, voluntary, involuntary] = ["runs", "voluntary", "involuntary"].map(|figure| per_ten(idle, figure));
        let (runs, voluntary, involuntary, cpu) = (runs?, voluntary?, involuntary?, per_ten(idle, "cpu_us")?);
        let seconds = &idle["seconds"];
        writeln!(
            text,
            "| {title} | {runs:.2} | {voluntary:.2} | {involuntary:.2} | {cpu:.0} µs | {seconds} s{disturbed} |"
        )?;
    }
    Ok(text)
}

/// Who woke up.
pub(super) fn threads(results: &Value) -> Result<String> {
    let mut text = String::from("| | thread | wake-ups | CPU time | in |\n|---|---|--:|--:|--:|\n");
    for (name, title) in CASES {
        let idle = &results["standing"][name]["idle"];
        for thread in list(&idle["threads"])? {
            let (thread_name, runs, us) = (string(&thread["thread"])?, &thread["runs"], &thread["cpu_us"]);
            writeln!(text, "| {title} | `{thread_name}` | {runs} | {us} µs | {} s |", idle["seconds"])?;
        }
    }
    Ok(text)
}

/// Milliseconds of a start, without anything that is known.
pub(super) fn started(results: &Value) -> Result<Spread> {
    spread(&results["standing"]["start"]["exec_to_attached_ms"])
}

pub(super) fn start(results: &Value) -> Result<String> {
    let of = |case: &str| spread(&results["standing"][case]["start_ms"]).map(|spread| ranged(spread, "ms", 0));
    let starts = list(&results["standing"]["start"]["exec_to_attached_ms"])?.len();
    Ok(format!(
        "| exec → attached, {starts} times | with {} containers | everything on | a drill |\n|--:|--:|--:|--:|\n\
         | {} | {} | {} | {} |\n",
        results["standing"]["known_containers"],
        ranged(started(results)?, "ms", 0),
        of("containers")?,
        of("everything")?,
        ranged(spread(&results["standing"]["start"]["drill_ms"])?, "ms", 0),
    ))
}
