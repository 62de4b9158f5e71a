//! Plan → programs in the kernel. With [`super::reader`] the only module that names aya, and the only `unsafe` of the agent.
//!
//! Hooks beside `mark_victim` are tried one method after another; each failure is kept with its reason, and costs fields,
//! never events. `mark_victim` comes last, so that the first victim finds the other hooks in place.

use std::{cell::OnceCell, error::Error, os::fd::AsFd as _};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{Array, Map, MapData, MapError, RingBuf},
    programs::{FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint},
};
use oom_watcher_common::layout::{Layout, hook as hook_bit};

use super::counters::Counters;
use super::plan::{Hook, HookPlan, Method, Plan};

/// The kernel program, built by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/oom-watcher.bpf.o");

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
    /// What became of each hook.
    pub hooks: Vec<HookStatus>,
    /// The programs and their links: they live as long as this.
    programs: Programs,
}

/// Programs and links: held, never read.
#[derive(Debug)]
pub struct Programs {
    _ebpf: Ebpf,
}

/// The read-only global, as aya wants it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Global(Layout);

// SAFETY: `Layout` is `repr(C)` and consists of u32 and u64 without padding (asserted where it is defined), so every byte of
// it is initialised and any bit pattern is valid.
unsafe impl aya::Pod for Global {}

/// Gives back to the machine what loading needed: aya parses all of the kernel's BTF, and the allocator keeps the many small
/// pieces that this leaves. Measured: 25 MB of resident memory before, 6 MB after.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointer and may be made at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Loads the programs that the plan calls for and attaches them.
pub fn load(plan: &Plan, ring_buffer_size: u32) -> Result<Loaded, LoadError> {
    let global = Global(plan.layout);
    let mut ebpf = EbpfLoader::new()
        .btf(None)
        .override_global("LAYOUT", &global, true)
        .map_max_entries("EVENTS", ring_buffer_size)
        .load(OBJECT)
        .map_err(|source| LoadError::Maps { hint: hint(&source), source })?;
    let events =
        RingBuf::try_from(take(&mut ebpf, "EVENTS")?).map_err(|source| LoadError::Map { name: "EVENTS", source })?;
    let Map::Array(counters) = take(&mut ebpf, "COUNTERS")? else {
        return Err(LoadError::Incomplete("array COUNTERS"));
    };
    let counters = Counters::map(counters.fd().as_fd()).map_err(LoadError::Counters)?;
    let hooks = attach_all(&mut ebpf, &plan.hooks)?;
    Ok(Loaded { events, counters, hooks, programs: Programs { _ebpf: ebpf } })
}

impl Loaded {
    /// Takes it apart; the programs stay attached as long as the last part is kept.
    pub fn into_parts(self) -> (RingBuf<MapData>, Counters, Vec<HookStatus>, Programs) {
        (self.events, self.counters, self.hooks, self.programs)
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Incomplete(name))
}

/// The kernel's BTF as aya wants it, parsed when the first program asks: that takes longer than all else of loading.
#[derive(Default)]
struct KernelBtf(OnceCell<Result<Btf, String>>);

impl KernelBtf {
    fn get(&self) -> Result<&Btf, String> {
        let parsed = self.0.get_or_init(|| Btf::from_sys_fs().map_err(|error| chain("read BTF", &error)));
        parsed.as_ref().map_err(Clone::clone)
    }
}

