//! Makes the bare kernel a machine: file systems, the cgroup hierarchy, the loopback interface.
//!
//! Every step that fails names itself: a guest without one of them would fail its tests for another reason than theirs.

use std::{
    ffi::CStr,
    fs,
    io::{ErrorKind, Read as _},
    os::unix::fs::OpenOptionsExt as _,
};

use anyhow::{Context as _, Result};
use rustix::{
    fs::OFlags,
    mount::{MountFlags, mount, mount_bind, mount_move},
    net::{AddressFamily, SendFlags, SocketType, netlink::SocketAddrNetlink},
};

/// In this order: a later one lies inside an earlier one.
const FILE_SYSTEMS: [(&str, &str); 8] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("tracefs", "/sys/kernel/tracing"),
    ("securityfs", "/sys/kernel/security"),
    ("bpf", "/sys/fs/bpf"),
];
const CGROUP: &str = "/sys/fs/cgroup";
/// On the kernel command line: the first version's memory hierarchy instead of the second version's.
const CGROUP_V1: &str = "oom_watcher.cgroup=v1";

pub(crate) fn prepare() -> Result<()> {
    leave_first_root().context("cannot leave the first root")?;
    for (kind, target) in FILE_SYSTEMS {
        mount_at(kind, target, None)?;
    }
    let command_line = fs::read_to_string("/proc/cmdline").context("cannot read /proc/cmdline")?;
    if command_line.split_whitespace().any(|word| word == CGROUP_V1) {
        cgroup_v1()?;
    } else {
        cgroup_v2()?;
    }
    raise_loopback().context("cannot raise the loopback interface")
}

/// Moves to a mount of the same files on top of the first one: from the first, which has no parent, no container runtime
/// can pivot.
fn leave_first_root() -> Result<()> {
    mount_bind("/", "/root")?;
    std::env::set_current_dir("/root")?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    Ok(std::env::set_current_dir("/")?)
}

fn mount_at(kind: &str, target: &str, data: Option<&CStr>) -> Result<()> {
    if let Err(error) = fs::create_dir(target)
        && error.kind() != ErrorKind::AlreadyExists
    {
        return Err(error).with_context(|| format!("cannot make {target}"));
    }
    mount(kind, target, kind, MountFlags::empty(), data).with_context(|| format!("cannot mount {kind} on {target}"))
}

fn cgroup_v1() -> Result<()> {
    mount_at("tmpfs", CGROUP, None)?;
    mount_at("cgroup", &format!("{CGROUP}/memory"), Some(c"memory"))?;
    mount_at("cgroup", &format!("{CGROUP}/cpu"), Some(c"cpu"))?;
    // Before Linux 5.11 a limit counts what is below it only where this is set, and systemd sets it.
    let hierarchy = format!("{CGROUP}/memory/memory.use_hierarchy");
    fs::write(&hierarchy, "1").with_context(|| format!("cannot write 1 to {hierarchy}"))
}

fn cgroup_v2() -> Result<()> {
    mount_at("cgroup2", CGROUP, None)?;
    let control = format!("{CGROUP}/cgroup.subtree_control");
    fs::write(&control, "+memory").with_context(|| format!("cannot write +memory to {control}"))
}

/// One message to the routing socket: set `IFF_UP` of the first interface, which is always the loopback.
fn raise_loopback() -> Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST: u16 = 1;
    const IFF_UP: u32 = 1;
    let mut message = Vec::with_capacity(32);
    // struct nlmsghdr: length, type, flags, sequence, port.
    message.extend(32_u32.to_ne_bytes());
    message.extend([RTM_NEWLINK, NLM_F_REQUEST].map(u16::to_ne_bytes).concat());
    message.extend([0, 0].map(u32::to_ne_bytes).concat());
    // struct ifinfomsg: family and type (any), index, flags, the flags to change.
    message.extend([0, 1, IFF_UP, IFF_UP].map(u32::to_ne_bytes).concat());
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    rustix::net::sendto(socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

/// The kernel's own log, which the console is too quiet for: its lines would cut through those of the suite.
pub(crate) fn print_kernel_log() {
    let options =
        fs::OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open("/dev/kmsg");
    let Ok(mut log) = options else { return };
    // One read gives one record, "priority,sequence,microseconds,flags;text", and at the end an error.
    let mut record = [0; 8192];
    while let Ok(length) = log.read(&mut record) {
        let text = String::from_utf8_lossy(&record[..length]);
        let line = text.split_once(';').map_or(&*text, |(_, rest)| rest);
        // The lines after the first are the device that it is about.
        println!("kmsg: {}", line.lines().next().unwrap_or_default());
    }
}
