//! The pinned compiler of the kernel program, and of cross builds where the stable one has no target for it.
//!
//! The bytes of the committed object depend on these pins, so they are here and nowhere else. A user's build needs none
//! of this. What is already there is used; nothing is installed twice.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{apt, bpf_linker, paths, process};

/// The nightly by the name that rustup's servers know it by.
const NIGHTLY: &str = "nightly-2026-05-20";
/// The commit date that `rustc -Vv` prints for it: an installed nightly of any name with this date is the same compiler.
const COMMIT_DATE: &str = "2026-05-19";
/// The release whose standard library source stands in for the nightly's own: it branched off three days later.
const SOURCE_RELEASE: &str = "1.97";
/// An archive of that source (`library/` at its top), for machines that reach no server of rustup.
const SOURCE_ARCHIVE: &str = "OOM_WATCHER_RUST_SRC";

/// What makes a program static, wherever one is built: here, by Dockerfile.production, by `cross`.
pub(crate) const STATIC: &str = "-C target-feature=+crt-static";

/// The pinned nightly, installed, with the source of its standard library.
pub(crate) struct Nightly {
    name: String,
    sysroot: PathBuf,
}

impl Nightly {
    /// Finds the compiler, or installs what is missing, saying what it does.
    pub(crate) fn provide() -> Result<Self> {
        ensure!(process::found("rustup"), "rustup is not on the search path: install it from https://rustup.rs");
        let nightly = if let Some(nightly) = Self::installed()? {
            nightly
        } else {
            eprintln!("no nightly of {COMMIT_DATE} is installed: asking rustup for {NIGHTLY}");
            let install = ["toolchain", "install", NIGHTLY, "--profile", "minimal", "--component", "rust-src"];
            process::run(Command::new("rustup").args(install)).with_context(|| {
                format!(
                    "{NIGHTLY} is needed: install it where rustup's servers are in reach, or any nightly of that day"
                )
            })?;
            Self::installed()?
                .with_context(|| format!("rustup installed {NIGHTLY}, but no nightly of {COMMIT_DATE}"))?
        };
        nightly.provide_source()?;
        Ok(nightly)
    }

    /// Cargo of this toolchain.
    pub(crate) fn cargo(&self) -> Command {
        self.run("cargo")
    }

    /// A program that finds this toolchain, free of the flags and the toolchain of the cargo that started this one.
    pub(crate) fn run(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("rustup");
        command.args(["run", &self.name]).arg(program);
        let of_cargo = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN", "CARGO"];
        for name in of_cargo.into_iter().chain(process::OF_THIS_PACKAGE) {
            command.env_remove(name);
        }
        command
    }

    /// The name that rustup has it under.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where `rustc --print sysroot` says it is.
    pub(crate) fn sysroot(&self) -> &Path {
        &self.sysroot
    }

    /// The folder with the compiler's own LLVM.
    pub(crate) fn lib(&self) -> PathBuf {
        self.sysroot.join("lib")
    }

    fn installed() -> Result<Option<Self>> {
        let names = process::output(Command::new("rustup").args(["toolchain", "list", "--quiet"]))?;
        for name in names.lines().filter(|name| name.starts_with("nightly")) {
            let rustc =
                |argument: &[&str]| process::output(Command::new("rustup").args(["run", name, "rustc"]).args(argument));
            if rustc(&["-Vv"])?.lines().any(|line| line.strip_prefix("commit-date: ") == Some(COMMIT_DATE)) {
                let sysroot = rustc(&["--print", "sysroot"])?;
                return Ok(Some(Self { name: name.to_owned(), sysroot: sysroot.trim_end().into() }));
            }
        }
        Ok(None)
    }

    fn source(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust")
    }

    fn has_source(&self) -> bool {
        self.source().join("library/core/src/lib.rs").is_file()
    }

