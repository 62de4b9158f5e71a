//! Memory cgroups of the suite's own, on v1 and v2, removed when dropped.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Where memory cgroups are, and of which version.
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    pub(crate) v2: bool,
}

/// This machine's.
pub(crate) fn hierarchy() -> Hierarchy {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts are listed");
    let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for mount in mounts.lines().map(fields) {
        if mount[2] == "cgroup" && mount[3].split(',').any(|option| option == "memory") {
            return Hierarchy { mount: PathBuf::from(&mount[1]), v2: false };
        }
    }
    for mount in mounts.lines().map(fields).filter(|mount| mount[2] == "cgroup2") {
        let mount = PathBuf::from(&mount[1]);
        let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        if controllers.split_whitespace().any(|name| name == "memory") {
            return Hierarchy { mount, v2: true };
        }
    }
    panic!("no memory cgroup hierarchy is mounted");
}

/// Whether a path is that of a cgroup of this run.
pub(crate) fn is_own(path: &str) -> bool {
    path.starts_with(&format!("/oom-test-{}-", std::process::id()))
}

/// cgroup v2; the reason why a scenario is not for v1.
pub(crate) fn v2() -> Result<(), String> {
    if hierarchy().v2 { Ok(()) } else { Err("memory cgroups are v1 here".to_owned()) }
}

/// Cgroups below the root made so far: the number of the next one.
static MADE: AtomicU32 = AtomicU32::new(0);

/// How the names of this run begin.
fn prefix() -> String {
    format!("oom-test-{}-", std::process::id())
}

/// How many cgroups below the root have been made so far.
pub(crate) fn made() -> u32 {
    MADE.load(Ordering::Relaxed)
}

/// The number of the suite's cgroup that a path lies in; none when it is not the suite's.
pub(crate) fn number(path: &str) -> Option<u32> {
    path.strip_prefix('/')?.strip_prefix(&prefix())?.split('-').next()?.parse().ok()
}

/// One cgroup.
pub(crate) struct Cgroup {
    directory: PathBuf,
    path: String,
    v2: bool,
}

impl Cgroup {
    /// A new one below the root.
    #[track_caller]
    pub(crate) fn new(name: &str) -> Self {
        let Hierarchy { mount, v2 } = hierarchy();
        if v2 {
            delegate(&mount);
        }
        let name = format!("{}{}-{name}", prefix(), MADE.fetch_add(1, Ordering::Relaxed));
        Self::make(mount.join(&name), format!("/{name}"), v2)
    }

    /// A new one below this one.
    #[track_caller]
    pub(crate) fn child(&self, name: impl AsRef<OsStr>) -> Self {
        if self.v2 {
            delegate(&self.directory);
        }
        let name = name.as_ref();
        let path = format!("{}/{}", self.path, name.to_string_lossy());
        Self::make(self.directory.join(name), path, self.v2)
    }

    #[track_caller]
    fn make(directory: PathBuf, path: String, v2: bool) -> Self {
        fs::create_dir(&directory).unwrap_or_else(|error| panic!("cannot create {}: {error}", directory.display()));
        Self { directory, path, v2 }
    }

    /// The path as the kernel has it, what is no UTF-8 replaced.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Where it is in the file system.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory's inode number, which is the cgroup's id.
    pub(crate) fn id(&self) -> u64 {
        fs::metadata(&self.directory).expect("the cgroup is there").ino()
    }

    /// Whether the other one is this one or below it.
    pub(crate) fn holds(&self, other: &Self) -> bool {
        other.path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Limits memory, and takes away swap, so that the limit is what counts.
    #[track_caller]
    pub(crate) fn limit(&self, bytes: u64) {
        self.limit_with_swap(bytes, 0);
    }

    /// Limits memory and, where it is counted, swap.
    #[track_caller]
    pub(crate) fn limit_with_swap(&self, bytes: u64, swap: u64) {
        self.write(if self.v2 { "memory.max" } else { "memory.limit_in_bytes" }, &bytes.to_string());
        let (file, limit) =
            if self.v2 { ("memory.swap.max", swap) } else { ("memory.memsw.limit_in_bytes", bytes + swap) };
        if self.directory.join(file).exists() {
            self.write(file, &limit.to_string());
        }
    }

    /// The text of a file of the cgroup; none where the kernel does not have it.
    #[track_caller]
    pub(crate) fn read(&self, file: &str) -> Option<String> {
        let file = self.directory.join(file);
        match fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => panic!("cannot read {}: {error}", file.display()),
        }
    }

    /// Writes a file of the cgroup.
    #[track_caller]
    pub(crate) fn write(&self, file: &str, value: &str) {
        let file = self.directory.join(file);
        fs::write(&file, value).unwrap_or_else(|error| panic!("cannot write {value} to {}: {error}", file.display()));
    }

    /// Moves a process in.
    #[track_caller]
    pub(crate) fn admit(&self, pid: u32) {
        self.write("cgroup.procs", &pid.to_string());
    }
}

/// Turns the memory controller on for the children of a directory.
fn delegate(directory: &Path) {
    fs::write(directory.join("cgroup.subtree_control"), "+memory").expect("the memory controller can be delegated");
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = fs::remove_dir(&self.directory) {
            if Instant::now() > deadline {
                println!("cannot remove {}: {error}", self.directory.display());
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
