//! Programs that outlive the watcher: its maps and links pinned in a directory of a BPF file system, for the next watcher.
//!
//! A pin is a directory whose name says what it holds: the version of the records, and a hash of the program, its plan and its
//! ring buffer. A watcher with the same name takes it over as it is, with all that was recorded while nobody read. Any other
//! pin is a predecessor's: it stays attached until this watcher is, is then detached, read to its end and removed. A pin is
//! made under another name and renamed, so a watcher that dies meanwhile leaves no half of one.
//!
//! This module knows nothing of what is in a record.

use std::{
    error::Error,
    fmt::Debug,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    maps::{Map, MapData, RingBuf},
    programs::links::{FdLink, PinnedLink},
};
use oom_watcher_common::ABI_VERSION;
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::{
    counters::Counters,
    load::{HookStatus, Loaded, OBJECT, Programs},
    plan::{Hook, HookPlan, Method, Plan},
};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Where a pin is made. The file system allows no dots.
const STAGING: &str = "new";
const EVENTS: &str = "EVENTS";
const COUNTERS: &str = "COUNTERS";

/// Why programs are not pinned, or not taken over.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The directory itself.
    #[error("cannot {operation} the pin directory {}", path.display())]
    Directory {
        /// What was tried.
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Programs can be pinned there only.
    #[error("the pin directory {} is not in a BPF file system; one is usually mounted at /sys/fs/bpf", .0.display())]
    NotBpf(PathBuf),
    /// Both would read one ring buffer, and each would miss what the other took.
    #[error("another watcher uses the pin directory {}", .0.display())]
    InUse(PathBuf),
    /// A map or link.
    #[error("cannot {operation} {}", path.display())]
    Object {
        /// What was tried.
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A pin without one of its parts.
    #[error("the pin {} is not complete", .0.display())]
    Incomplete(PathBuf),
    /// The kernel pins no such link.
    #[error("the hook {0} is a probe of a kind that this kernel does not pin (before Linux 5.15)")]
    Unpinnable(&'static str),
}

impl PinError {
    /// It is a mistake of who started this watcher; any other failure costs the pin and not the watcher.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Directory { source, .. } => !is_refusal(source),
            Self::NotBpf(_) | Self::InUse(_) => true,
            Self::Object { .. } | Self::Incomplete(_) | Self::Unpinnable(_) => false,
        }
    }

    fn object<E: Into<Box<dyn Error + Send + Sync>>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Object { operation, path: path.to_owned(), source: source.into() }
    }
}

/// The directory, locked for this watcher as long as it lives.
#[derive(Debug)]
pub struct PinDir {
    path: PathBuf,
    /// The lock is on the directory itself: a BPF file system has no files of its users'.
    _lock: OwnedFd,
}

/// What a watcher with another program left.
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Predecessor {
    path: PathBuf,
    events: RingBuf<MapData>,
    counters: Counters,
    counters_id: u32,
}