    /// The source of the standard library: from the archive that the environment names, from rustup, or from Debian.
    fn provide_source(&self) -> Result<()> {
        if self.has_source() {
            return Ok(());
        }
        eprintln!("{} has no rust-src", self.name);
        if let Some(archive) = env::var_os(SOURCE_ARCHIVE) {
            return self.unpack_archive(Path::new(&archive));
        }
        let add = ["component", "add", "rust-src", "--toolchain", &self.name];
        let added = process::run(Command::new("rustup").args(add));
        // rustup calls it a success when it once installed what somebody removed since.
        if added.is_ok() && self.has_source() {
            return Ok(());
        }
        eprintln!("rustup did not give it: trying Debian's package");
        self.unpack_debian().with_context(|| {
            let name = &self.name;
            format!(
                "rust-src for {name} is neither at rustup nor in Debian; {SOURCE_ARCHIVE} may name an archive of it"
            )
        })
    }

    fn unpack_archive(&self, archive: &Path) -> Result<()> {
        ensure!(archive.is_file(), "{SOURCE_ARCHIVE} names {}, which is not a file", archive.display());
        self.install_source(|folder| process::run(Command::new("tar").arg("-C").arg(folder).arg("-xJf").arg(archive)))
    }

    fn unpack_debian(&self) -> Result<()> {
        ensure!(process::found("apt-get"), "this machine has no apt-get");
        let suite = apt::Suite::open("sid", "amd64")?;
        let package = suite.newest("rust-src")?;
        if !package.version.starts_with(SOURCE_RELEASE) {
            bail!("Debian's rust-src is {} by now, not {SOURCE_RELEASE}", package.version);
        }
        let file = suite.download(&package, &paths::cache("rust-src")?)?;
        self.install_source(|folder| {
            let mut unpack = Command::new("tar");
            // The folder goes first: tar changes to it only for what follows.
            unpack.arg("-x").arg("-C").arg(folder).args(["--strip-components=4", "--wildcards"]);
            unpack.args(["--no-wildcards-match-slash", "./usr/src/rustc-*/library"]);
            process::pipe(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&file), &mut unpack, process::run)
        })
    }

    /// Lets `unpack` fill a folder beside the final one, then moves it there: an interrupted run leaves no half of it.
    fn install_source(&self, unpack: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let library = self.source().join("library");
        let partial = self.source().join("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        paths::make(&partial)?;
        unpack(&partial)?;
        fs::rename(partial.join("library"), &library).with_context(|| format!("cannot make {}", library.display()))?;
        fs::remove_dir(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
        eprintln!("unpacked rust-src to {}", library.display());
        Ok(())
    }
}

/// The variable that names the linker of programs for `triple`.
pub(crate) fn linker_variable(triple: &str) -> String {
    format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace('-', "_"))
}

/// `cargo xtask toolchain`: everything that `build-ebpf` and the arm64 build need.
pub(crate) fn provide() -> Result<()> {
    let nightly = Nightly::provide()?;
    let linker = bpf_linker::provide(&nightly)?;
    println!("nightly     {} ({})", nightly.name, nightly.sysroot.display());
    println!("bpf-linker  {}", linker.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernels::Arch;

    fn read(file: &str) -> String {
        fs::read_to_string(paths::workspace().join(file)).unwrap()
    }

    #[test]
    fn a_program_is_compiled_alike_by_docker_by_cross_and_here() {
        let dockerfile = read("Dockerfile.production");
        let flags = dockerfile.split_once("RUSTFLAGS=\"").unwrap().1.split_once('"').unwrap().0;
        // Beyond that it cuts paths, which are others everywhere.
        let remaining: Vec<_> = flags.strip_prefix(STATIC).unwrap().split_whitespace().collect();
        assert!(remaining.iter().all(|flag| flag.starts_with("--remap-path-prefix=")), "{remaining:?}");
        let cross = read("Cross.toml");
        for arch in [Arch::Amd64, Arch::Arm64] {
            let target = format!("[target.{}.env]\npassthrough = [\"RUSTFLAGS={STATIC}\"]\n", arch.triple());
            assert!(cross.contains(&target), "{target}");
            let linker = format!("{}={}-linux-gnu-gcc", linker_variable(&arch.triple()), arch.rust());
            assert!(dockerfile.contains(&linker), "{linker}");
        }
    }
}