fn attach_all(ebpf: &mut Ebpf, plans: &[HookPlan]) -> Result<Vec<HookStatus>, LoadError> {
    let btf = KernelBtf::default();
    let mut bits = 0;
    let mut statuses = Vec::with_capacity(plans.len());
    for plan in plans.iter().filter(|plan| plan.hook != Hook::MarkVictim) {
        let status = attach(ebpf, plan, &btf);
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
    let status = attach(ebpf, plan.ok_or(LoadError::Incomplete("plan for oom:mark_victim"))?, &btf);
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

fn attach(ebpf: &mut Ebpf, plan: &HookPlan, btf: &KernelBtf) -> HookStatus {
    let mut failures: Vec<(Method, String)> =
        plan.ruled_out.iter().map(|out| (out.method, out.reason.clone())).collect();
    for &method in &plan.methods {
        match attach_by(ebpf, plan.hook, method, btf) {
            Ok(verified_instructions) => {
                return HookStatus { hook: plan.hook, attached: Some(method), failures, verified_instructions };
            }
            Err(reason) => failures.push((method, reason)),
        }
    }
    HookStatus { hook: plan.hook, attached: None, failures, verified_instructions: None }
}

/// Attaches one hook by one method: the instructions that the verifier went through, or the reason why not.
fn attach_by(ebpf: &mut Ebpf, hook: Hook, method: Method, btf: &KernelBtf) -> Result<Option<u32>, String> {
    match (hook, method) {
        (Hook::MarkVictim, Method::RawTracepoint) => raw_tracepoint(ebpf, "mark_victim"),
        (Hook::SignalGenerate, Method::RawTracepoint) => raw_tracepoint(ebpf, "signal_generate"),
        (Hook::OutOfMemory, Method::Fentry) => {
            fentry(ebpf, "out_of_memory", "oom_entry_fentry", "oom_return_fexit", btf)
        }
        (Hook::OutOfMemory, Method::Kprobe) => {
            kprobe(ebpf, "out_of_memory", "oom_entry_kprobe", "oom_return_kretprobe")
        }
        (Hook::MemoryMaxWrite, Method::Fentry) => {
            fentry(ebpf, "memory_max_write", "limit_entry_fentry", "limit_return_fexit", btf)
        }
        (Hook::MemoryMaxWrite, Method::Kprobe) => {
            kprobe(ebpf, "memory_max_write", "limit_entry_kprobe", "limit_return_kretprobe")
        }
        (hook, method) => Err(format!("the object has no program for {hook:?} by {method:?}")),
    }
}

fn raw_tracepoint(ebpf: &mut Ebpf, name: &str) -> Result<Option<u32>, String> {
    let program: &mut RawTracePoint = program(ebpf, name)?;
    program.load().map_err(|error| chain("load", &error))?;
    program.attach(name).map_err(|error| chain("attach", &error))?;
    Ok(verified(&program.info()))
}

/// The return first: a return without its entry is ignored by the program, an entry without its return is not.
fn fentry(ebpf: &mut Ebpf, function: &str, entry: &str, exit: &str, btf: &KernelBtf) -> Result<Option<u32>, String> {
    let btf = btf.get()?;
    let program_exit: &mut FExit = program(ebpf, exit)?;
    program_exit.load(function, btf).map_err(|error| chain("load fexit", &error))?;
    let link = program_exit.attach().map_err(|error| chain("attach fexit", &error))?;
    let count = verified(&program_exit.info());
    let attached = program::<FEntry>(ebpf, entry).and_then(|program| {
        program.load(function, btf).map_err(|error| chain("load fentry", &error))?;
        program.attach().map_err(|error| chain("attach fentry", &error))?;
        Ok(sum(count, verified(&program.info())))
    });
    if attached.is_err() {
        program::<FExit>(ebpf, exit)?.detach(link).map_err(|error| chain("detach fexit", &error))?;
    }
    attached
}

/// As [`fentry`]. Each attach asks for `perf_event_open`, which `perf_event_paranoid` above 2 refuses without CAP_SYS_ADMIN.
fn kprobe(ebpf: &mut Ebpf, function: &str, entry: &str, exit: &str) -> Result<Option<u32>, String> {
    let program_exit: &mut KProbe = program(ebpf, exit)?;
    program_exit.load().map_err(|error| chain("load kretprobe", &error))?;
    let link = program_exit.attach(function, 0).map_err(|error| chain("attach kretprobe", &error))?;
    let count = verified(&program_exit.info());
    let attached = program::<KProbe>(ebpf, entry).and_then(|program| {
        program.load().map_err(|error| chain("load kprobe", &error))?;
        program.attach(function, 0).map_err(|error| chain("attach kprobe", &error))?;
        Ok(sum(count, verified(&program.info())))
    });
    if attached.is_err() {
        program::<KProbe>(ebpf, exit)?.detach(link).map_err(|error| chain("detach kretprobe", &error))?;
    }
    attached
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

/// An error with its causes on one line; the verifier's log, which is long, is cut after its end.
fn chain(operation: &str, error: &(dyn Error + 'static)) -> String {
    let mut text = format!("{operation}: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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
