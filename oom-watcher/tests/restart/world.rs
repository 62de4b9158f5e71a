//! A mount namespace of the suite's own: a BPF file system for pins, and small disks.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount},
    thread::UnshareFlags,
};

static BASE: OnceLock<PathBuf> = OnceLock::new();

/// Leaves the machine's mounts alone from here on.
pub(crate) fn enter() {
    // SAFETY: there is one thread yet, and it holds no lock that belongs to the other namespace.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .expect("a mount namespace of our own (root is needed)");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("mounts can be made private");
    let base = PathBuf::from(format!("/tmp/oom-watcher-restart-{}", std::process::id()));
    fs::create_dir(&base).expect("a directory can be made");
    mount("tmpfs", &base, "tmpfs", MountFlags::empty(), None).expect("a disk in memory");
    BASE.set(base).expect("it is entered once");
}

/// A new, empty directory.
pub(crate) fn directory(name: &str) -> PathBuf {
    let path = BASE.get().expect("the suite has entered its world").join(name);
    fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    path
}

/// A named pipe, which who opens it waits for the other end.
#[track_caller]
pub(crate) fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0)
        .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
}

/// A file system of this suite, unmounted when dropped: with what is pinned in it.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// A BPF file system.
    pub(crate) fn bpf(name: &str) -> Self {
        let path = directory(name);
        mount("bpf", &path, "bpf", MountFlags::empty(), None).expect("a BPF file system");
        Self(path)
    }

    /// A disk in memory.
    pub(crate) fn memory(name: &str) -> Self {
        let path = directory(name);
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), None).expect("a disk in memory");
        Self(path)
    }

    /// A disk without any room left.
    pub(crate) fn full(name: &str) -> Self {
        let path = directory(name);
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), Some(c"size=4096")).expect("a disk in memory");
        fs::write(path.join("filler"), [0; 4096]).expect("it holds one page");
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Allows no change from now on.
    pub(crate) fn make_read_only(&self) {
        mount_remount(&self.0, MountFlags::RDONLY, "").expect("it can be made read-only");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A failure shows in what the machine has left, and the namespace ends with the suite.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
