//! Plan → programs in the kernel. It and its neighbours here are the only modules that name aya; [`unparsed`] keeps aya from parsing the kernel's BTF.
//!
//! Hooks beside `mark_victim` are tried one method after another; each failure is kept with its reason, and costs fields,
//! never events. `mark_victim` comes last, so that the first victim finds the other hooks in place.

mod own;
mod unparsed;

use std::{
    collections::HashMap,
    error::Error,
    ops::{Deref, DerefMut},
    os::fd::AsFd as _,
    panic::resume_unwind,
    thread,
};

use aya::{
    EbpfError,
    maps::{Array, Map, MapData, MapError, RingBuf},
    programs::{
        FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint,
        kprobe::KProbeLink,
        links::{FdLink, LinkError},
    },
};
use oom_watcher_common::layout::{Layout, hook as hook_bit};

pub use own::{OwnCgroupError, own_cgroup};

use crate::{error, escape::escaped_within};

use super::btf::TypeId;
use super::counters::Counters;
use super::plan::{Hook, HookPlan, Method, Plan};

/// Bytes of a reason, at most.
const REASON_MAX: usize = 4096;

/// The kernel program, built by `cargo xtask build-ebpf`.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/oom-watcher.bpf.o");

/// Why the watcher could not start in this kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The object or its maps were refused.
    #[error("the kernel refused the program's maps ({hint})")]
    Maps {
        /// What usually helps.
        hint: &'static str,
        /// The kernel's words.
        #[source]
        source: EbpfError,
    },
    /// The object lacks a part: agent and object are of different builds.
    #[error("the embedded kernel program has no {0}")]
    Incomplete(&'static str),
    /// A map could not be used.
    #[error("cannot use the map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// The kernel's words.
        #[source]
        source: MapError,
    },
    /// The counters could not be mapped.
    #[error("cannot map the kernel program's counters")]
    Counters(#[source] std::io::Error),
    /// The limit of open files could not be put back.
    #[error("cannot set the limit of open files")]
    FileLimit(#[source] std::io::Error),
    /// Nothing can be seen without it.
    #[error("cannot attach to the tracepoint oom:mark_victim: {0}")]
    MarkVictim(String),
}

/// What became of one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookStatus {
    /// Which.
    pub hook: Hook,
    /// The method that attached; none: the hook is not there, and its fields are absent.
    pub attached: Option<Method>,
    /// Methods that did not, with the reason: ruled out by the plan, or refused by the kernel.
    pub failures: Vec<(Method, String)>,
    /// Instructions that the verifier went through to accept the attached programs; unknown before Linux 5.16.
    pub verified_instructions: Option<u32>,
}

/// The programs in the kernel. Dropping it detaches them.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Loaded {
    /// Records for the reader.
    pub events: RingBuf<MapData>,
    /// The kernel side's counters.
    pub counters: Counters,
    /// The kernel's identifier of the map of the counters: another one for each map of a boot, and rising.
    pub counters_id: u32,
    /// What became of each hook.
    pub hooks: Vec<HookStatus>,
    /// The programs and their links: they live as long as this.
    pub(super) programs: Programs,
}

/// Programs and links: held, until they are pinned. Dropping it detaches what is not pinned.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Programs {
    /// None: they were taken over, and their links hold them.
    _ebpf: Option<Ebpf>,
    counters: Option<MapData>,
    links: Vec<(&'static str, HookLink)>,
    _adopted: Vec<FdLink>,
}

/// One link of a program.
#[derive(Debug)]
pub(super) enum HookLink {
    /// The kernel's own object, which can be pinned.
    Object(FdLink),
    /// A probe by a perf event, before Linux 5.15 without such an object.
    Probe(KProbeLink),
}

impl TryFrom<HookLink> for FdLink {
    type Error = LinkError;

    fn try_from(link: HookLink) -> Result<Self, LinkError> {
        match link {
            HookLink::Object(link) => Ok(link),
            HookLink::Probe(link) => link.try_into(),
        }
    }
}

impl Programs {
    /// Those that another watcher has pinned.
    pub(super) fn adopted(links: Vec<FdLink>) -> Self {
        Self { _ebpf: None, counters: None, links: Vec::new(), _adopted: links }
    }

