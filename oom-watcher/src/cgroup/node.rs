//! Which part of the kernel's cgroup tree is the node that this agent watches.
//!
//! One kernel may carry several nodes (kind, k3d, LXC), and the kernel reports the kills of all of them. The agent's own
//! path says where its node begins; it is computed once, and every victim's path is held against it.

use super::{path, segment};

/// The part of the cgroup tree that is this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Names above the node's own tree, without the root; absent when the agent is in no pod.
    above: Option<Vec<String>>,
}

impl Node {
    /// Finds the node from the agent's own cgroup path (root first, as the kernel gives it) and, where the downward API gave
    /// it, the UID of the agent's own pod.
    ///
    /// The node's tree begins below the last container or machine that stands above the agent's pod: below the node
    /// container in kind, at the root on a machine that is a node itself. Of several pods in the path the agent's is the one
    /// with its UID, else the innermost.
    ///
    /// An agent that is in no pod has no node of its own: it takes any pod for one of this machine's.
    pub fn from_own(segments: &[&str], own_pod_uid: Option<&str>) -> Self {
        let mut own = None;
        let mut from = 1;
        while let Some(pod) = path::find_pod(segments, from, path::Look::Anywhere) {
            from = pod.level + 1;
            let is_own = own_pod_uid == Some(pod.uid.as_str());
            own = Some(pod.kubepods_level.unwrap_or(pod.level));
            if is_own {
                break;
            }
        }
        let Some(root) = own else { return Self::default() };
        let outside = (1..root).rev().find(|&level| segment::is_own_tree(segments[level])).unwrap_or(0);
        Self { above: Some(segments[1..=outside].iter().map(ToString::to_string).collect()) }
    }

    /// The level at which this node's tree begins in `segments`, or nothing for a path outside of it.
    pub(super) fn enter(&self, segments: &[&str]) -> Option<usize> {
        let above = self.above.as_deref().unwrap_or_default();
        let inside = segments.get(1..=above.len()).is_some_and(|outer| outer == above);
        inside.then_some(above.len() + 1)
    }

    /// Whether a container can stand above a pod of this node.
    pub(super) fn look(&self) -> path::Look {
        match self.above {
            Some(_) => path::Look::OutsideContainers,
            None => path::Look::Anywhere,
        }
    }
}
