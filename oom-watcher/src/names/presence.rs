//! Which containers have appeared and gone since the metrics asked last.
//!
//! A container is counted by name: its restarts are links of their own (the kubelet keeps the last dead one's beside the
//! living one's), and it is gone when the last link is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ContainerName;

/// Containers that appeared and went since the last question; each at most once, and in one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Containers to have a series from now on.
    pub added: Vec<Arc<ContainerName>>,
    /// Containers that no link names any more.
    pub gone: Vec<Arc<ContainerName>>,
}

/// Links of each name, and what the one reader of the changes knows of them.
///
/// Bounded by the index: names of live links, and names that the reader was told of and has yet to hear are gone.
#[derive(Debug, Default)]
pub(super) struct Presence {
    names: HashMap<Arc<ContainerName>, State>,
    changed: HashSet<Arc<ContainerName>>,
}

#[derive(Debug, Default)]
struct State {
    links: usize,
    told: bool,
}

impl Presence {
    /// A link of this name appeared.
    pub(super) fn add(&mut self, name: &Arc<ContainerName>) {
        let state = self.names.entry(Arc::clone(name)).or_default();
        state.links += 1;
        if state.links == 1 {
            self.changed.insert(Arc::clone(name));
        }
    }

    /// A link of this name went.
    pub(super) fn remove(&mut self, name: &Arc<ContainerName>) {
        let Some(state) = self.names.get_mut(name) else { return };
        state.links = state.links.saturating_sub(1);
        if state.links > 0 {
            return;
        }
        if state.told {
            self.changed.insert(Arc::clone(name));
        } else {
            self.names.remove(name);
            self.changed.remove(name);
        }
    }

    /// What changed since the last call. There is one reader.
    pub(super) fn take(&mut self) -> Changes {
        let mut changes = Changes::default();
        for name in self.changed.drain() {
            let Some(state) = self.names.get_mut(&name) else { continue };
            match (state.links > 0, state.told) {
                (true, false) => {
                    state.told = true;
                    changes.added.push(name);
                }
                (false, true) => {
                    self.names.remove(&name);
                    changes.gone.push(name);
                }
                // Went and came back, or came and went, between two questions.
                (true, true) | (false, false) => {}
            }
        }
        changes
    }
}
