//! What the agent tells about its names: how many, how old, and what stands in the way of more.

use std::{fmt, time::Instant};

use prometheus_client::encoding::DescriptorEncoder;

use super::{Telemetry, families, plain_counter, plain_gauge};
use crate::{
    exposition,
    names::{Problem, Stats, cri::CriStats},
};

/// The state of names at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamesState {
    /// Counts of the index and its feed.
    pub index: Stats,
    /// Why names may be missing or old.
    pub problem: Option<Problem>,
    /// Kills whose names are being searched for.
    pub searches: usize,
    /// Kills whose names were not searched for, because too many others' were.
    pub searches_refused: u64,
    /// Questions to the container runtime.
    pub cri: CriStats,
}

impl Telemetry {
    pub(super) fn encode_names(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let state = self.names.get().map(|read| read()).unwrap_or_default();
        encode_index(&state.index, page)?;
        let mut family = families::NAMES_DEGRADED.describe(page)?;
        for problem in Problem::ALL {
            let value = u32::from(state.problem == Some(problem));
            exposition::gauge(&mut family, &[("reason", problem.as_str())], value)?;
        }
        plain_gauge(&families::NAME_SEARCHES, page, state.searches as u64)?;
        plain_counter(&families::NAME_SEARCHES_REFUSED, page, state.searches_refused)?;
        let mut family = families::CRI_REQUESTS.describe(page)?;
        exposition::counter(&mut family, &[("result", "answered")], state.cri.answered)?;
        exposition::counter(&mut family, &[("result", "failed")], state.cri.failed)
    }
}

fn encode_index(index: &Stats, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = families::NAMES.describe(page)?;
    for (state, count) in [("live", index.live), ("gone", index.gone)] {
        exposition::gauge(&mut family, &[("state", state)], count as u64)?;
    }
    let mut family = families::NAMES_SCAN_AGE.describe(page)?;
    if let Some(last) = index.last_scan {
        family.encode_gauge(&Instant::now().saturating_duration_since(last).as_secs_f64())?;
    }
    plain_counter(&families::NAMES_SCANS, page, index.scans)?;
    plain_counter(&families::NAMES_ERRORS, page, index.errors)?;
    plain_counter(&families::NAMES_OVERFLOWS, page, index.overflows)?;
    let mut family = families::NAMES_LINKS.describe(page)?;
    for (outcome, count) in [("ignored", index.ignored), ("refused", index.refused), ("evicted", index.evicted)] {
        exposition::counter(&mut family, &[("outcome", outcome)], count)?;
    }
    Ok(())
}
