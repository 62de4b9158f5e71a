//! Whether memory grows with the kills that have been replayed.

use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{node::Node, recorded::Recorded, stages};

/// How much is replayed.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Kills, in all
    #[arg(long, default_value_t = 100_000)]
    kills: usize,
    /// Containers whose names are known
    #[arg(long, default_value_t = 500)]
    containers: usize,
}

/// Resident memory after so many kills.
#[derive(Serialize)]
struct Point {
    kills: usize,
    rss_kib: u64,
}

#[derive(Serialize)]
pub(crate) struct Growth {
    containers: usize,
    points: Vec<Point>,
}

/// Replays, and looks ten times.
pub(crate) fn run(options: &Options) -> Result<Growth> {
    let mut node = Node::new(options.containers, 5000)?;
    let mut recorded = Recorded::new()?;
    let step = options.kills.div_ceil(10).max(1);
    let mut points = vec![Point { kills: 0, rss_kib: rss_kib()? }];
    for kill in 0..options.kills {
        stages::one(&mut node, recorded.next(kill % options.containers), 1)?;
        if (kill + 1) % step == 0 {
            points.push(Point { kills: kill + 1, rss_kib: rss_kib()? });
        }
    }
    Ok(Growth { containers: options.containers, points })
}

fn rss_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")
}
