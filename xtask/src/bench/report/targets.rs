//! The targets, and by how much each is held or missed.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    latency, stages, standing,
    value::{list, number, samples},
};
use crate::bench::statistics::Spread;

/// A bound and what was measured against it.
struct Target {
    what: &'static str,
    bound: Bound,
    unit: &'static str,
    measured: fn(&Value) -> Result<Spread>,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}
use Bound::{AtLeast, AtMost};

const TARGETS: [Target; 25] = [
    target("kernel's hook → line, idle, on another CPU: median", AtMost(0.3), "ms", |results| {
        line(results, "idle, another CPU", 0.5)
    }),
    target("the same: p99", AtMost(5.0), "ms", |results| line(results, "idle, another CPU", 0.99)),
    target("on a loaded machine, on another CPU: p99", AtMost(5.0), "ms", |results| {
        line(results, "loaded, another CPU", 0.99)
    }),
    target("idle, on the same CPU: p99", AtMost(5.0), "ms", |results| line(results, "idle, same CPU", 0.99)),
    target("loaded, on the same CPU: p99", AtMost(5.0), "ms", |results| line(results, "loaded, same CPU", 0.99)),
    target("times ahead of polling each 100 ms, idle, on another CPU", AtLeast(50.0), "", |results| {
        ahead(results, "idle, another CPU")
    }),
    target("the same, loaded, on another CPU", AtLeast(50.0), "", |results| ahead(results, "loaded, another CPU")),
    target("the same, idle, on the same CPU", AtLeast(50.0), "", |results| ahead(results, "idle, same CPU")),
    target("the same, loaded, on the same CPU", AtLeast(50.0), "", |results| ahead(results, "loaded, same CPU")),
    target("wake-ups of the agent in 10 s, everything on", AtMost(1.0), "", |results| {
        Ok(standing::in_ten(results, "runs")?.into())
    }),
    target(
        "CPU time in 10 s, everything on: less than the kernel's own accounting sees",
        AtMost(10.0),
        "ms",
        |results| Ok((standing::in_ten(results, "cpu_us")? / 1e3).into()),
    ),
    target("resident, standalone", AtMost(4.0), "MB", |results| standing::resident(results, "standalone", "steady")),
    target("the same, right after a scrape", AtMost(4.0), "MB", |results| {
        standing::resident(results, "standalone", "after_a_scrape")
    }),
    target("resident, everything on", AtMost(8.0), "MB", |results| standing::resident(results, "everything", "steady")),
    target("the same, right after a scrape", AtMost(8.0), "MB", |results| {
        standing::resident(results, "everything", "after_a_scrape")
    }),
    target("peak, the largest of all cases", AtMost(24.0), "MB", standing::peak),
    target("resident after 100 000 replayed kills, divided by that after 20 000", AtMost(1.02), "×", flat),
    target("exec → attached", AtMost(150.0), "ms", standing::started),
    target(
        "instructions of attribution with 10 000 containers, divided by those with 10",
        AtMost(1.05),
        "×",
        |results| Ok(stages::attribution_instructions(results)?.into()),
    ),
    target("the same, its time", AtMost(2.0), "×", stages::attribution),
    target("the stage that grows most with 1 000 times as many containers: its time", AtMost(1000.0), "×", |results| {
        Ok(stages::by_more_containers(results)?.1)
    }),
    target("the stage that grows most from 10 000 to 100 000 kills: its time for each", AtMost(1.2), "×", |results| {
        Ok(stages::by_more_kills(results)?.1)
    }),
    target("group kill in a guest: victims told", AtLeast(1.0), "of all", |results| told(results, "group")),
    target("kills at once in a guest: told", AtLeast(1.0), "of all", |results| told(results, "at_once")),
    target("one kill at a time in a guest: told", AtLeast(1.0), "of all", |results| told(results, "alone")),
];

const fn target(
    what: &'static str,
    bound: Bound,
    unit: &'static str,
    measured: fn(&Value) -> Result<Spread>,
) -> Target {
    Target { what, bound, unit, measured }
}

/// A row for each target.
pub(super) fn table(results: &Value) -> Result<String> {
    let mut text = String::from("| | target | measured | |\n|---|--:|--:|---|\n");
    for Target { what, bound, unit, measured } in &TARGETS {
        let value = measured(results).with_context(|| format!("no figure for {what:?}"))?;
        let (sign, limit) = match bound {
            AtMost(limit) => ("≤", limit),
            AtLeast(limit) => ("≥", limit),
        };
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        let median = shown(value.median);
        writeln!(text, "| {what} | {sign} {limit}{unit} | {median}{unit} | {} |", verdict(bound, value, &unit))?;
    }
    Ok(text)
}

/// By the whole range: where the bound is inside it, another round might have said the other thing.
fn verdict(bound: &Bound, value: Spread, unit: &str) -> String {
    let over = |value: f64| match bound {
        AtMost(limit) => value - limit,
        AtLeast(limit) => limit - value,
    };
    let range =
        if value.min < value.max { format!(" ({} … {})", shown(value.min), shown(value.max)) } else { String::new() };
    match (over(value.min) > 0.0, over(value.max) > 0.0) {
        (false, false) => format!("held{range}"),
        (true, true) => format!("**missed by {}{unit}**{range}", shown(over(value.median))),
        _ => format!("**undecided**{range}"),
    }
}

/// With as many digits as say something.
fn shown(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn line(results: &Value, case: &str, share: f64) -> Result<Spread> {
    Ok(latency::ms(latency::case(results, case)?, latency::LINE, share)?.into())
}

fn ahead(results: &Value, case: &str) -> Result<Spread> {
    Ok(latency::ahead(latency::case(results, case)?)?.into())
}

/// Round by round: each is a process of its own.
fn flat(results: &Value) -> Result<Spread> {
    let points = list(&results["growth"]["replayed"]["points"])?;
    let at = |kills: u64| {
        let point = points.iter().find(|point| point["kills"] == kills).context("no such point")?;
        samples(&point["rss_kib"])
    };
    Spread::of(&at(20_000)?.iter().zip(at(100_000)?).map(|(few, many)| many / few).collect::<Vec<_>>())
}

fn told(results: &Value, what: &str) -> Result<Spread> {
    let own = list(&results["peers"]["watchers"])?.first().context("no watcher")?;
    Ok((number(&own[what]["told"])? / number(&own[what]["victims"])?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_the_digits_that_say_something() {
        assert_eq!([0.123, 12.34, 123.4].map(shown), ["0.12", "12.3", "123"]);
    }

    #[test]
    fn a_bound_inside_the_range_is_not_decided() {
        let of = |min, median, max| Spread { median, min, max };
        for (bound, value, expected) in [
            (AtMost(4.0), of(3.0, 3.5, 4.0), "held (3.00 … 4.00)"),
            (AtMost(4.0), of(3.0, 3.5, 4.1), "**undecided** (3.00 … 4.10)"),
            (AtMost(4.0), of(4.5, 5.0, 6.0), "**missed by 1.00 MB** (4.50 … 6.00)"),
            (AtLeast(4.0), of(3.0, 5.0, 6.0), "**undecided** (3.00 … 6.00)"),
            (AtLeast(4.0), 3.0.into(), "**missed by 1.00 MB**"),
            (AtLeast(4.0), 4.0.into(), "held"),
        ] {
            assert_eq!(verdict(&bound, value, " MB"), expected);
        }
    }
}
