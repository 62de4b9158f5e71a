//! The packages of the system that development needs, by what shows that they are there.
//!
//! Missing ones are installed where this program may; elsewhere it says the command.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::process;

/// A program on the search path, or a file; and Debian's package of it.
const PACKAGES: [(&str, &str); 21] = [
    ("cc", "gcc"),
    ("xz", "xz-utils"),
    ("dpkg-deb", "dpkg"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross"),
    ("buildah", "buildah"),
    ("mmdebstrap", "mmdebstrap"),
    ("crun", "crun"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("openssl", "openssl"),
    ("systemd-analyze", "systemd"),
    ("promtool", "prometheus"),
    ("kubectl", "kubernetes-client"),
    ("valgrind", "valgrind"),
    ("wget", "wget"),
    // The keys of the kernels' index; on Debian it is always there, on Ubuntu it is not.
    ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    // Of the container suite.
    ("containerd", "containerd"),
    ("busybox", "busybox-static"),
];
/// Parts of the stable toolchain that its smallest installation lacks.
const COMPONENTS: [(&str, &str); 2] = [("cargo-clippy", "clippy"), ("cargo-fmt", "rustfmt")];

/// `cargo xtask deps`: installs what is missing, or fails with the command that would.
pub(crate) fn provide() -> Result<()> {
    for (program, component) in COMPONENTS {
        if process::output(Command::new(program).arg("--version")).is_err() {
            process::run(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    let missing: Vec<_> = PACKAGES.iter().filter(|(probe, _)| !present(probe)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        println!("every package of the system that development needs is installed");
        return Ok(());
    }
    if !process::found("apt-get") || !process::is_root()? {
        bail!("missing: {0}. As root: apt-get install --no-install-recommends {0}", missing.join(" "));
    }
    process::run(apt_get().args(["-qq", "update"]))?;
    process::run(apt_get().args(["-qq", "install", "--yes", "--no-install-recommends"]).args(missing))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn present(probe: &str) -> bool {
    if probe.starts_with('/') { Path::new(probe).exists() } else { process::found(probe) }
}