impl PinDir {
    /// Makes the directory if only its last part is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self, PinError> {
        let failed =
            |operation| move |source: io::Error| PinError::Directory { operation, path: path.to_owned(), source };
        let made = match fs::create_dir(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            // What refuses may be what lies below a mount that is missing.
            Err(error) if is_refusal(&error) && !path.parent().is_some_and(is_bpf) => {
                return Err(PinError::NotBpf(path.to_owned()));
            }
            Err(error) => return Err(failed("make")(error)),
        };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let lock = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed("open")(error.into()))?;
        let file_system = rustix::fs::fstatfs(&lock).map_err(|error| failed("examine")(error.into()))?.f_type;
        if file_system as u64 != BPF_FS_MAGIC {
            if made {
                // A directory that nobody wanted there; an error leaves it, empty.
                let _ = fs::remove_dir(path);
            }
            return Err(PinError::NotBpf(path.to_owned()));
        }
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(PinError::InUse(path.to_owned())),
            Err(error) => Err(failed("lock")(error.into())),
        }
    }

    /// Takes over what a watcher with the same program left; none: there is nothing.
    pub fn adopt(&self, name: &str, hooks: &[HookPlan]) -> Result<Option<Loaded>, PinError> {
        let path = self.path.join(name);
        if !path.exists() {
            return Ok(None);
        }
        let (events, counters, id) = maps(&path)?;
        let mut links = Vec::new();
        let statuses: Result<Vec<_>, _> = hooks.iter().map(|plan| adopt_hook(&path, plan, &mut links)).collect();
        let statuses = statuses?;
        let sees = statuses.iter().any(|status| status.hook == Hook::MarkVictim && status.attached.is_some());
        if !sees {
            return Err(PinError::Incomplete(path));
        }
        Ok(Some(Loaded { events, counters, counters_id: id, hooks: statuses, programs: Programs::adopted(links) }))
    }

    /// Pins what was loaded. After a failure some hooks are gone: what was loaded must be loaded anew.
    pub fn publish(&self, name: &str, loaded: &mut Loaded) -> Result<(), PinError> {
        let staging = self.path.join(STAGING);
        self.remove(STAGING)?;
        fs::create_dir(&staging).map_err(PinError::object("make", &staging))?;
        let path = staging.join(EVENTS);
        let events = loaded.events.as_fd().try_clone_to_owned().map_err(PinError::object("pin", &path))?;
        let events = MapData::from_fd(events).map_err(PinError::object("pin", &path))?;
        events.pin(&path).map_err(PinError::object("pin", &path))?;
        let path = staging.join(COUNTERS);
        let counters = loaded.programs.counters().ok_or_else(|| PinError::Incomplete(path.clone()))?;
        counters.pin(&path).map_err(PinError::object("pin", &path))?;
        for (program, link) in loaded.programs.take_links() {
            let path = staging.join(program);
            let link = FdLink::try_from(link).map_err(|_| PinError::Unpinnable(program))?;
            let link = link.pin(&path).map_err(PinError::object("pin", &path))?;
            loaded.programs.keep(program, link.into());
        }
        let path = self.path.join(name);
        fs::rename(&staging, &path).map_err(PinError::object("name", &path))
    }

    /// Removes a pin; what is attached by it alone is detached.
    pub fn remove(&self, name: &str) -> Result<(), PinError> {
        let path = self.path.join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PinError::object("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Detaches what watchers with another program left, and hands it over to be read. What cannot be read is removed too; what cannot
    /// be removed is said, and costs nobody else's records.
    pub fn detach_others(&self, name: &str) -> Result<Vec<Predecessor>, PinError> {
        let mut predecessors = Vec::new();
        let entries = fs::read_dir(&self.path).map_err(PinError::object("list", &self.path))?;
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn Error, dir = %self.path.display(), "Not all pins could be listed");
                    break;
                }
            };
            let (path, other) = (entry.path(), entry.file_name());
            // Only what this program names so is its own to remove.
            if !path.is_dir() || other == name || !(other == STAGING || other.as_encoded_bytes().starts_with(b"v")) {
                continue;
            }
            match maps(&path) {
                Ok((events, counters, counters_id)) => {
                    predecessors.push(Predecessor { path: path.clone(), events, counters, counters_id });
                }
                Err(error) => tracing::warn!(error = &error as &dyn Error, "A stale pin is removed unread"),
            }
            if let Err(error) = fs::remove_dir_all(&path).map_err(PinError::object("remove", &path)) {
                tracing::warn!(error = &error as &dyn Error, "A stale pin is left");
            }
        }
        Ok(predecessors)
    }
}

impl Predecessor {
    /// Where it was.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its counters, in which the slots of a kill that was sent and of one that was lost have been the same in all versions.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The kernel's identifier of their map.
    pub fn counters_id(&self) -> u32 {
        self.counters_id
    }

    /// Hands over each record that nobody has read.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8])) {
        while let Some(record) = self.events.next() {
            take(&record);
        }
    }
}

/// The machine does not allow it; anything else is a mistake.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

fn is_bpf(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|file_system| file_system.f_type as u64 == BPF_FS_MAGIC)
}