    /// The map of the counters, where this watcher has made it.
    pub(super) fn counters(&self) -> Option<&MapData> {
        self.counters.as_ref()
    }

    pub(super) fn take_links(&mut self) -> Vec<(&'static str, HookLink)> {
        std::mem::take(&mut self.links)
    }

    pub(super) fn keep(&mut self, program: &'static str, link: FdLink) {
        self.links.push((program, HookLink::Object(link)));
    }
}

/// The object as aya loads it, with the links that were taken out of it.
struct Ebpf {
    object: aya::Ebpf,
    links: Vec<(&'static str, HookLink)>,
}

impl Deref for Ebpf {
    type Target = aya::Ebpf;

    fn deref(&self) -> &aya::Ebpf {
        &self.object
    }
}

impl DerefMut for Ebpf {
    fn deref_mut(&mut self) -> &mut aya::Ebpf {
        &mut self.object
    }
}

/// The read-only global, as aya wants it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Global(Layout);

// SAFETY: `Layout` is `repr(C)` and consists of u32 and u64 without padding (asserted where it is defined), so every byte of
// it is initialised and any bit pattern is valid.
unsafe impl aya::Pod for Global {}

/// Loads the programs that the plan calls for and attaches them.
pub fn load(plan: &Plan, ring_buffer_size: u32) -> Result<Loaded, LoadError> {
    let global = Global(plan.layout);
    let object = unparsed::loader()
        .map_err(LoadError::FileLimit)?
        .override_global("LAYOUT", &global, true)
        .map_max_entries("EVENTS", ring_buffer_size)
        .load(OBJECT)
        .map_err(|source| LoadError::Maps { hint: hint(&source), source })?;
    let mut ebpf = Ebpf { object, links: Vec::new() };
    let events =
        RingBuf::try_from(take(&mut ebpf, "EVENTS")?).map_err(|source| LoadError::Map { name: "EVENTS", source })?;
    let Map::Array(counters_map) = take(&mut ebpf, "COUNTERS")? else {
        return Err(LoadError::Incomplete("array COUNTERS"));
    };
    let counters = Counters::map(counters_map.fd().as_fd()).map_err(LoadError::Counters)?;
    let info = counters_map.info().map_err(|source| LoadError::Map { name: "COUNTERS", source })?;
    let tracepoints = load_tracepoints(&mut ebpf);
    let hooks = attach_all(&mut ebpf, &tracepoints, &plan.hooks)?;
    let links = std::mem::take(&mut ebpf.links);
    let programs = Programs { _ebpf: Some(ebpf), counters: Some(counters_map), links, _adopted: Vec::new() };
    Ok(Loaded { events, counters, counters_id: info.id(), hooks, programs })
}

impl Loaded {
    /// Takes it apart; the programs stay attached as long as the last part is kept.
    pub fn into_parts(self) -> (RingBuf<MapData>, Counters, Vec<HookStatus>, Programs) {
        (self.events, self.counters, self.hooks, self.programs)
    }
}

fn take(ebpf: &mut aya::Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Incomplete(name))
}

/// What became of loading each tracepoint's program, by its name.
type Verdicts = HashMap<String, Result<(), String>>;

/// The programs of the tracepoints, by the names of their hooks.
const TRACEPOINTS: [&str; 2] = ["mark_victim", "signal_generate"];

/// Loads the programs of the tracepoints, each on a thread of its own: nearly all of the time to start is the verifier's, and
/// it takes several at once. The threads are gone when this returns.
fn load_tracepoints(ebpf: &mut Ebpf) -> Verdicts {
    let load = |program: &mut RawTracePoint| program.load().map_err(|error| chain("load", &error));
    thread::scope(|scope| {
        let tracepoints = ebpf.programs_mut().filter_map(|(name, program)| match program {
            Program::RawTracePoint(program) if TRACEPOINTS.contains(&name) => {
                Some((name.to_owned(), scope.spawn(move || load(program))))
            }
            _ => None,
        });
        let loading: Vec<_> = tracepoints.collect();
        let joined =
            loading.into_iter().map(|(name, load)| (name, load.join().unwrap_or_else(|panic| resume_unwind(panic))));
        joined.collect()
    })
}

