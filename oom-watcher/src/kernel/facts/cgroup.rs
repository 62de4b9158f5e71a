//! Where the memory controller is, and the limit that this process is under.

use std::path::{Path, PathBuf};

use super::{Fact, Unread, text};

/// A limit of cgroup v1 from here on is none: it writes the largest number of whole pages (of up to 64 KiB).
const V1_NO_LIMIT: u64 = i64::MAX as u64 & !0xffff;

/// Which hierarchy the memory controller is in, and where that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryCgroup {
    /// cgroup v1.
    V1(PathBuf),
    /// cgroup v2.
    V2(PathBuf),
    /// In none that is mounted here.
    None,
}

/// A mount of a cgroup hierarchy.
struct Mount {
    /// The folder of the hierarchy that is seen at the mount point.
    root: String,
    point: PathBuf,
}

/// The memory controller's hierarchy, from `mountinfo` and the list of memberships.
pub(super) fn memory_cgroup(mountinfo: &Fact<String>, memberships: &Fact<String>) -> Fact<MemoryCgroup> {
    let mountinfo = mountinfo.as_ref().map_err(Clone::clone)?;
    if let Some(mount) = v1_mount(mountinfo) {
        return Ok(MemoryCgroup::V1(mount.point));
    }
    // A v1 hierarchy counts wherever it is mounted, here or in another mount namespace.
    if memberships.as_ref().is_ok_and(|memberships| v1_membership(memberships).is_some()) {
        return Err(Unread("the memory controller is in a cgroup v1 hierarchy that is not mounted here".to_owned()));
    }
    let Some(mount) = v2_mount(mountinfo) else { return Ok(MemoryCgroup::None) };
    let controllers = text(&mount.point.join("cgroup.controllers"))?;
    let has_memory = controllers.split_whitespace().any(|controller| controller == "memory");
    Ok(if has_memory { MemoryCgroup::V2(mount.point) } else { MemoryCgroup::None })
}

/// The smallest limit of this process's memory cgroup and those above it, in bytes; `None` for no limit.
pub(super) fn own_memory_limit(mountinfo: &Fact<String>, memberships: &Fact<String>) -> Fact<Option<u64>> {
    let memberships = memberships.as_ref().map_err(Clone::clone)?;
    let (mount, path, file) = {
        let mountinfo = mountinfo.as_ref().map_err(Clone::clone)?;
        match (v1_membership(memberships), v2_membership(memberships)) {
            (Some(path), _) => (v1_mount(mountinfo), path, "memory.limit_in_bytes"),
            (None, Some(path)) => (v2_mount(mountinfo), path, "memory.max"),
            (None, None) => return Ok(None),
        }
    };
    let mount = mount.ok_or_else(|| Unread("this process's memory cgroup is not mounted here".to_owned()))?;
    let below = below(&mount.root, path).ok_or_else(|| {
        Unread(format!("this process's memory cgroup {path} is outside of {}", mount.point.display()))
    })?;
    smallest_limit(&mount.point, below, file)
}

fn smallest_limit(point: &Path, below: &str, file: &str) -> Fact<Option<u64>> {
    let mut smallest = None;
    for directory in point.join(below).ancestors().take_while(|directory| directory.starts_with(point)) {
        let path = directory.join(file);
        // A v2 cgroup without the controller has no limit and no file for it, as has the root of the hierarchy.
        if directory.is_dir() && !path.exists() {
            continue;
        }
        if let Some(limit) = limit(&path)? {
            smallest = Some(smallest.map_or(limit, |smallest: u64| smallest.min(limit)));
        }
    }
    Ok(smallest)
}

fn limit(path: &Path) -> Fact<Option<u64>> {
    let text = text(path)?;
    match text.trim() {
        "max" => Ok(None),
        number => {
            let limit = number.parse().map_err(|_| super::not_understood(path, &text))?;
            Ok(Some(limit).filter(|&limit| limit < V1_NO_LIMIT))
        }
    }
}

/// The path of a cgroup relative to the folder that is mounted; `None` when it is not inside.
fn below<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(root.trim_end_matches('/'))?;
    let inside = rest.is_empty() || rest.starts_with('/');
    // A path that leaves the cgroup namespace starts with "/..".
    Some(rest.trim_start_matches('/')).filter(|rest| inside && !rest.split('/').any(|part| part == ".."))
}

fn v1_mount(mountinfo: &str) -> Option<Mount> {
    mounts(mountinfo, "cgroup")
        .find(|(_, options)| options.split(',').any(|option| option == "memory"))
        .map(|(mount, _)| mount)
}

fn v2_mount(mountinfo: &str) -> Option<Mount> {
    mounts(mountinfo, "cgroup2").next().map(|(mount, _)| mount)
}

/// Mounts of one file system type, with the options of their super block. A line is: id, parent, device, root, mount point,
/// options, any number of tags, `-`, type, source, super options.
fn mounts<'a>(mountinfo: &'a str, fs_type: &'a str) -> impl Iterator<Item = (Mount, &'a str)> {
    mountinfo.lines().filter_map(move |line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut file_system = file_system.split(' ');
        if file_system.next() != Some(fs_type) {
            return None;
        }
        let mut mount = mount.split(' ').skip(3);
        let root = unescape(mount.next()?);
        let point = PathBuf::from(unescape(mount.next()?));
        Some((Mount { root, point }, file_system.nth(1).unwrap_or_default()))
    })
}

/// `mountinfo` writes blanks and backslashes as three octal digits.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(field.to_owned(), |field, (escaped, plain)| field.replace(escaped, plain))
}

/// The path in the v1 hierarchy of the memory controller. A line is: number, controllers, path.
fn v1_membership(memberships: &str) -> Option<&str> {
    membership(memberships, |controllers| controllers.split(',').any(|controller| controller == "memory"))
}

fn v2_membership(memberships: &str) -> Option<&str> {
    membership(memberships, str::is_empty)
}

fn membership(memberships: &str, controllers: impl Fn(&str) -> bool) -> Option<&str> {
    memberships.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next().filter(|&field| controllers(field))?;
        fields.next()
    })
}
