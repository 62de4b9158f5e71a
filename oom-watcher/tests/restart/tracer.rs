//! Takes a file from another process, as nothing but that process itself can: a debugger's means.

use std::{fs, io, mem::MaybeUninit, os::fd::RawFd, thread, time::Duration};

use libc::{c_long, c_void, pid_t, user_regs_struct};

/// How often the process is looked at until it waits in the kernel, which it nearly always does.
const LOOKS: u32 = 100;

/// The descriptor of a process whose description holds all of these lines.
#[track_caller]
pub(crate) fn descriptor(pid: u32, lines: &[&str]) -> RawFd {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&folder).expect("it runs");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let is_wanted = |name: &String| {
        let text = fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
        lines.iter().all(|line| text.lines().any(|found| found == *line))
    };
    let found: Vec<String> = names.filter(is_wanted).collect();
    let [one] = found.as_slice() else { panic!("{} descriptors with {lines:?}", found.len()) };
    one.parse().expect("a number")
}

/// Has a process close a descriptor, and open its standard input under the same number: that one it may close in the end.
#[track_caller]
pub(crate) fn take(pid: u32, descriptor: RawFd) {
    let calls = [(libc::SYS_close, [descriptor, 0, 0]), (libc::SYS_fcntl, [0, libc::F_DUPFD_CLOEXEC, descriptor])];
    let results = call(pid as pid_t, &calls);
    assert_eq!(results, [0, i64::from(descriptor)], "the results of {calls:?}");
}

/// Has the main thread of a process make system calls; their results.
#[track_caller]
fn call(pid: pid_t, calls: &[(c_long, [RawFd; 3])]) -> Vec<i64> {
    trace(libc::PTRACE_SEIZE, pid, 0, 0);
    for _ in 0..LOOKS {
        trace(libc::PTRACE_INTERRUPT, pid, 0, 0);
        wait(pid);
        let before = registers(pid);
        if is_after_call(pid, &before) {
            let results = calls.iter().map(|(call, arguments)| {
                set_registers(pid, &with_call(&before, *call, arguments.map(|argument| argument as u64)));
                // To the call's entry and to its end.
                for _ in 0..2 {
                    trace(libc::PTRACE_SYSCALL, pid, 0, 0);
                    wait(pid);
                }
                result(&registers(pid))
            });
            let results = results.collect();
            // The call that it was in was interrupted, as by a signal; it makes it again.
            set_registers(pid, &before);
            trace(libc::PTRACE_DETACH, pid, 0, 0);
            return results;
        }
        trace(libc::PTRACE_CONT, pid, 0, 0);
        thread::sleep(Duration::from_millis(20));
    }
    panic!("the process does not wait in the kernel");
}

#[track_caller]
fn trace(request: libc::c_uint, pid: pid_t, address: usize, data: usize) -> c_long {
    // SAFETY: what the kernel writes to, if anything, is what `data` points to, which the callers keep for the call.
    let result = unsafe { libc::ptrace(request, pid, address as *mut c_void, data as *mut c_void) };
    assert_ne!(result, -1, "ptrace {request:#x}: {}", io::Error::last_os_error());
    result
}

#[track_caller]
fn wait(pid: pid_t) {
    let mut status = 0;
    // SAFETY: the kernel writes one integer, which is there.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    assert!(waited == pid && libc::WIFSTOPPED(status), "it has not stopped: {waited}, status {status:#x}");
}

#[track_caller]
fn registers(pid: pid_t) -> user_regs_struct {
    let mut registers = MaybeUninit::<user_regs_struct>::uninit();
    let mut vector = libc::iovec { iov_base: registers.as_mut_ptr().cast(), iov_len: size_of::<user_regs_struct>() };
    trace(libc::PTRACE_GETREGSET, pid, libc::NT_PRSTATUS as usize, (&raw mut vector).expose_provenance());
    assert_eq!(vector.iov_len, size_of::<user_regs_struct>(), "the kernel gives all registers");
    // SAFETY: the kernel has written all of it.
    unsafe { registers.assume_init() }
}

#[track_caller]
fn set_registers(pid: pid_t, registers: &user_regs_struct) {
    let base = std::ptr::from_ref(registers).cast_mut().cast();
    let mut vector = libc::iovec { iov_base: base, iov_len: size_of::<user_regs_struct>() };
    trace(libc::PTRACE_SETREGSET, pid, libc::NT_PRSTATUS as usize, (&raw mut vector).expose_provenance());
}

/// Whether the instruction before the next one is a system call: it is in the kernel, for that.
#[track_caller]
fn is_after_call(pid: pid_t, registers: &user_regs_struct) -> bool {
    use std::os::unix::fs::FileExt as _;
    let mut code = [0; CALL.len()];
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("its memory can be read");
    memory.read_exact_at(&mut code, next(registers) - CALL.len() as u64).is_ok() && code == CALL
}

#[cfg(target_arch = "x86_64")]
const CALL: [u8; 2] = [0x0f, 0x05];

#[cfg(target_arch = "x86_64")]
fn next(registers: &user_regs_struct) -> u64 {
    registers.rip
}

#[cfg(target_arch = "x86_64")]
fn result(registers: &user_regs_struct) -> i64 {
    registers.rax as i64
}

/// Registers with which the same instruction makes this call.
#[cfg(target_arch = "x86_64")]
fn with_call(before: &user_regs_struct, call: c_long, arguments: [u64; 3]) -> user_regs_struct {
    let mut registers = *before;
    registers.rip -= CALL.len() as u64;
    registers.rax = call as u64;
    [registers.rdi, registers.rsi, registers.rdx] = arguments;
    // No call is to be made again by the kernel.
    registers.orig_rax = u64::MAX;
    registers
}

#[cfg(target_arch = "aarch64")]
const CALL: [u8; 4] = [0x01, 0x00, 0x00, 0xd4];

#[cfg(target_arch = "aarch64")]
fn next(registers: &user_regs_struct) -> u64 {
    registers.pc
}

#[cfg(target_arch = "aarch64")]
fn result(registers: &user_regs_struct) -> i64 {
    registers.regs[0] as i64
}

/// Registers with which the same instruction makes this call.
#[cfg(target_arch = "aarch64")]
fn with_call(before: &user_regs_struct, call: c_long, arguments: [u64; 3]) -> user_regs_struct {
    let mut registers = *before;
    registers.pc -= CALL.len() as u64;
    registers.regs[8] = call as u64;
    registers.regs[..3].copy_from_slice(&arguments);
    registers
}