fn attach_all(ebpf: &mut Ebpf, tracepoints: &Verdicts, plans: &[HookPlan]) -> Result<Vec<HookStatus>, LoadError> {
    let mut bits = 0;
    let mut statuses = Vec::with_capacity(plans.len());
    for plan in plans.iter().filter(|plan| plan.hook != Hook::MarkVictim) {
        let status = attach(ebpf, tracepoints, plan);
        if status.attached.is_some() {
            bits |= match plan.hook {
                Hook::SignalGenerate => hook_bit::SIGNAL,
                Hook::MemoryMaxWrite => hook_bit::LIMIT_WRITE,
                // These two speak for themselves: a mark, and a filled incident slot.
                Hook::OutOfMemory | Hook::MarkVictim => 0,
            };
        }
        statuses.push(status);
    }
    set_hooks(ebpf, bits)?;
    let plan = plans.iter().find(|plan| plan.hook == Hook::MarkVictim);
    let status = attach(ebpf, tracepoints, plan.ok_or(LoadError::Incomplete("plan for oom:mark_victim"))?);
    if status.attached.is_none() {
        let reasons: Vec<String> = status.failures.into_iter().map(|(_, reason)| reason).collect();
        return Err(LoadError::MarkVictim(reasons.join("; ")));
    }
    statuses.insert(0, status);
    Ok(statuses)
}

fn set_hooks(ebpf: &mut Ebpf, bits: u32) -> Result<(), LoadError> {
    let map = ebpf.map_mut("HOOKS").ok_or(LoadError::Incomplete("HOOKS"))?;
    let mut hooks: Array<_, u32> = Array::try_from(map).map_err(|source| LoadError::Map { name: "HOOKS", source })?;
    hooks.set(0, bits, 0).map_err(|source| LoadError::Map { name: "HOOKS", source })
}

fn attach(ebpf: &mut Ebpf, tracepoints: &Verdicts, plan: &HookPlan) -> HookStatus {
    let mut failures: Vec<(Method, String)> =
        plan.ruled_out.iter().map(|out| (out.method, out.reason.clone())).collect();
    for &method in &plan.methods {
        match attach_by(ebpf, tracepoints, plan, method) {
            Ok(verified_instructions) => {
                return HookStatus { hook: plan.hook, attached: Some(method), failures, verified_instructions };
            }
            Err(reason) => failures.push((method, reason)),
        }
    }
    HookStatus { hook: plan.hook, attached: None, failures, verified_instructions: None }
}

/// Attaches one hook by one method: the instructions that the verifier went through, or the reason why not.
fn attach_by(ebpf: &mut Ebpf, tracepoints: &Verdicts, plan: &HookPlan, method: Method) -> Result<Option<u32>, String> {
    match (plan.hook, method) {
        (Hook::MarkVictim, Method::RawTracepoint) => raw_tracepoint(ebpf, tracepoints, "mark_victim"),
        (Hook::SignalGenerate, Method::RawTracepoint) => raw_tracepoint(ebpf, tracepoints, "signal_generate"),
        (Hook::OutOfMemory, Method::Fentry) => {
            fentry(ebpf, ("out_of_memory", plan.function), "oom_entry_fentry", "oom_return_fexit")
        }
        (Hook::OutOfMemory, Method::Kprobe) => {
            kprobe(ebpf, "out_of_memory", "oom_entry_kprobe", "oom_return_kretprobe")
        }
        (Hook::MemoryMaxWrite, Method::Fentry) => {
            fentry(ebpf, ("memory_max_write", plan.function), "limit_entry_fentry", "limit_return_fexit")
        }
        (Hook::MemoryMaxWrite, Method::Kprobe) => {
            kprobe(ebpf, "memory_max_write", "limit_entry_kprobe", "limit_return_kretprobe")
        }
        (hook, method) => Err(format!("the object has no program for {hook:?} by {method:?}")),
    }
}

