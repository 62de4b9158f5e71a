//! Facts → plan → hooks: loaded, or taken over from the watcher before.

use std::{error::Error, path::Path};

use tracing::{info, warn};

use crate::{
    clock,
    config::Config,
    kernel::{
        facts::{Facts, Roots},
        load::{self, Loaded},
        pin::{self, PinDir, Predecessor},
        plan::{self, Plan},
    },
    past::Past,
    run::RunError,
};

/// What watches.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Hooks {
    /// What this kernel gives.
    pub plan: Plan,
    /// The programs.
    pub loaded: Loaded,
    /// The directory that they are pinned in, locked; none: they end with this process.
    pub pins: Option<PinDir>,
    /// What was there before.
    pub past: Past,
}

/// Attaches for this process alone. The facts, with 5 MB of BTF, are gone when this returns.
pub fn attach(ring_buffer_bytes: u32) -> Result<(Plan, Loaded), RunError> {
    let plan = plan()?;
    let loaded = load::load(&plan, ring_buffer_bytes).map_err(RunError::Load)?;
    Ok((plan, loaded))
}

/// Attaches as configured: takes over what is pinned, or attaches and pins.
pub fn attach_as(config: &Config) -> Result<Hooks, RunError> {
    let started_ns = clock::boot_ns();
    let Some((dir, pins)) = pin_dir(config.pin_dir.as_deref())? else {
        let (plan, loaded) = attach(config.ring_buffer_bytes)?;
        let past = Past::new(started_ns, loaded.counters_id);
        return Ok(Hooks { plan, loaded, pins: None, past });
    };
    let plan = plan()?;
    let name = pin::name(&plan, config.ring_buffer_bytes);
    if let Some(loaded) = adopt(&pins, &name, &plan) {
        info!(pin = name, "Took over the hooks of the watcher before");
        let past = Past::new(started_ns, loaded.counters_id);
        return Ok(Hooks { plan, loaded, pins: Some(pins), past });
    }
    let mut loaded = load::load(&plan, config.ring_buffer_bytes).map_err(RunError::Load)?;
    let handed_over_ns = clock::boot_ns();
    let predecessors = detach_others(&pins, &name, dir);
    let past = Past::new(started_ns, loaded.counters_id).after(predecessors, handed_over_ns);
    if let Err(error) = pins.publish(&name, &mut loaded) {
        warn!(error = &error as &dyn Error, "The hooks are not pinned, and will end with this watcher");
        drop(loaded);
        let loaded = load::load(&plan, config.ring_buffer_bytes).map_err(RunError::Load)?;
        let past = past.with_counters(loaded.counters_id);
        return Ok(Hooks { plan, loaded, pins: None, past });
    }
    Ok(Hooks { plan, loaded, pins: Some(pins), past })
}

/// The directory for pins, where one is wanted and can be had.
fn pin_dir(path: Option<&Path>) -> Result<Option<(&Path, PinDir)>, RunError> {
    let Some(path) = path else { return Ok(None) };
    match PinDir::open(path) {
        Ok(pins) => Ok(Some((path, pins))),
        Err(error) if error.is_fatal() => Err(RunError::Pin(error)),
        Err(error) => {
            warn!(error = &error as &dyn Error, "The hooks are not pinned, and will end with this watcher");
            Ok(None)
        }
    }
}

fn plan() -> Result<Plan, RunError> {
    let facts = Facts::probe(&Roots::default());
    plan::plan(&facts).map_err(RunError::Plan)
}

/// A pin that cannot be used is removed: it would stand in the way of the next.
fn adopt(pins: &PinDir, name: &str, plan: &Plan) -> Option<Loaded> {
    let error = match pins.adopt(name, &plan.hooks) {
        Ok(loaded) => return loaded,
        Err(error) => error,
    };
    warn!(error = &error as &dyn Error, "What is pinned cannot be taken over, and is replaced");
    if let Err(error) = pins.remove(name) {
        warn!(error = &error as &dyn Error, "What is pinned cannot be removed");
    }
    None
}

fn detach_others(pins: &PinDir, name: &str, dir: &Path) -> Vec<Predecessor> {
    let predecessors = pins.detach_others(name).unwrap_or_else(|error| {
        warn!(error = &error as &dyn Error, dir = %dir.display(), "Pins of other programs may be left");
        Vec::new()
    });
    for predecessor in &predecessors {
        info!(pin = %predecessor.path().display(), "Replaced the hooks of a watcher with another program");
    }
    predecessors
}
