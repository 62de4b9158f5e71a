//! Opening the listening socket.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind as bind_socket, listen, socket_with, sockopt},
};
use thiserror::Error;

/// Connections that wait in the kernel to be accepted: twice as many as are served at once. Each takes memory that no limit of the
/// agent's counts.
const BACKLOG: i32 = 128;

/// The server's address cannot be had.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {remedy}")]
pub struct BindError {
    address: SocketAddr,
    remedy: &'static str,
    #[source]
    source: io::Error,
}

/// Listens on `port` of `address`, or without one on all addresses: IPv6 and IPv4 by one socket, IPv4 alone where the
/// machine has no IPv6. Port 0 takes a free one.
pub fn bind(address: Option<IpAddr>, port: u16) -> Result<TcpListener, BindError> {
    let first = SocketAddr::new(address.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port);
    match listen_on(first) {
        Ok(listener) => Ok(listener),
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if address.is_none() => {
            let second = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
            listen_on(second).map_err(|errno| BindError::new(second, errno))
        }
        Err(errno) => Err(BindError::new(first, errno)),
    }
}

fn listen_on(address: SocketAddr) -> Result<TcpListener, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    if address.is_ipv6() {
        // Whatever net.ipv6.bindv6only says.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // A restart does not wait for connections of the one before.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind_socket(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

impl BindError {
    fn new(address: SocketAddr, errno: Errno) -> Self {
        let remedy = match errno {
            Errno::ADDRINUSE => "another program has the port; choose one with --metrics-port (METRICS_PORT)",
            Errno::ACCESS => {
                "a port below 1024 needs CAP_NET_BIND_SERVICE; choose one with --metrics-port (METRICS_PORT)"
            }
            Errno::ADDRNOTAVAIL => {
                "this machine has no such address; choose one with --metrics-address (METRICS_ADDRESS)"
            }
            Errno::AFNOSUPPORT => {
                "this machine has no IPv6; choose an address with --metrics-address (METRICS_ADDRESS)"
            }
            _ => {
                "choose another address or port with --metrics-address and --metrics-port (METRICS_ADDRESS, METRICS_PORT)"
            }
        };
        Self { address, remedy, source: errno.into() }
    }
}