fn raw_tracepoint(ebpf: &mut Ebpf, tracepoints: &Verdicts, name: &'static str) -> Result<Option<u32>, String> {
    tracepoints.get(name).cloned().unwrap_or_else(|| Err(format!("the object has no program {name}")))?;
    let program: &mut RawTracePoint = program(ebpf, name)?;
    let link =
        program.attach(name).and_then(|link| program.take_link(link)).map_err(|error| chain("attach", &error))?;
    let count = verified(&program.info());
    ebpf.links.push((name, HookLink::Object(link.into())));
    Ok(count)
}

/// The return first: a return without its entry is ignored by the program, an entry without its return is not.
fn fentry(
    ebpf: &mut Ebpf,
    (function, type_id): (&str, Option<TypeId>),
    entry: &'static str,
    exit: &'static str,
) -> Result<Option<u32>, String> {
    let type_id = type_id.ok_or_else(|| format!("the plan does not say where BTF has {function}"))?;
    let btf = unparsed::function(function, type_id).map_err(|error| chain("describe the function", &error))?;
    let program_exit: &mut FExit = program(ebpf, exit)?;
    program_exit.load(function, &btf).map_err(|error| chain("load fexit", &error))?;
    let link = program_exit.attach().and_then(|link| program_exit.take_link(link));
    // Dropped by the next failure, it detaches.
    let link_exit = link.map_err(|error| chain("attach fexit", &error))?;
    let count = verified(&program_exit.info());
    let program: &mut FEntry = program(ebpf, entry)?;
    program.load(function, &btf).map_err(|error| chain("load fentry", &error))?;
    let link = program.attach().and_then(|link| program.take_link(link));
    let link = link.map_err(|error| chain("attach fentry", &error))?;
    let count = sum(count, verified(&program.info()));
    ebpf.links.push((exit, HookLink::Object(link_exit.into())));
    ebpf.links.push((entry, HookLink::Object(link.into())));
    Ok(count)
}

/// As [`fentry`]. Each attach asks for `perf_event_open`, which `perf_event_paranoid` above 2 refuses without CAP_SYS_ADMIN.
fn kprobe(ebpf: &mut Ebpf, function: &str, entry: &'static str, exit: &'static str) -> Result<Option<u32>, String> {
    let program_exit: &mut KProbe = program(ebpf, exit)?;
    program_exit.load().map_err(|error| chain("load kretprobe", &error))?;
    let link = program_exit.attach(function, 0).and_then(|link| program_exit.take_link(link));
    // Dropped by the next failure, it detaches.
    let link_exit = link.map_err(|error| chain("attach kretprobe", &error))?;
    let count = verified(&program_exit.info());
    let program: &mut KProbe = program(ebpf, entry)?;
    program.load().map_err(|error| chain("load kprobe", &error))?;
    let link = program.attach(function, 0).and_then(|link| program.take_link(link));
    let link = link.map_err(|error| chain("attach kprobe", &error))?;
    let count = sum(count, verified(&program.info()));
    ebpf.links.push((exit, HookLink::Probe(link_exit)));
    ebpf.links.push((entry, HookLink::Probe(link)));
    Ok(count)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    program.try_into().map_err(|error| chain("use", &error))
}

fn verified(info: &Result<aya::programs::ProgramInfo, ProgramError>) -> Option<u32> {
    info.as_ref().ok()?.verified_instruction_count()
}

fn sum(first: Option<u32>, second: Option<u32>) -> Option<u32> {
    Some(first? + second?)
}

/// An error with its causes on one line. Of the verifier's log, which can have megabytes, the middle is left out: it begins with
/// the cause and ends with the instruction.
fn chain(operation: &str, error: &(dyn Error + 'static)) -> String {
    let text = format!("{operation}: {}", error::chain(error));
    escaped_within(&text.split_whitespace().collect::<Vec<_>>().join(" "), REASON_MAX)
}

/// What usually helps when the maps are refused.
fn hint(error: &EbpfError) -> &'static str {
    match error {
        EbpfError::MapError(MapError::CreateError { io_error, .. })
            if io_error.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            "CAP_BPF, and before Linux 5.11 CAP_SYS_RESOURCE for locked memory"
        }
        _ => "see `oom-watcher check`",
    }
}
