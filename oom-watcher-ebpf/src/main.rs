//! The kernel program of oom-watcher: one hook per file, each entry thin.
//!
//! What a kill is made of happens with `oom_lock` held, so at most one call of the OOM killer is under way on the whole machine.
//! (`signal_generate` is also hit for every other signal, and `memory_max_write` before the killer is called.) State between
//! hooks is still keyed by the task, since one may migrate between two victims of a group kill.
#![no_std]
#![no_main]

mod cgroup;
mod draft;
mod incident;
mod kernel;
mod maps;
mod mark_victim;
mod memory;
mod memory_max_write;
mod out_of_memory;
mod own_cgroup;
mod signal_generate;
mod victim;

/// Kernel helpers such as `bpf_probe_read_kernel` are open to programs under a licence compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// No path leads here: `cargo xtask build-ebpf` refuses an object that could panic, since the verifier would. Never inlined, so
/// that an object in which one does has a symbol for it.
#[inline(never)]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
