//! Builds the kernel program into the object that is committed, the same bytes on every machine.
//!
//! The object carries no debug information and no BTF: both hold paths, and no hook of the agent needs them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{bpf_linker, ebpf_object, paths, process, toolchain::Nightly};

const CRATE: &str = "oom-watcher-ebpf";
const OBJECT: &str = "oom-watcher/bpf/oom-watcher.bpf.o";
const TARGET: &str = "bpfel-unknown-none";
/// Separated as Cargo wants it. The architecture picks aya-ebpf's register layout, which no program here uses: arguments are
/// read at an offset that the agent resolves, so that one object serves every architecture.
const FLAGS: &str = "--cfg=bpf_target_arch=\"x86_64\"\x1f-Cdebuginfo=0";

/// How the object is built.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rebuild in a temporary folder and compare with the committed object instead of writing it
    #[arg(long)]
    check: bool,
}

/// `cargo xtask build-ebpf`.
pub(crate) fn build(options: &Options) -> Result<()> {
    let committed = paths::workspace().join(OBJECT);
    let built = if options.check { compile_afresh()? } else { compile(&paths::target().join("ebpf"))? };
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    ebpf_object::check(&bytes)?;
    if options.check {
        return compare(&bytes, &committed);
    }
    paths::make(committed.parent().context("the object has no folder")?)?;
    fs::write(&committed, &bytes).with_context(|| format!("cannot write {}", committed.display()))?;
    println!("wrote {OBJECT}: {} bytes", bytes.len());
    Ok(())
}

/// Compiles with nothing kept from an earlier build, which could hide that the bytes depend on the folder.
fn compile_afresh() -> Result<PathBuf> {
    let folder = paths::target().join("ebpf-check");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    compile(&folder)
}

fn compile(target_folder: &Path) -> Result<PathBuf> {
    let folder = paths::workspace().join(CRATE);
    let nightly = Nightly::provide()?;
    let linker = bpf_linker::provide(&nightly)?;
    let mut build = nightly.cargo();
    build.args(["build", "--release", "--locked", "-Z", "build-std=core", "--target", TARGET, "--bin", CRATE]);
    build.current_dir(&folder);
    build.env("CARGO_ENCODED_RUSTFLAGS", FLAGS);
    build.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    build.env("CARGO_TARGET_DIR", target_folder);
    process::run(&mut build)?;
    Ok(target_folder.join(TARGET).join("release").join(CRATE))
}

fn compare(built: &[u8], committed: &Path) -> Result<()> {
    let bytes = fs::read(committed).with_context(|| format!("cannot read {}", committed.display()))?;
    ebpf_object::check(&bytes).context("the committed object")?;
    if built != bytes {
        bail!(
            "{OBJECT} ({} bytes) is not what {CRATE} builds to ({} bytes): run `cargo xtask build-ebpf` and commit the result",
            bytes.len(),
            built.len()
        );
    }
    println!("{OBJECT} is what {CRATE} builds to: {} bytes", bytes.len());
    Ok(())
}
