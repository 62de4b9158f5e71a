//! The kernels of the guests: which ones, and how the newest of each is found and unpacked.
//!
//! They are found through the index of a Debian suite, never by a fixed name: names change with each build.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{apt, paths, process};

/// A folder of kernels that is looked at before Debian's index, for those that mirrors drop.
const FOLDER: &str = "OOM_WATCHER_KERNELS";

/// Architectures under Debian's names.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// This machine's.
    pub(crate) fn own() -> Self {
        if env::consts::ARCH == Self::Arm64.rust() { Self::Arm64 } else { Self::Amd64 }
    }

    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Its name in Rust's triples.
    pub(crate) const fn rust(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    pub(crate) fn triple(self) -> String {
        format!("{}-unknown-linux-gnu", self.rust())
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.debian())
    }
}

/// One kernel of the matrix.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    pub(crate) key: &'static str,
    pub(crate) arch: Arch,
    pub(crate) suite: &'static str,
    /// How the versions begin that a folder of kernels may give for it; none where the suite moves every week.
    version: Option<&'static str>,
    /// Its guest has the memory hierarchy of cgroup version 1, which Debian builds up to 6.1.
    pub(crate) cgroup_v1: bool,
}

/// Every kernel that the suite is run on, the oldest first.
pub(crate) const ALL: &[Kernel] = &[
    // The last 5.10 whose mark_victim gives only a pid; the one below has the same number and the task.
    kernel("5.10-old", Arch::Amd64, "bullseye", Some("5.10.223-")),
    kernel("5.10", Arch::Amd64, "bullseye-security", Some("5.10.")),
    kernel("6.1", Arch::Amd64, "bookworm", Some("6.1.")),
    kernel("6.12", Arch::Amd64, "trixie", Some("6.12.")),
    kernel("newest", Arch::Amd64, "sid", None),
    kernel("experimental", Arch::Amd64, "experimental", None),
    kernel("5.10-old", Arch::Arm64, "bullseye", Some("5.10.223-")),
    kernel("6.1", Arch::Arm64, "bookworm", Some("6.1.")),
    kernel("6.12", Arch::Arm64, "trixie", Some("6.12.")),
    kernel("newest", Arch::Arm64, "sid", None),
    v1(kernel("5.10-old-v1", Arch::Amd64, "bullseye", Some("5.10.223-"))),
    v1(kernel("5.10-v1", Arch::Amd64, "bullseye-security", Some("5.10."))),
    v1(kernel("6.1-v1", Arch::Amd64, "bookworm", Some("6.1."))),
    v1(kernel("5.10-old-v1", Arch::Arm64, "bullseye", Some("5.10.223-"))),
    v1(kernel("6.1-v1", Arch::Arm64, "bookworm", Some("6.1."))),
];

const fn kernel(key: &'static str, arch: Arch, suite: &'static str, version: Option<&'static str>) -> Kernel {
    Kernel { key, arch, suite, version, cgroup_v1: false }
}

const fn v1(kernel: Kernel) -> Kernel {
    Kernel { cgroup_v1: true, ..kernel }
}

/// The kernel with this key, or an error that lists the keys.
pub(crate) fn find(key: &str, arch: Arch) -> Result<&'static Kernel> {
    ALL.iter().find(|kernel| kernel.key == key && kernel.arch == arch).with_context(|| {
        let keys = ALL.iter().filter(|kernel| kernel.arch == arch).map(|kernel| kernel.key);
        format!("no kernel {key:?} for {arch}; there are {}", keys.collect::<Vec<_>>().join(", "))
    })
}

/// A kernel that QEMU can start.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) file: PathBuf,
    /// The version of the Debian package.
    pub(crate) version: String,
}

impl Kernel {
    /// The name of its logs.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.key, self.arch)
    }

    /// The newest of this kernel: from the folder, the cache or Debian.
    pub(crate) fn provide(&self) -> Result<Image> {
        if let (Some(folder), Some(version)) = (env::var_os(FOLDER), self.version)
            && let Some(image) = self.take_from_folder(Path::new(&folder), version)?
        {
            return Ok(image);
        }
        self.take_from_debian()
    }

    fn take_from_folder(&self, folder: &Path, prefix: &str) -> Result<Option<Image>> {
        let mut newest: Option<Image> = None;
        let listing = || format!("cannot list {}, which {FOLDER} names", folder.display());
        for entry in fs::read_dir(folder).with_context(listing)? {
            let file = entry.with_context(listing)?.path();
            let Some(version) = self.version_in_name(&file).filter(|version| version.starts_with(prefix)) else {
                continue;
            };
            if newest.as_ref().is_none_or(|known| newer(&version, &known.version)) {
                newest = Some(Image { file, version });
            }
        }
        let Some(image) = newest else { return Ok(None) };
        verify(folder, &image.file)?;
        self.decompressed(image).map(Some)
    }

    /// The version in `vmlinuz-<version>-cloud-<arch>[.xz]`.
    fn version_in_name(&self, file: &Path) -> Option<String> {
        let name = file.file_name()?.to_str()?;
        let name = name.strip_suffix(".xz").unwrap_or(name);
        Some(name.strip_prefix("vmlinuz-")?.strip_suffix(&format!("-cloud-{}", self.arch))?.to_owned())
    }

    fn cached(&self, version: &str) -> Result<PathBuf> {
        Ok(paths::cache("kernels")?.join(format!("vmlinuz-{version}-cloud-{}", self.arch)))
    }

    fn decompressed(&self, image: Image) -> Result<Image> {
        if image.file.extension().is_none_or(|extension| extension != "xz") {
            return Ok(image);
        }
        let file = self.cached(&image.version)?;
        if !file.is_file() {
            write_whole(&file, |out| process::run(Command::new("xz").arg("-dc").arg(&image.file).stdout(out)))?;
        }
        Ok(Image { file, ..image })
    }

    fn take_from_debian(&self) -> Result<Image> {
        let suite = apt::Suite::open(self.suite, self.arch.debian())?;
        let package = image_package(&suite, self.arch)?;
        let file = self.cached(&package.version)?;
        if !file.is_file() {
            let deb = suite.download(&package, &paths::cache("kernels")?)?;
            extract(&deb, &file)?;
            fs::remove_file(&deb).with_context(|| format!("cannot remove {}", deb.display()))?;
        }
        Ok(Image { file, version: package.version })
    }
}

