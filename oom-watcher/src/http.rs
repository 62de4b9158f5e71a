//! The HTTP server: `/metrics`, `/livez`, `/readyz`.
//!
//! The only module that names the HTTP crate. It serves one request per connection, within one deadline, and holds a
//! stated number of connections and of pages being sent, so that no client can cost the watcher more than that. It shares
//! nothing with the reporting of kills but the counters that it shows.

mod listen;
mod server;

pub use listen::{BindError, bind};
pub use server::{Pages, serve};

#[cfg(test)]
mod tests;
