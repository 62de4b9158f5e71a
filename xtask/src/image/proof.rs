//! What the proofs are given: the image, the chart's container, the filters of the runtimes, the keys of an API server.
//!
//! All of it in one folder, so that a guest gets the same as this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{apt, paths, process, vm::kernels::Arch};

/// Default filters of container runtimes, as Debian has them: the name, the package, the file. From this release on Podman's
/// and CRI-O's lets bpf(2) pass with `CAP_BPF` alone; before, only with `CAP_SYS_ADMIN`. containerd's is Docker's in Go.
const SECCOMP_SUITE: &str = "trixie";
const SECCOMP: [(&str, &str, &str); 2] = [
    ("podman", "golang-github-containers-common", "./usr/share/containers/seccomp.json"),
    (
        "docker",
        "golang-github-docker-docker-dev",
        "./usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json",
    ),
];
/// The stand-in's certificate: its authority signs it, because a client takes no authority for a server.
const NEW_KEY: [&str; 9] =
    ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"];

/// The folder.
pub(super) struct Proof {
    folder: PathBuf,
    /// Architecture of the image in it.
    pub(super) arch: Arch,
}

impl Proof {
    /// The folder for images of `arch`, which lacks everything at first.
    pub(super) fn at(folder: &Path, arch: Arch) -> Result<Self> {
        Ok(Self { folder: paths::make(&folder.join(format!("proof-{arch}")))?, arch })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the image belongs, as a registry would give it.
    pub(super) fn layout(&self) -> PathBuf {
        self.folder.join("oci")
    }

    /// Adds everything but the image, which has to be of this revision.
    pub(super) fn complete(&self, revision: &str) -> Result<()> {
        let file = self.folder.join("revision");
        fs::write(&file, revision).with_context(|| format!("cannot write {}", file.display()))?;
        self.filters()?;
        self.keys()?;
        process::run(Command::new(paths::workspace().join("tests/chart/run.sh")).arg("proof").arg(&self.folder))
    }

    /// What `seccompProfile: RuntimeDefault` means.
    fn filters(&self) -> Result<()> {
        let folder = paths::make(&self.folder.join("seccomp"))?;
        for (name, package, member) in SECCOMP {
            let file = folder.join(format!("{name}.json"));
            if file.is_file() {
                continue;
            }
            let suite = apt::Suite::open(SECCOMP_SUITE, "amd64")?;
            let package = suite.download(&suite.newest(package)?, &folder)?;
            let mut unpack = Command::new("tar");
            unpack.args(["-xO", member]);
            let mut archive = Command::new("dpkg-deb");
            let text = process::pipe(archive.arg("--fsys-tarfile").arg(&package), &mut unpack, process::output)?;
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            fs::remove_file(&package).with_context(|| format!("cannot remove {}", package.display()))?;
        }
        Ok(())
    }

    fn keys(&self) -> Result<()> {
        let folder = paths::make(&self.folder.join("api"))?;
        let openssl = || {
            let mut command = Command::new("openssl");
            command.args(NEW_KEY).current_dir(&folder);
            command
        };
        process::output(openssl().args(["-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt"]))?;
        let extensions = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
        let signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.crt"];
        process::output(openssl().args(["-subj", "/CN=kubernetes"]).args(signed).args(extensions)).map(drop)
    }
}
