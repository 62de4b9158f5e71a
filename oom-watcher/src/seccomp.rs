//! Least power, the system calls: what a watcher that watches has no use for, the kernel refuses it.
//!
//! The list is what the steady state needs: the ring buffer, HTTP, files that are read, the watch of a directory, sockets to
//! the API server, threads of this process. No program is executed, nothing is mounted, traced, mapped executable or opened
//! for writing (but the state file, where one is kept). It is one list for both architectures; where they differ, the newer
//! call is what arm64 has and the older is x86-64's only.

use std::{collections::BTreeMap, env::consts::ARCH};

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};

use crate::config::Seccomp;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The list could not be made into a filter.
    #[error("cannot make the filter of system calls")]
    Compile(#[source] BackendError),
    /// The kernel does not take it: no `CONFIG_SECCOMP_FILTER`, or a filter of a runtime that forbids another one.
    #[error("the kernel refuses the filter of system calls")]
    Install(#[source] seccompiler::Error),
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Whatever its arguments.
const ALLOWED: &[c_long] = &[
    // What is open: read, write, wait, close.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    // Files and directories, looked at.
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Connections, in and out; which kinds of socket, see [`conditional`].
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_socketpair,
    // Memory; which mappings, see [`conditional`].
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads (`clone3` is answered by [`refused`]), signals, time, and the end.
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_tgkill,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_timerfd_settime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What only x86-64 has beside the newer calls.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[c_long] =
    &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_stat, libc::SYS_lstat, libc::SYS_readlink, libc::SYS_access];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[c_long] = &[];

/// `_IO('$', 1)` of linux/perf_event.h. A program on a kprobe is detached by it where the kernel has no link for that, before 5.15.
const PERF_EVENT_IOC_DISABLE: u64 = 0x2401;

/// What the state file takes beside a file opened for writing.
#[cfg(target_arch = "x86_64")]
const RENAMES: &[c_long] = &[libc::SYS_rename, libc::SYS_renameat, libc::SYS_renameat2];
#[cfg(not(target_arch = "x86_64"))]
const RENAMES: &[c_long] = &[libc::SYS_renameat, libc::SYS_renameat2];

/// Installs the filter for this process; it cannot be taken back. `writes_files`: there is a state file to write.
///
/// `no_new_privs` must have been set, or the kernel wants a capability for it.
pub fn install(action: Seccomp, writes_files: bool) -> Result<(), SeccompError> {
    let action = match action {
        Seccomp::Off => return Ok(()),
        Seccomp::Errno => SeccompAction::Errno(libc::EPERM as u32),
        Seccomp::Kill => SeccompAction::KillProcess,
    };
    let refusal = SeccompAction::Errno(libc::ENOSYS as u32);
    let refused = refused().and_then(|rules| filter(rules, SeccompAction::Allow, refusal));
    let allowed = allowed(writes_files).and_then(|rules| filter(rules, action, SeccompAction::Allow));
    // Of two filters the stricter answer counts. The list comes last: it has no place for the call that installs one.
    for program in [refused, allowed] {
        let program = program.map_err(SeccompError::Compile)?;
        apply_filter_all_threads(&program).map_err(SeccompError::Install)?;
    }
    Ok(())
}

fn filter(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, matched, ARCH.try_into()?)?.try_into()
}

/// What the C library tries first and can do without; a refusal is the answer that it expects, so that even `kill` gives it.
fn refused() -> Result<Rules, BackendError> {
    // The resolver asks the kernel for its addresses by netlink, and takes all kinds to be there when it may not.
    let netlink = compare(0, SeccompCmpOp::Eq, libc::AF_NETLINK as u64)?;
    let sockets = vec![SeccompRule::new(vec![netlink])?];
    // What a new thread asks for is in memory, where a filter cannot look; `clone` has it in a register.
    Ok(Rules::from([(libc::SYS_clone3, Vec::new()), (libc::SYS_socket, sockets)]))
}

fn allowed(writes_files: bool) -> Result<Rules, BackendError> {
    let plain = [ALLOWED, ALLOWED_OLD, if writes_files { RENAMES } else { &[] }].concat();
    let mut rules: Rules = plain.into_iter().map(|call| (call, Vec::new())).collect();
    for (call, alternatives) in conditional(writes_files) {
        let alternatives: Result<Vec<SeccompRule>, BackendError> = alternatives
            .into_iter()
            .map(|(argument, operator, value)| SeccompRule::new(vec![compare(argument, operator, value)?]))
            .collect();
        rules.insert(call, alternatives?);
    }
    Ok(rules)
}

/// Of an argument, by its place, with a value.
type Comparison = (u8, SeccompCmpOp, u64);

/// Calls that are allowed when one of their comparisons holds; without any, always.
fn conditional(writes_files: bool) -> Vec<(c_long, Vec<Comparison>)> {
    let none_of = |argument, flags: i32| vec![(argument, SeccompCmpOp::MaskedEq(flags as u64), 0)];
    let equal = |argument, values: &[u64]| values.iter().map(|&value| (argument, SeccompCmpOp::Eq, value)).collect();
    let threads = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND;
    let writing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    // A filter cannot see which file it is; that of the rename cannot be told from others either.
    let openat = if writes_files { Vec::new() } else { none_of(2, writing) };
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(|family| family as u64);
    vec![
        (libc::SYS_openat, openat),
        (libc::SYS_mmap, none_of(2, libc::PROT_EXEC)),
        (libc::SYS_mprotect, none_of(2, libc::PROT_EXEC)),
        (libc::SYS_clone, vec![(0, SeccompCmpOp::MaskedEq(threads as u64), threads as u64)]),
        (libc::SYS_socket, equal(0, &families)),
        // Whether it is a terminal; a stream that does not block; the end of a kprobe.
        (libc::SYS_ioctl, equal(1, &[libc::TCGETS, libc::FIONBIO, PERF_EVENT_IOC_DISABLE])),
        (libc::SYS_prctl, equal(0, &[libc::PR_SET_NAME as u64])),
    ]
}

fn compare(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it is there to refuse is in neither list, with or without a state file.
    #[test]
    fn nothing_dangerous_is_allowed() {
        let dangerous = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_bpf,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_init_module,
            libc::SYS_perf_event_open,
            libc::SYS_process_vm_readv,
            libc::SYS_kill,
            libc::SYS_unlinkat,
            libc::SYS_io_uring_setup,
        ];
        for writes_files in [false, true] {
            let rules = allowed(writes_files).unwrap();
            for call in dangerous {
                assert!(!rules.contains_key(&call), "{call}");
            }
            for call in RENAMES {
                assert_eq!(rules.contains_key(call), writes_files, "{call}");
            }
        }
    }

    #[test]
    fn the_filter_fits_the_kernels_limit() {
        let program = filter(allowed(true).unwrap(), SeccompAction::KillProcess, SeccompAction::Allow).unwrap();
        assert!(program.len() <= 4096, "{} instructions", program.len());
    }
}
