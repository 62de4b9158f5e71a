//! docs/scale.md: what was measured of one agent, made into a fleet.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Figures,
    value::{grouped, list, number, string},
};

/// The fleet of the page.
const NODES: f64 = 15_000.0;
const PODS: f64 = 110.0;
const SCRAPED_EVERY_S: f64 = 30.0;
/// Objects of a kill in a pod that had none lately, and how long an API server keeps Events by default.
const EVENT_KEPT_HOURS: f64 = 1.0;

/// What the server of the made-up fleet counted.
pub(super) fn table(results: &Value) -> Result<String> {
    let mut text = String::from(
        "| | agents | for | kills | pods asked for | Events made | Events raised | requests/s, settled | in the fleet | busiest second |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for case in list(&results["fleet"])? {
        let settled = number(&case["settled_per_second"])?;
        let (agents, kills) = (number(&case["agents"])?, number(&case["kills"])?);
        let [get, post, patch, busiest] = ["get", "post", "patch", "busiest_second"].map(|name| number(&case[name]));
        writeln!(
            text,
            "| {} | {} | {} s | {} | {} | {} | {} | {} | {} | {} |",
            string(&case["case"])?,
            grouped(agents),
            case["seconds"].as_f64().map(grouped).context("no length")?,
            grouped(kills),
            grouped(get?),
            grouped(post?),
            grouped(patch?),
            rate(settled),
            rate(settled * number(&case["one_in"])?),
            grouped(busiest?),
        )?;
    }
    Ok(text)
}

/// What kills cost the fleet, each in another pod, at the rates of the page.
pub(super) fn rates(results: &Value) -> Result<String> {
    let everything = &results["standing"]["everything"];
    let more = series_after_a_kill(results)?;
    let sent = number(&everything["asked"]["request_bytes"])?;
    let series_bytes = bytes_per_series(results)?;
    let mut text = String::from(
        "| kills a minute, in the fleet | requests/s | bytes sent to the API, a second | Events/min | Events kept in an hour | \
         series more, for an hour at least | bytes more in all scrapes, a second |\n|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for kills in [0.1, 10.0, 1_000.0] {
        let (hourly, per_second) = (kills * 60.0 * EVENT_KEPT_HOURS, kills / 60.0);
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            if kills < 1.0 { kills.to_string() } else { grouped(kills) },
            // The pod is asked for, and its Event is made.
            small(2.0 * per_second),
            small(sent * per_second),
            if kills < 1.0 { kills.to_string() } else { grouped(kills) },
            grouped(hourly),
            grouped(hourly * more),
            small(hourly * more * series_bytes / SCRAPED_EVERY_S),
        )?;
    }
    Ok(text)
}

/// With two digits that say something, where there are no more.
fn small(value: f64) -> String {
    match value {
        0.0..0.01 => format!("{value:.4}"),
        0.01..10.0 => format!("{value:.2}"),
        _ => grouped(value),
    }
}

fn series_after_a_kill(results: &Value) -> Result<f64> {
    let everything = &results["standing"]["everything"];
    Ok(number(&everything["page"]["series"])? - number(&everything["page_before_the_kill"]["series"])?)
}

fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.2}") } else { grouped(per_second) }
}

/// Every figure of the page.
pub(super) fn figures(results: &Value) -> Result<Figures> {
    let everything = &results["standing"]["everything"];
    let before = &everything["page_before_the_kill"];
    let own = number(&before["own_series"])?;
    let of_others = number(&before["own_series_of_others"])?;
    let more = series_after_a_kill(results)?;
    let series_bytes = bytes_per_series(results)?;
    let own_bytes = number(&before["bytes"])? - series_bytes * number(&before["series_of_containers"])?;
    let page = own_bytes + PODS * series_bytes;
    let sent = number(&everything["asked"]["request_bytes"])?;
    let millions = |series: f64| format!("{:.2} million", series / 1e6);
    let zeros = NODES * PODS;
    // At the largest of the three rates of kills.
    let hourly = 1_000.0 * 60.0 * EVENT_KEPT_HOURS;
    Ok(vec![
        ("own_series", grouped(own)),
        ("own_series_of_others", grouped(of_others)),
        ("series_after_a_kill", grouped(more)),
        ("own_kb", format!("{:.1}", own_bytes / 1e3)),
        ("series_bytes", grouped(series_bytes)),
        ("kill_request_bytes", grouped(sent)),
        ("fleet_own_series", millions(NODES * own)),
        ("fleet_zero_series", millions(zeros)),
        ("fleet_series", millions(NODES * own + zeros)),
        ("fleet_series_without_others", millions(NODES * (own - of_others) + zeros)),
        ("fleet_killed_series", millions(hourly * more)),
        ("page_kb", format!("{:.1}", page / 1e3)),
        ("page_kb_per_second", format!("{:.1}", page / 1e3 / SCRAPED_EVERY_S)),
        ("fleet_mb_per_second", format!("{:.1}", NODES * page / 1e6 / SCRAPED_EVERY_S)),
        ("fleet_samples_per_second", grouped(NODES * (own + PODS) / SCRAPED_EVERY_S)),
        ("kill_us", format!("{:.0}", kill_ns(results)? / 1e3)),
        ("kills_held", grouped(number(&results["records"]["kills_held"])?)),
        ("kills_per_second", grouped((1e9 / kill_ns(results)? / 1e3).floor() * 1e3)),
    ])
}

/// What one more series takes of a page, from the largest page that was measured and the smallest.
fn bytes_per_series(results: &Value) -> Result<f64> {
    let pages = list(&results["scrape"])?;
    let (few, many) = (pages.first().context("no page")?, pages.last().context("no page")?);
    let more = |name: &str| Ok::<_, anyhow::Error>(number(&many[name])? - number(&few[name])?);
    Ok(more("bytes")? / more("series")?)
}

/// All stages of one kill, in the run that docs/performance.md shows.
fn kill_ns(results: &Value) -> Result<f64> {
    let run = list(&results["stages"]["by_kills"])?.get(1).context("no run")?;
    list(&run["stages"])?.iter().map(|stage| number(&stage["ns"])).sum()
}
