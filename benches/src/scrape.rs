//! Time and size of /metrics.

use anyhow::Result;
use serde::Serialize;
use stats_alloc::Region;

use crate::{ALLOCATOR, cpu_ns, node::Node};

/// Pages of one figure.
const PAGES: usize = 31;

/// How many series there are.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Series about containers
    #[arg(long, default_value_t = 500)]
    series: usize,
}

#[derive(Serialize)]
pub(crate) struct Scrape {
    series: usize,
    bytes: usize,
    /// Median CPU time of one page.
    ns: f64,
    allocations: f64,
}

/// Renders the page.
pub(crate) fn run(options: &Options) -> Result<Scrape> {
    // Zeros take at most half of the limit.
    let node = Node::new(options.series.saturating_sub(1), 2 * options.series)?;
    let page = node.exposition();
    let bytes = page.render()?.len();
    let region = Region::new(ALLOCATOR);
    let mut times = Vec::with_capacity(PAGES);
    for _ in 0..PAGES {
        let started = cpu_ns();
        std::hint::black_box(page.render()?);
        times.push(cpu_ns() - started);
    }
    let change = region.change();
    times.sort_by(f64::total_cmp);
    let allocations = (change.allocations + change.reallocations) as f64 / PAGES as f64;
    Ok(Scrape { series: options.series, bytes, ns: times[PAGES / 2], allocations })
}
