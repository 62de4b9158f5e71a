//! What a cgroup path says about a process: its pod, its container, its systemd unit.
//!
//! Everything here is pure text: the path comes from the kernel's own tree (`report::Level::name`, root first), and nothing
//! reads a file, knows a name that is not in the path, or fails. The layers, innermost first: one id ([`ContainerId`]), one
//! directory name (`segment`), the node that the agent itself belongs to ([`Node`]), the whole path ([`identify`]).

mod id;
mod node;
mod path;
mod segment;

pub use id::ContainerId;
pub use node::Node;
pub use path::{Identity, PlainIdentity, PodContainer, PodIdentity, SystemdUnit, identify};
pub use segment::{QosClass, Runtime};