/// The name of what a watcher with this plan and ring buffer pins.
pub fn name(plan: &Plan, ring_buffer_size: u32) -> String {
    let methods: Vec<_> = plan.hooks.iter().map(|hook| (hook.hook, &hook.methods)).collect();
    let hash = hash(&[OBJECT, &bytes(&plan.layout), &bytes(&methods), &ring_buffer_size.to_ne_bytes()]);
    format!("v{ABI_VERSION}-{hash:016x}")
}

fn bytes(value: &impl Debug) -> Vec<u8> {
    format!("{value:?}").into_bytes()
}

/// FNV-1a, which stays the same over versions of the compiler. A watcher that names the same otherwise only drains and replaces.
fn hash(parts: &[&[u8]]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    parts.iter().copied().flatten().fold(0xcbf2_9ce4_8422_2325, mix)
}

fn maps(pin: &Path) -> Result<(RingBuf<MapData>, Counters, u32), PinError> {
    let path = pin.join(EVENTS);
    let events = MapData::from_pin(&path).map_err(PinError::object("open", &path))?;
    let events = RingBuf::try_from(Map::RingBuf(events)).map_err(PinError::object("read", &path))?;
    let path = pin.join(COUNTERS);
    let counters = MapData::from_pin(&path).map_err(PinError::object("open", &path))?;
    let id = counters.info().map_err(PinError::object("examine", &path))?.id();
    let counters = Counters::map(counters.fd().as_fd()).map_err(PinError::object("read", &path))?;
    Ok((events, counters, id))
}

fn adopt_hook(pin: &Path, plan: &HookPlan, links: &mut Vec<FdLink>) -> Result<HookStatus, PinError> {
    let mut failures: Vec<(Method, String)> =
        plan.ruled_out.iter().map(|out| (out.method, out.reason.clone())).collect();
    let mut attached = None;
    for &method in &plan.methods {
        let files: Vec<PathBuf> = programs(plan.hook, method).iter().map(|program| pin.join(program)).collect();
        if !files.is_empty() && files.iter().all(|file| file.exists()) {
            for file in &files {
                links.push(PinnedLink::from_pin(file).map_err(PinError::object("open", file))?.into());
            }
            attached = Some(method);
            break;
        }
        failures.push((method, "it did not attach when the programs were pinned".to_owned()));
    }
    Ok(HookStatus { hook: plan.hook, attached, failures, verified_instructions: None })
}

/// The programs of a hook by a method, which are the names of their links in a pin.
fn programs(hook: Hook, method: Method) -> &'static [&'static str] {
    match (hook, method) {
        (Hook::MarkVictim, Method::RawTracepoint) => &["mark_victim"],
        (Hook::SignalGenerate, Method::RawTracepoint) => &["signal_generate"],
        (Hook::OutOfMemory, Method::Fentry) => &["oom_entry_fentry", "oom_return_fexit"],
        (Hook::OutOfMemory, Method::Kprobe) => &["oom_entry_kprobe", "oom_return_kretprobe"],
        (Hook::MemoryMaxWrite, Method::Fentry) => &["limit_entry_fentry", "limit_return_fexit"],
        (Hook::MemoryMaxWrite, Method::Kprobe) => &["limit_entry_kprobe", "limit_return_kretprobe"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_parts_in_their_order() {
        assert_eq!(hash(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(&[b"a"]), 0xaf63_dc4c_8601_ec8c, "the published value of FNV-1a for `a`");
        assert_eq!(hash(&[b"foo", b"bar"]), 0x8594_4171_f739_67e8, "and for `foobar`");
    }

    #[test]
    fn a_directory_of_another_file_system_is_refused_and_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pins");
        let error = PinDir::open(&path).unwrap_err();
        assert!(error.is_fatal() && error.to_string().contains("/sys/fs/bpf"), "{error}");
        assert!(!path.exists());
        let error = PinDir::open(&path.join("deeper")).unwrap_err();
        assert!(matches!(error, PinError::Directory { operation: "make", .. }), "{error}");
    }
}
