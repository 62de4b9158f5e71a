//! What to do on this machine: a pure function from facts to a plan.
//!
//! The plan says where things are in this kernel, which hooks to try in which order, and for everything that is not given, why.
//! No kernel version is ever compared: 5.10.223 and 5.10.262 differ in the one tracepoint that matters most. Where the type
//! information leaves a doubt, the field is absent. Attaching is not this module's business; it rules out only what cannot work.

mod hooks;
mod layout;
mod stats;
#[cfg(test)]
mod tests;

use oom_watcher_common::layout::{Layout, MARK_VICTIM_PID, MARK_VICTIM_TASK};

pub use hooks::{Hook, HookPlan, Method, RuledOut};

use super::btf::{ArgKind, Btf, BtfError};
use super::facts::{BtfUnavailable, Facts, Lockdown, MemoryCgroup};

/// Why nothing certain can be reported on this machine, with the remedy.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PlanError {
    /// Without it neither the form of `mark_victim` nor any offset is known, and a guess would report a pointer as a pid.
    #[error(
        "the kernel's type information (BTF) is needed and cannot be used; a kernel built with CONFIG_DEBUG_INFO_BTF=y \
         offers it in /sys/kernel/btf/vmlinux"
    )]
    NoBtf {
        /// Why not.
        #[source]
        source: BtfUnavailable,
    },
    /// The kernel refuses programs that read kernel memory, which is all that the program does.
    #[error(
        "kernel lockdown is in mode \"confidentiality\", in which no program may read kernel memory: no kill can be seen; \
         boot with lockdown=integrity, which Secure Boot is content with, or without lockdown"
    )]
    Lockdown,
    /// Programs of this kind cannot be loaded.
    #[error(
        "missing capabilities: {}; run as root, or grant them (in Kubernetes: securityContext.capabilities.add of BPF and \
         PERFMON)",
        .missing.join(", ")
    )]
    MissingCapabilities {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// There is nothing to attach to.
    #[error("the kernel has no tracepoint oom:mark_victim (or does not describe it); it needs CONFIG_TRACEPOINTS=y")]
    NoMarkVictim {
        /// What BTF says.
        #[source]
        source: BtfError,
    },
    /// It carries something that this version does not know.
    #[error(
        "tracepoint oom:mark_victim carries {args:?}, neither a task nor a pid; a newer version of this program may know it"
    )]
    UnknownMarkVictim {
        /// Its arguments.
        args: Vec<ArgKind>,
    },
}

/// Something that this kernel does not give, or not to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingField {
    /// The kernel's name for it.
    pub field: &'static str,
    /// What a report lacks for it.
    pub costs: &'static str,
    /// Why it is missing.
    pub reason: String,
}

/// What `mem_cgroup`'s second counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapCounter {
    /// Swap alone (cgroup v2).
    Swap,
    /// Memory and swap together (cgroup v1).
    MemoryAndSwap,
}

/// What to do on this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The kernel program's read-only global.
    pub layout: Layout,
    /// Every hook, the required one first.
    pub hooks: Vec<HookPlan>,
    /// What reports will lack.
    pub missing: Vec<MissingField>,
    /// Bytes of a page.
    pub page_size: usize,
    /// CPUs that could ever be online, for the error bound of counters that are not exact; `None` when not known.
    pub possible_cpus: Option<u32>,
    /// What `swap_usage_pages` counts; `None` when the cgroup version is not known.
    pub swap_counter: Option<SwapCounter>,
}

/// Turns facts into a plan.
pub fn plan(facts: &Facts) -> Result<Plan, PlanError> {
    can_load(facts)?;
    let btf = facts.btf.as_ref().map_err(|source| PlanError::NoBtf { source: source.clone() })?;
    let mark_victim_mode = mark_victim_mode(btf)?;
    let mut missing = Missing::default();
    let mut layout = layout::resolve(facts, btf, &mut missing);
    layout.mark_victim_mode = mark_victim_mode;
    let hooks = hooks::plan(facts, btf, &layout);
    if mark_victim_mode == MARK_VICTIM_PID {
        missing_task(&hooks, &mut missing);
    }
    Ok(Plan {
        layout,
        hooks,
        missing: missing.0,
        page_size: facts.page_size,
        possible_cpus: facts.possible_cpus.as_ref().ok().map(|cpus| cpus.count),
        swap_counter: match facts.memory_cgroup {
            Ok(MemoryCgroup::V1(_)) => Some(SwapCounter::MemoryAndSwap),
            Ok(MemoryCgroup::V2(_)) => Some(SwapCounter::Swap),
            Ok(MemoryCgroup::None) | Err(_) => None,
        },
    })
}

/// Whether the kernel would take the program at all. Facts that could not be read rule nothing out: loading will tell.
fn can_load(facts: &Facts) -> Result<(), PlanError> {
    if let Ok(capabilities) = facts.capabilities
        && !capabilities.sys_admin
    {
        let needed = [("CAP_BPF", capabilities.bpf), ("CAP_PERFMON", capabilities.perfmon)];
        let missing: Vec<_> = needed.into_iter().filter(|&(_, has)| !has).map(|(name, _)| name).collect();
        if !missing.is_empty() {
            return Err(PlanError::MissingCapabilities { missing });
        }
    }
    if facts.lockdown == Ok(Lockdown::Confidentiality) {
        return Err(PlanError::Lockdown);
    }
    Ok(())
}

/// Which form of the tracepoint this kernel has. Both forms attach to any program, and the wrong one reports a truncated
/// pointer as a pid, so that anything but the two known forms is an error.
fn mark_victim_mode(btf: &Btf) -> Result<u32, PlanError> {
    let args = btf.raw_tracepoint_args("mark_victim").map_err(|source| PlanError::NoMarkVictim { source })?;
    match args.first() {
        Some(ArgKind::Pointer(to)) if to == "task_struct" => Ok(MARK_VICTIM_TASK),
        Some(ArgKind::Int { size: 4 }) => Ok(MARK_VICTIM_PID),
        _ => Err(PlanError::UnknownMarkVictim { args }),
    }
}

/// Where the mark carries only a pid, the signal has the task; without it the pid is all.
fn missing_task(hooks: &[HookPlan], missing: &mut Missing) {
    let signal = hooks.iter().find(|hook| hook.hook == Hook::SignalGenerate);
    if let Some(signal) = signal.filter(|signal| signal.methods.is_empty()) {
        let reason = signal.ruled_out.iter().map(|ruled_out| ruled_out.reason.as_str()).collect::<Vec<_>>().join("; ");
        let reason = format!("mark_victim carries only a pid, and signal_generate cannot be used: {reason}");
        missing.add("oom:mark_victim task", "victim (all but pid), cgroup, attribution", reason);
    }
}

/// What is missing, as it is found.
#[derive(Debug, Default)]
struct Missing(Vec<MissingField>);

impl Missing {
    fn add(&mut self, field: &'static str, costs: &'static str, reason: impl Into<String>) {
        self.0.push(MissingField { field, costs, reason: reason.into() });
    }
}
