//! Debian's archive, seen by suite through apt itself, in a root of its own.
//!
//! The machine's own apt configuration gives the mirror, the proxy and the keys; its package state is neither read nor
//! changed, and no root is needed. apt checks the signature of the index and the hash of each package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{paths, process};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite for one architecture, its index fetched.
pub(crate) struct Suite {
    root: PathBuf,
    name: String,
    arch: &'static str,
    /// Locked: of two at once, apt refuses the second.
    _in_use: fs::File,
}

/// What the index says of the newest version of a package.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) depends: Vec<String>,
}

impl Suite {
    /// Fetches the index of `name` (for example `bookworm`, `bullseye-security`) for `arch`.
    pub(crate) fn open(name: &str, arch: &'static str) -> Result<Self> {
        let root = paths::cache("apt")?.join(format!("{name}-{arch}"));
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            paths::make(&root.join(folder))?;
        }
        let lock = root.join("lock");
        let in_use = fs::File::create(&lock).with_context(|| format!("cannot make {}", lock.display()))?;
        in_use.lock().with_context(|| format!("cannot lock {}", lock.display()))?;
        let line = format!("deb [signed-by={KEYRING}] {} {name} main\n", mirror(name)?);
        fs::write(root.join("sources.list"), line).with_context(|| format!("cannot write below {}", root.display()))?;
        let suite = Self { root, name: name.to_owned(), arch, _in_use: in_use };
        eprintln!("fetching the index of Debian {name} for {arch}");
        process::output(suite.apt("apt-get").args(["-qq", "update"]))
            .with_context(|| format!("cannot fetch the index of Debian {name} for {arch}"))?;
        Ok(suite)
    }

    /// The newest version of `package` in this suite.
    pub(crate) fn newest(&self, package: &str) -> Result<Package> {
        let stanza = process::output(self.apt("apt-cache").args(["show", "--no-all-versions", package]))
            .with_context(|| format!("no package {package} in Debian {} for {}", self.name, self.arch))?;
        parse(package, &stanza)
    }

    /// Downloads `package` into `folder` and gives the file.
    pub(crate) fn download(&self, package: &Package, folder: &Path) -> Result<PathBuf> {
        let wanted = format!("{}={}", package.name, package.version);
        let empty = paths::make(&folder.join(format!("{}.partial", package.name)))?;
        eprintln!("downloading {wanted} for {}", self.arch);
        process::output(self.apt("apt-get").args(["-qq", "download", &wanted]).current_dir(&empty))?;
        let mut files = fs::read_dir(&empty).with_context(|| format!("cannot list {}", empty.display()))?;
        let Some(file) = files.next() else { bail!("apt-get downloaded nothing for {wanted}") };
        let file = file.with_context(|| format!("cannot list {}", empty.display()))?;
        let kept = folder.join(file.file_name());
        fs::rename(file.path(), &kept).with_context(|| format!("cannot keep {}", kept.display()))?;
        fs::remove_dir_all(&empty).with_context(|| format!("cannot remove {}", empty.display()))?;
        Ok(kept)
    }

    fn apt(&self, program: &str) -> Command {
        let root = self.root.display();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::State={root}/state"),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Cache={root}/cache"),
            format!("Dir::Etc::sourcelist={root}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("APT::Architecture={}", self.arch),
            format!("APT::Architectures={}", self.arch),
            "Acquire::Languages=none".to_owned(),
            // Without it a mirror that is out of reach is a success.
            "APT::Update::Error-Mode=any".to_owned(),
            // A suite whose support has ended is not signed anew; what it says no longer changes.
            "Acquire::Check-Valid-Until=false".to_owned(),
            // The cache is in the user's home, where apt's own unprivileged user may not write.
            "APT::Sandbox::User=".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// The mirror that this machine's apt uses for Debian, else the public one.
pub(crate) fn mirror(suite: &str) -> Result<String> {
    let archive = if suite.ends_with("-security") { "debian-security" } else { "debian" };
    let sites = process::output(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))?;
    let own =
        sites.lines().map(|site| site.trim_end_matches('/')).find(|site| site.rsplit('/').next() == Some(archive));
    Ok(own.map_or_else(|| format!("http://deb.debian.org/{archive}"), str::to_owned))
}

fn parse(name: &str, stanza: &str) -> Result<Package> {
    let field = |field: &str| stanza.lines().find_map(|line| line.strip_prefix(field));
    let version = field("Version: ").with_context(|| format!("no version in the stanza of {name}"))?;
    let depends = field("Depends: ").unwrap_or_default().split(", ");
    let depends = depends.filter_map(|one| one.split_whitespace().next()).map(str::to_owned).collect();
    Ok(Package { name: name.to_owned(), version: version.to_owned(), depends })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_gives_version_and_bare_names() {
        let package = parse(
            "linux-image-cloud-amd64",
            "Package: linux-image-cloud-amd64\nVersion: 6.1.176-1\nDepends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1), kmod\n",
        )
        .unwrap();
        assert_eq!(package.version, "6.1.176-1");
        assert_eq!(package.depends, ["linux-image-6.1.0-50-cloud-amd64", "kmod"]);
    }

    #[test]
    fn a_stanza_without_version_is_an_error_with_the_name() {
        let error = parse("some-package", "Package: some-package\n").err().unwrap();
        assert!(error.to_string().contains("some-package"), "{error}");
    }
}
