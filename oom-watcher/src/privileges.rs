//! Least power: once the hooks are attached, the watcher needs no capability any more, and keeps none.
//!
//! Capabilities belong to threads, and a thread inherits those of the one that starts it: this runs before any other thread.

use caps::{CapSet, errors::CapsError};

/// Why the watcher could not give up what it may do.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// One of its sets of capabilities.
    #[error("cannot clear the {set} capabilities")]
    Clear {
        /// Which set.
        set: &'static str,
        /// Why not.
        #[source]
        source: CapsError,
    },
    /// `no_new_privs`, prctl(2).
    #[error("cannot set no_new_privs")]
    NoNewPrivileges(#[source] rustix::io::Errno),
}

/// Clears every set of capabilities of this thread and forbids to gain any by executing a program.
///
/// The bounding set is cleared as far as `CAP_SETPCAP` allows: without permitted capabilities and with `no_new_privs` it has
/// nothing left to bound.
pub fn drop_all() -> Result<(), PrivilegesError> {
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap_or(false) {
        caps::clear(None, CapSet::Bounding).map_err(|source| PrivilegesError::Clear { set: "bounding", source })?;
    }
    for (set, name) in [
        (CapSet::Ambient, "ambient"),
        (CapSet::Inheritable, "inheritable"),
        (CapSet::Effective, "effective"),
        (CapSet::Permitted, "permitted"),
    ] {
        caps::clear(None, set).map_err(|source| PrivilegesError::Clear { set: name, source })?;
    }
    rustix::thread::set_no_new_privs(true).map_err(PrivilegesError::NoNewPrivileges)
}
