//! docs/scale.md: what was measured of one agent, made into a fleet.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Figures, stages,
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
        "| | agents | for | kills | pods asked for | Events made | Events raised | requests/s, settled | in the fleet | busiest second | in the fleet |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for case in list(&results["fleet"])? {
        let settled = number(&case["settled_per_second"])?;
        let (agents, kills) = (number(&case["agents"])?, number(&case["kills"])?);
        let [get, post, patch, busiest] = ["get", "post", "patch", "busiest_second"].map(|name| number(&case[name]));
        let (busiest, one_in) = (busiest?, number(&case["one_in"])?);
        writeln!(
            text,
            "| {} | {} | {} s | {} | {} | {} | {} | {} | {} | {} | {} |",
            string(&case["case"])?,
            grouped(agents),
            case["seconds"].as_f64().map(grouped).context("no length")?,
            grouped(kills),
            grouped(get?),
            grouped(post?),
            grouped(patch?),
            rate(settled),
            rate(settled * one_in),
            grouped(busiest),
            grouped(busiest * one_in),
        )?;
    }
    Ok(text)
}

/// What kills cost the fleet, each in another pod, at the rates of the page.
pub(super) fn rates(results: &Value) -> Result<String> {
    let more = More::of(results)?;
    let sent = number(&results["standing"]["everything"]["asked"]["request_bytes"])?;
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
            grouped(more.after(hourly)),
            small(more.after(hourly) * series_bytes / SCRAPED_EVERY_S),
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

/// Series that kills add to the pages.
struct More {
    /// Of the first kill in a container: what is counted of it, and its pod's controller.
    container: f64,
    pod: f64,
    /// Of an agent's first kill: how long attribution took.
    agent: f64,
}

impl More {
    fn of(results: &Value) -> Result<Self> {
        let everything = &results["standing"]["everything"];
        let of = |name: &str| -> Result<f64> {
            Ok(number(&everything["page"][name])? - number(&everything["page_before_the_kill"][name])?)
        };
        Ok(Self { container: of("series_of_containers")?, pod: of("series_of_pods")?, agent: of("own_series")? })
    }

    /// Of so many kills, each in another pod, and on another node as long as there are any.
    fn after(&self, kills: f64) -> f64 {
        kills * (self.container + self.pod) + kills.min(NODES) * self.agent
    }
}

fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.2}") } else { grouped(per_second) }
}

/// Every figure of the page.
pub(super) fn figures(results: &Value) -> Result<Figures> {
    let everything = &results["standing"]["everything"];
    let before = &everything["page_before_the_kill"];
    let own = number(&before["own_series"])?;
    let without_api = number(&results["standing"]["containers"]["page"]["own_series"])?;
    let more = More::of(results)?;
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
        ("own_series_without_api", grouped(without_api)),
        ("series_of_container", grouped(more.container)),
        ("series_of_pod", grouped(more.pod)),
        ("series_of_kill", grouped(more.container + more.pod)),
        ("series_of_agent", grouped(more.agent)),
        ("own_kb", format!("{:.1}", own_bytes / 1e3)),
        ("series_bytes", grouped(series_bytes)),
        ("kill_request_bytes", grouped(sent)),
        ("fleet_own_series", millions(NODES * own)),
        ("fleet_zero_series", millions(zeros)),
        ("fleet_series", millions(NODES * own + zeros)),
        ("fleet_series_without_api", millions(NODES * without_api + zeros)),
        ("fleet_killed_series", millions(more.after(hourly))),
        ("page_kb", format!("{:.1}", page / 1e3)),
        ("page_kb_per_second", format!("{:.1}", page / 1e3 / SCRAPED_EVERY_S)),
        ("fleet_mb_per_second", format!("{:.1}", NODES * page / 1e6 / SCRAPED_EVERY_S)),
        ("fleet_samples_per_second", grouped(NODES * (own + PODS) / SCRAPED_EVERY_S)),
        ("kill_us", format!("{:.0}", stages::kill_ns(results)? / 1e3)),
        ("kills_held", grouped(number(&results["records"]["kills_held"])?)),
        ("kills_per_second", stages::per_second(results)?),
    ])
}

/// What one more series takes of a page, from the largest page that was measured and the smallest.
fn bytes_per_series(results: &Value) -> Result<f64> {
    let pages = list(&results["scrape"])?;
    let (few, many) = (pages.first().context("no page")?, pages.last().context("no page")?);
    let more = |name: &str| Ok::<_, anyhow::Error>(number(&many[name])? - number(&few[name])?);
    Ok(more("bytes")? / more("series")?)
}
