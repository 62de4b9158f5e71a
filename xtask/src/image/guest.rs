//! The proofs in a guest: a small Debian with Python and the runtimes, and the same tests as on this machine.
//!
//! The guest has the second version of cgroups. Its kernel, its first process and its console are those of `cargo xtask vm`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Options, pages, privileges::Page, proof::Proof};
use crate::{
    apt, paths, process,
    vm::{
        guest,
        initramfs::{self, Content, Entry},
        kernels::{self, Arch, Kernel},
        qemu,
    },
};

const SUITE: &str = "bookworm";
const PACKAGES: &str = "busybox-static,crun,iproute2,python3,runc";
/// In MiB: the system lies in memory twice, packed and unpacked.
const MEMORY: u32 = 1024;
/// Emulated, on a busy machine.
const TIME_LIMIT: Duration = Duration::from_mins(20);

/// Runs the proofs in a guest of each of the kernels; one that fails stops no other.
pub(super) fn run_all(options: &Options, proof: &Proof, folder: &Path, page: &Page) -> Result<()> {
    ensure!(!options.write_pages || options.guest.len() == 1, "--write-pages keeps the pages of one guest");
    let kernels: Result<Vec<_>> = options.guest.iter().map(|key| kernels::find(key, proof.arch)).collect();
    let initramfs = initramfs(proof, folder)?;
    let mut failures = Vec::new();
    for kernel in kernels? {
        if let Err(error) = run_one(kernel, &initramfs, folder, &options.filter).and_then(|results| {
            pages::settle(&results, options.write_pages)?;
            if options.filter.is_empty() { page.settle_kernel(kernel, &results) } else { Ok(()) }
        }) {
            failures.push(format!("{}: {error:#}", kernel.name()));
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n\n"));
    }
    Ok(())
}

/// The lines of JSON that the proofs left, if all of them passed.
fn run_one(kernel: &Kernel, initramfs: &Path, folder: &Path, filter: &[String]) -> Result<Vec<Value>> {
    let name = kernel.name();
    let image = kernel.provide()?;
    println!("{name}: starting {}", image.version);
    let started = Instant::now();
    let guest = qemu::Guest {
        arch: kernel.arch,
        kernel: &image.file,
        initramfs,
        cgroup_v1: kernel.cgroup_v1,
        memory: MEMORY,
        disk: None,
        arguments: filter,
        time_limit: TIME_LIMIT,
    };
    let log = folder.join(format!("guest-{name}.log"));
    let outcome = guest.run(&log)?;
    if let Some(counts) = outcome.test_result() {
        println!("{name}: {counts}");
    }
    if let Err(error) = outcome.verdict() {
        bail!("{error:#}\n  console in {}, its end:\n{}", log.display(), outcome.tail());
    }
    println!("{name}: the image was proven on {} in {:.0} s", image.version, started.elapsed().as_secs_f32());
    let results = outcome.results();
    let results: Result<Vec<Value>, _> = results.lines().map(serde_json::from_str).collect();
    results.with_context(|| format!("cannot understand the results in {}", log.display()))
}

/// The first process, a shell that unpacks, and what it unpacks.
fn initramfs(proof: &Proof, folder: &Path) -> Result<PathBuf> {
    let arch = proof.arch;
    let system = system(folder, arch)?;
    let busybox = folder.join(format!("busybox-{arch}"));
    let mut unpack = Command::new("tar");
    let out = fs::File::create(&busybox).with_context(|| format!("cannot make {}", busybox.display()))?;
    process::run(unpack.arg("-xOf").arg(&system).arg("./bin/busybox").stdout(out))?;
    let tests = folder.join(format!("proof-{arch}.tar"));
    let mut pack = Command::new("tar");
    pack.arg("-cf").arg(&tests).arg(format!("--transform=s,^proof-{arch},proof,"));
    pack.arg("-C").arg(folder).arg(format!("proof-{arch}"));
    process::run(
        pack.arg("-C").arg(paths::workspace()).args(["--transform=s,^tests/image,proof/tests,", "tests/image"]),
    )?;
    let archive = folder.join(format!("guest-{arch}.cpio"));
    let shell = paths::workspace().join("tests/image/guest.sh");
    let files = [("bin/busybox", busybox), ("suite/image", shell), ("system.tar", system), ("proof.tar", tests)];
    let mut entries = vec![guest::init(arch)?];
    entries.extend(files.map(|(path, file)| Entry { path: path.to_owned(), content: Content::Program(file) }));
    initramfs::write(&archive, &entries)?;
    Ok(archive)
}

/// Debian's packages, unpacked and not configured: another architecture's programs cannot be run here.
fn system(folder: &Path, arch: Arch) -> Result<PathBuf> {
    let file = folder.join(format!("system-{arch}.tar"));
    if !file.is_file() {
        let partial = folder.join("system.partial.tar");
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(["--variant=extract", &format!("--architectures={arch}"), &format!("--include={PACKAGES}")]);
        // The devices are the guest's own; documents and translations are nobody's.
        bootstrap.args(["--skip=output/dev", "--customize-hook=rm -r \"$1\"/usr/share/doc \"$1\"/usr/share/locale"]);
        process::run(bootstrap.arg(SUITE).arg(&partial).arg(apt::mirror(SUITE)?))?;
        fs::rename(&partial, &file).with_context(|| format!("cannot keep {}", file.display()))?;
    }
    Ok(file)
}