/// Follows the package that always names the newest kernel to the one that holds it. From Linux 7 on the package of the
/// image is empty too and names `linux-binary-…`.
fn image_package(suite: &apt::Suite, arch: Arch) -> Result<apt::Package> {
    let mut package = suite.newest(&format!("linux-image-cloud-{arch}"))?;
    for prefix in ["linux-image-", "linux-binary-"] {
        if let Some(next) = package.depends.iter().find(|name| name.starts_with(prefix)) {
            package = suite.newest(next)?;
        }
    }
    Ok(package)
}

/// Unpacks the one kernel of a package: `boot/vmlinuz-…`, and from Linux 7 on `usr/lib/modules/…/vmlinuz`.
fn extract(deb: &Path, file: &Path) -> Result<()> {
    let mut archive = Command::new("dpkg-deb");
    archive.arg("--fsys-tarfile").arg(deb);
    let names = process::pipe(&mut archive, Command::new("tar").arg("-t"), process::output)?;
    let is_kernel = |name: &&str| name.rsplit('/').next().is_some_and(|base| base.starts_with("vmlinuz"));
    let name = names.lines().find(is_kernel).with_context(|| format!("no vmlinuz in {}", deb.display()))?;
    write_whole(file, |out| {
        process::pipe(&mut archive, Command::new("tar").args(["-xO", name]).stdout(out), process::run)
    })
}

/// Lets `write` fill a file that gets its name only when it is whole.
fn write_whole(file: &Path, write: impl FnOnce(fs::File) -> Result<()>) -> Result<()> {
    let partial = file.with_added_extension("partial");
    let out = fs::File::create(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    write(out)?;
    fs::rename(&partial, file).with_context(|| format!("cannot make {}", file.display()))
}

/// Compares a file of the folder with the folder's `SHA256SUMS`.
fn verify(folder: &Path, file: &Path) -> Result<()> {
    let list = folder.join("SHA256SUMS");
    let sums = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let listed = sums.lines().find_map(|line| line.split_once("  ").filter(|(_, listed)| *listed == name));
    let Some((listed, _)) = listed else { bail!("{} does not list {name}", list.display()) };
    let sum = process::sha256(file)?;
    ensure!(sum == listed, "{} has the sum {sum}, but {} says {listed}", file.display(), list.display());
    Ok(())
}

/// Whether Debian's order puts `version` after `known`.
fn newer(version: &str, known: &str) -> bool {
    process::output(Command::new("dpkg").args(["--compare-versions", version, "gt", known])).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_by_its_architecture() {
        for kernel in ALL {
            assert_eq!(find(kernel.key, kernel.arch).unwrap().name(), kernel.name());
        }
    }

    #[test]
    fn an_unknown_key_lists_the_known_ones() {
        let error = find("6.2", Arch::Arm64).err().unwrap().to_string();
        assert!(error.contains("\"6.2\"") && error.contains("5.10-old, 6.1, 6.12, newest"), "{error}");
    }

    #[test]
    fn a_file_name_gives_the_version_of_its_architecture_only() {
        let kernel = find("5.10-old", Arch::Arm64).unwrap();
        let version = |name: &str| kernel.version_in_name(Path::new(name));
        assert_eq!(version("/k/vmlinuz-5.10.223-1-cloud-arm64.xz").as_deref(), Some("5.10.223-1"));
        assert_eq!(version("/k/vmlinuz-5.10.223-1-cloud-arm64").as_deref(), Some("5.10.223-1"));
        assert_eq!(version("/k/vmlinuz-5.10.223-1-cloud-amd64"), None);
        assert_eq!(version("/k/README.md"), None);
    }

    #[test]
    fn a_folder_gives_its_newest_kernel_and_only_an_unharmed_one() {
        let folder = env::temp_dir().join(format!("xtask-kernels-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let names = ["vmlinuz-5.10.99-1-cloud-amd64", "vmlinuz-5.10.262-1-cloud-amd64", "vmlinuz-6.1.1-1-cloud-amd64"];
        let mut sums = String::new();
        for name in names {
            fs::write(folder.join(name), name).unwrap();
            sums += &[&process::sha256(&folder.join(name)).unwrap(), "  ", name, "\n"].concat();
        }
        fs::write(folder.join("SHA256SUMS"), sums).unwrap();
        let kernel = find("5.10", Arch::Amd64).unwrap();
        assert_eq!(kernel.take_from_folder(&folder, "5.10.").unwrap().unwrap().version, "5.10.262-1");
        assert!(kernel.take_from_folder(&folder, "5.15.").unwrap().is_none());

        fs::write(folder.join(names[1]), "harmed").unwrap();
        let error = kernel.take_from_folder(&folder, "5.10.").err().unwrap().to_string();
        assert!(error.contains(names[1]) && error.contains("SHA256SUMS"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
