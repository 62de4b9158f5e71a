//! Entry and return of `bool out_of_memory(struct oom_control *oc)` (mm/oom_kill.c): one call is one decision of the OOM
//! killer. The only pair of hooks on it that works on every kernel is kprobe and kretprobe; fentry and fexit need fewer
//! capabilities and are preferred where they attach.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_boot_ns},
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use oom_watcher_common::{
    ABI_VERSION, counter,
    record::{Header, IncidentEnd, KIND_INCIDENT_END},
};

use crate::{
    incident::{Slot, slot},
    kernel::{Address, layout},
    maps::{EVENTS, count},
};

/// `out_of_memory` by fentry.
#[fentry(function = "out_of_memory")]
fn oom_entry_fentry(ctx: FEntryContext) -> u32 {
    enter(ctx.arg::<u64>(0));
    0
}

/// `out_of_memory` by fexit.
#[fexit(function = "out_of_memory")]
fn oom_return_fexit(_ctx: FExitContext) -> u32 {
    leave();
    0
}

/// `out_of_memory` by kprobe.
#[kprobe]
fn oom_entry_kprobe(ctx: ProbeContext) -> u32 {
    // The argument's place in `pt_regs` comes from BTF, so that one object serves both architectures.
    let registers = Address(ctx.as_ptr() as u64);
    enter(registers.get(layout!(regs_arg0)));
    0
}

/// `out_of_memory` by kretprobe.
#[kretprobe]
fn oom_return_kretprobe(_ctx: RetProbeContext) -> u32 {
    leave();
    0
}

#[inline(always)]
fn enter(oom_control: u64) {
    let Some(slot) = slot() else { return };
    slot.trigger = bpf_get_current_pid_tgid();
    slot.oom_control = oom_control;
    // SAFETY: the helper takes no arguments.
    slot.entered_ns = unsafe { bpf_ktime_get_boot_ns() };
    let memcg = Address(oom_control).follow(layout!(oc_memcg));
    slot.entry_usage = memcg.get(layout!(memcg_usage));
    forget_victim(slot);
    slot.levels_css = 0;
    slot.marks = 0;
    slot.kills = 0;
    slot.kills_lost = 0;
}

/// Who is killed outside of a call shares nobody's memory: what is known of the last victim ends with the call.
#[inline(always)]
fn forget_victim(slot: &mut Slot) {
    slot.last_trigger = 0;
    slot.last_mm = 0;
    slot.last_tgid = 0;
    slot.first_tgid = 0;
    slot.signalled = 0;
}

#[inline(always)]
fn leave() {
    let Some(slot) = slot() else { return };
    if slot.trigger != bpf_get_current_pid_tgid() {
        return;
    }
    slot.trigger = 0;
    slot.oom_control = 0;
    forget_victim(slot);
    if slot.kills == 0 {
        count(counter::INVOCATIONS_WITHOUT_VICTIM);
        return;
    }
    count(counter::INVOCATIONS_KILLED);
    let Some(mut record) = EVENTS.reserve::<IncidentEnd>(0) else {
        count(counter::INCIDENTS_LOST);
        return;
    };
    // SAFETY: the helper takes no arguments.
    let time_ns = unsafe { bpf_ktime_get_boot_ns() };
    record.write(IncidentEnd {
        header: Header {
            abi_version: ABI_VERSION,
            kind: KIND_INCIDENT_END,
            size: size_of::<IncidentEnd>() as u32,
            time_ns,
            incident_ns: slot.entered_ns,
        },
        marks: slot.marks,
        kills: slot.kills,
        kills_lost: slot.kills_lost,
        pad: 0,
    });
    record.submit(0);
}
