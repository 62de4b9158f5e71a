//! Which hooks to try, by which methods, and why not by the others.

use oom_watcher_common::layout::{ABSENT, Layout};

use crate::kernel::btf::{ArgKind, Btf, TypeId};
use crate::kernel::facts::Facts;

/// A place in the kernel that a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The tracepoint `oom:mark_victim`: every victim. Required.
    MarkVictim,
    /// The tracepoint `signal:signal_generate`: a kill told from a mark, the task where the mark has only a pid, and the
    /// processes that die for sharing the victim's memory.
    SignalGenerate,
    /// Entry and return of `out_of_memory`: the incident.
    OutOfMemory,
    /// Entry and return of `memory_max_write`: the writer of `memory.max` told from an allocation.
    MemoryMaxWrite,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A raw tracepoint.
    RawTracepoint,
    /// fentry and fexit.
    Fentry,
    /// kprobe and kretprobe through perf.
    Kprobe,
}

impl Hook {
    /// Its name in metrics and in the output of `check`: the kernel's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MarkVictim => "mark_victim",
            Self::SignalGenerate => "signal_generate",
            Self::OutOfMemory => "out_of_memory",
            Self::MemoryMaxWrite => "memory_max_write",
        }
    }

    /// What reports lack without it.
    pub fn costs(self) -> &'static str {
        match self {
            Self::MarkVictim => "everything",
            Self::SignalGenerate => {
                "a mark cannot be told from a kill, and processes killed for sharing memory are not seen"
            }
            Self::OutOfMemory => {
                "scope and incident are deduced; cause, order, gfp_flags, constraint and duration are absent"
            }
            Self::MemoryMaxWrite => "a write to memory.max is not told from an allocation",
        }
    }
}

impl Method {
    /// Its name in metrics and in the output of `check`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RawTracepoint => "raw_tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }
}

/// A method that cannot work here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuledOut {
    /// The method.
    pub method: Method,
    /// Why.
    pub reason: String,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookPlan {
    /// Which.
    pub hook: Hook,
    /// What to try, the best first. Some fail only at attach (fentry on arm64 before 6.12), so all of them may.
    pub methods: Vec<Method>,
    /// What not to try.
    pub ruled_out: Vec<RuledOut>,
    /// The function that the hook is on, in the kernel's BTF: fentry asks for it by number.
    pub function: Option<TypeId>,
}

impl HookPlan {
    fn new(hook: Hook, methods: impl IntoIterator<Item = (Method, Result<(), String>)>) -> Self {
        let mut plan = Self { hook, methods: Vec::new(), ruled_out: Vec::new(), function: None };
        for (method, verdict) in methods {
            match verdict {
                Ok(()) => plan.methods.push(method),
                Err(reason) => plan.ruled_out.push(RuledOut { method, reason }),
            }
        }
        plan
    }
}

/// Plans every hook. `mark_victim` is known to be usable.
pub(super) fn plan(facts: &Facts, btf: &Btf, layout: &Layout) -> Vec<HookPlan> {
    // The kprobe of `out_of_memory` reads its argument from the registers; that of `memory_max_write` reads nothing.
    let argument = match layout.regs_arg0 {
        ABSENT => Err("the place of the first argument among the registers is not known".to_owned()),
        _ => Ok(()),
    };
    vec![
        HookPlan::new(Hook::MarkVictim, [(Method::RawTracepoint, Ok(()))]),
        HookPlan::new(Hook::SignalGenerate, [(Method::RawTracepoint, signal_generate(btf))]),
        function(Hook::OutOfMemory, takes(btf, "out_of_memory", "oom_control"), kprobes(facts).and(argument)),
        function(Hook::MemoryMaxWrite, takes(btf, "memory_max_write", "kernfs_open_file"), kprobes(facts)),
    ]
}

/// Entry and return of a function.
fn function(hook: Hook, described: Result<TypeId, Undescribed>, kprobe: Result<(), String>) -> HookPlan {
    // BTF of some kernels has only global functions, so one that it lacks can still be there for a kprobe; one that it
    // describes otherwise is another function.
    let kprobe = match &described {
        Err(Undescribed::Otherwise(reason)) => Err(reason.clone()),
        Ok(_) | Err(Undescribed::Absent(_)) => kprobe,
    };
    let function = described.as_ref().ok().copied();
    let fentry = described.map(|_| ()).map_err(Undescribed::into_reason);
    HookPlan { function, ..HookPlan::new(hook, [(Method::Fentry, fentry), (Method::Kprobe, kprobe)]) }
}

/// Why a function's description does not serve.
enum Undescribed {
    /// BTF does not have it.
    Absent(String),
    /// BTF has something else of that name.
    Otherwise(String),
}

impl Undescribed {
    fn into_reason(self) -> String {
        match self {
            Self::Absent(reason) | Self::Otherwise(reason) => reason,
        }
    }
}

/// Where BTF has the function `name`, whose first argument has to point to this structure.
fn takes(btf: &Btf, name: &str, structure: &str) -> Result<TypeId, Undescribed> {
    let (function, args) = btf.function(name).map_err(|error| Undescribed::Absent(error.to_string()))?;
    match args.first() {
        Some(ArgKind::Pointer(to)) if to == structure => Ok(function),
        _ => Err(Undescribed::Otherwise(format!("{name} takes {args:?}, which is not known"))),
    }
}

/// Whether `signal_generate` carries what the program reads: the signal, its information, the task.
fn signal_generate(btf: &Btf) -> Result<(), String> {
    let args = btf.raw_tracepoint_args("signal_generate").map_err(|error| error.to_string())?;
    match args.as_slice() {
        [ArgKind::Int { size: 4 }, ArgKind::Pointer(info), ArgKind::Pointer(task), ..]
            if info == "kernel_siginfo" && task == "task_struct" =>
        {
            Ok(())
        }
        _ => Err(format!("tracepoint signal:signal_generate carries {args:?}, which is not known")),
    }
}

/// Whether the kernel offers kprobes. One that could not be looked at is tried.
fn kprobes(facts: &Facts) -> Result<(), String> {
    if facts.kprobe_pmu == Ok(false) {
        return Err("the kernel offers no kprobes through perf (CONFIG_KPROBE_EVENTS)".to_owned());
    }
    Ok(())
}
