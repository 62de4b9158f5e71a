//! Names of the node's containers, from the node itself: the links that the kubelet keeps in `/var/log/containers`.
//!
//! One read-only directory, no log content, no socket, no API. [`link`] reads one name, [`Index`] holds them, [`Scanner`]
//! reads the directory, [`Feed`] follows it; readers ask through [`Names`]. [`cri`] asks the runtime, where that is
//! configured. Nothing here knows what a kill is.

pub mod cri;
mod feed;
mod index;
pub mod link;
mod presence;
mod scan;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

pub use feed::{Feed, Health, Problem};
pub use index::{Container, Index, Limits, Stats};
pub use link::ContainerName;
pub use presence::Changes;
pub use scan::{ScanError, Scanner};

/// The index, shared. The lock is held for single operations only, never across an await, and nothing under it does IO:
/// a reader waits for microseconds at most.
#[derive(Clone, Debug, Default)]
pub struct Names {
    index: Arc<Mutex<Index>>,
    link_added: Arc<Notify>,
}

impl Names {
    /// An empty index.
    pub fn new(limits: Limits) -> Self {
        Self { index: Arc::new(Mutex::new(Index::new(limits))), link_added: Arc::default() }
    }

    /// One operation on the index.
    pub fn with<T>(&self, operation: impl FnOnce(&mut Index) -> T) -> T {
        // A panic under the lock leaves a whole entry behind at worst; names must outlive it.
        operation(&mut self.index.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Resolves when a link is put into the index after this call, whether it is awaited by then or later.
    pub fn link_added(&self) -> impl Future<Output = ()> {
        self.link_added.notified()
    }

    /// Containers that appeared and went since the last call: the metrics' zero series. There is one reader.
    pub fn take_changes(&self) -> Changes {
        self.with(Index::take_changes)
    }

    /// Counts so far.
    pub fn stats(&self) -> Stats {
        self.with(|index| index.stats())
    }
}
