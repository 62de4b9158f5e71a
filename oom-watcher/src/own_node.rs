//! Which part of the machine is this agent's node: its own cgroup path, and from that the [`Node`].
//!
//! `/proc/self/cgroup` says it, but for an agent in a cgroup namespace of its own, which is what container runtimes give on
//! cgroup v2: there the path begins at the agent. Then the kernel is asked, by its own tree.

use std::{error::Error, fs, path::Path};

use tracing::{debug, warn};

use crate::{
    cgroup::Node,
    decode::{DecodeError, Record},
    kernel::{
        load::{self, OwnCgroupError},
        plan::Plan,
    },
    run,
};

/// Why the kernel's tree did not tell.
#[derive(Debug, thiserror::Error)]
enum OwnNodeError {
    /// The program that asks.
    #[error(transparent)]
    Kernel(#[from] OwnCgroupError),
    /// Its answer.
    #[error("cannot understand the record of the agent's own cgroup")]
    Decode(#[from] DecodeError),
    /// Its answer has nothing.
    #[error("the record of the agent's own cgroup has no levels")]
    NoLevels,
}

/// Finds the node. Needs the capabilities that watching needs, and one thread.
///
/// Only an agent that is told its pod (`pod_uid`) can be in one of several nodes; one that is in no pod takes any pod for one
/// of this machine's.
pub fn find(pod_uid: Option<&str>, plan: &Plan) -> Node {
    let file = "/proc/self/cgroup";
    let text = fs::read_to_string(Path::new(file)).unwrap_or_else(|error| {
        warn!(error = &error as &dyn Error, file, "Cannot read the agent's own cgroup");
        String::new()
    });
    let path = path_in(&text);
    let Some(uid) = pod_uid.filter(|uid| !names_pod(&path, uid)) else { return node(&path, pod_uid) };
    match of_kernel(plan) {
        Ok(names) => {
            debug!(path = names.join("/"), uid, "The agent's own cgroup");
            node(&names, pod_uid)
        }
        Err(error) => {
            let costs = "where one machine carries several nodes, their kills are taken for this node's";
            warn!(error = &error as &dyn Error, costs, "Cannot tell the agent's own cgroup");
            node(&path, pod_uid)
        }
    }
}

fn node(names: &[String], pod_uid: Option<&str>) -> Node {
    let segments: Vec<&str> = names.iter().map(String::as_str).collect();
    Node::from_own(&segments, pod_uid)
}

/// Names from the root on, as the kernel's tree has them.
fn of_kernel(plan: &Plan) -> Result<Vec<String>, OwnNodeError> {
    let record = load::own_cgroup(plan)?;
    let Record::Kill(kill) = run::decoder(plan).decode(&record)? else { return Err(OwnNodeError::NoLevels) };
    let cgroup = kill.cgroup.filter(|cgroup| !cgroup.truncated).ok_or(OwnNodeError::NoLevels)?;
    Ok(cgroup.levels.iter().map(|level| level.name.clone()).collect())
}

/// The path in the memory hierarchy of `/proc/self/cgroup`: the names from the root's, which is empty, on.
fn path_in(text: &str) -> Vec<String> {
    let path = text
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .find(|(controllers, _)| controllers.is_empty() || controllers.split(',').any(|name| name == "memory"))
        .map_or("/", |(_, path)| path);
    let names = path.split('/').filter(|name| !name.is_empty()).map(str::to_owned);
    std::iter::once(String::new()).chain(names).collect()
}

/// Whether one of the names is the pod's, written with dashes or, by systemd's rule, with underscores.
fn names_pod(names: &[String], uid: &str) -> bool {
    let escaped = uid.replace('-', "_");
    names.iter().any(|name| name.contains(uid) || name.contains(&escaped))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0a5a1b6e-9d1f-4a9b-8f0e-0c6d2f7f9a11";

    #[test]
    fn the_memory_hierarchy_is_asked() {
        let v1 = "9:name=systemd:/other\n4:cpu,memory:/kubepods/poda/b\n0::/unified\n";
        assert_eq!(path_in(v1), ["", "kubepods", "poda", "b"]);
        assert_eq!(path_in("0::/\n"), [""]);
        assert_eq!(path_in(""), [""]);
    }

    #[test]
    fn a_path_with_the_agents_pod_is_the_whole_path() {
        let names = |path: &str| path_in(&format!("0::{path}\n"));
        assert!(names_pod(&names(&format!("/kubepods/burstable/pod{UID}/c")), UID));
        let escaped = UID.replace('-', "_");
        assert!(names_pod(&names(&format!("/kubepods.slice/kubepods-pod{escaped}.slice/c.scope")), UID));
        for namespaced in ["/", "/../..", "/../../pod1b5a1b6e-9d1f-4a9b-8f0e-0c6d2f7f9a11/c"] {
            assert!(!names_pod(&names(namespaced), UID), "{namespaced}");
        }
    }
}
