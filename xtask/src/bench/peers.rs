//! This watcher beside others that Debian has packages of, in a guest: most of them need kprobes, which not every machine has.
//!
//! What they are and how they are measured is `benches peers`, which runs in the guest; here is what the guest is made of.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{Programs, statistics::quantile};
use crate::{
    apt, paths, process,
    vm::{
        guest,
        initramfs::{self, Content, Entry},
        kernels::{self, Arch, Kernel},
        qemu,
    },
};

/// The kernel, and the release that it and the packages are of: bcc compiles against the headers of the kernel that runs.
const KERNEL: &str = "6.1";
const PEERS: [&str; 3] = ["libbpf-tools", "bpfcc-tools", "bpftrace"];
/// What they need beside what they depend on: bpftrace ends at once without a shell.
const OTHERS: &str = "busybox-static,coreutils,dash,python3";
/// In MiB: the small Debian, with two compilers, lies in memory, and each of the two takes some hundred more.
const MEMORY: u32 = 3072;
/// Emulated: compiling a probe takes minutes.
const TIME_LIMIT: Duration = Duration::from_mins(45);

/// Every watcher's figures, with the versions of the packages.
pub(super) fn measure(programs: &Programs, kills: usize, seconds: u64) -> Result<Value> {
    ensure!(Arch::own() == Arch::Amd64, "the guest is of amd64, and runs the programs of this machine");
    let folder = paths::make(&paths::target().join("bench/peers"))?;
    let kernel = kernels::find(KERNEL, Arch::Amd64)?;
    let image = kernel.provide()?;
    let suite = apt::Suite::open(kernel.suite, kernel.arch.debian())?;
    let mut versions = json!({});
    for name in PEERS {
        versions[name] = json!(suite.newest(name)?.version);
    }
    let disk = system(&folder, &suite, kernel, &versions)?;
    let initramfs = folder.join("guest.cpio");
    initramfs::write(&initramfs, &entries(programs, &disk, &folder)?)?;
    let arguments = ["--kills", &kills.to_string(), "--seconds", &seconds.to_string()].map(str::to_owned);
    let guest = qemu::Guest {
        arch: kernel.arch,
        kernel: &image.file,
        initramfs: &initramfs,
        cgroup_v1: false,
        memory: MEMORY,
        disk: Some(&disk),
        arguments: &arguments,
        time_limit: TIME_LIMIT,
    };
    let log = folder.join("guest.log");
    println!("starting {}, which takes a quarter of an hour; its console is {}", image.version, log.display());
    let outcome = guest.run(&log)?;
    if let Err(error) = outcome.verdict() {
        bail!("{error:#}\n  console in {}, its end:\n{}", log.display(), outcome.tail());
    }
    let results = outcome.results();
    let mut peers: Value = serde_json::from_str(&results).with_context(|| format!("the guest said {results:?}"))?;
    for watcher in peers["watchers"].as_array_mut().context("the guest had no watchers")? {
        ["alone", "group", "at_once"].iter().try_for_each(|what| summarize(&mut watcher[*what]))?;
    }
    peers["packages"] = versions;
    peers["memory_mib"] = json!(MEMORY);
    Ok(peers)
}

/// Adds the quantiles of what a watcher told; one that did not run, or told nothing, has none.
fn summarize(told: &mut Value) -> Result<()> {
    let after: Vec<f64> = told["after_ms"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    if !after.is_empty() {
        for (name, share) in [("median_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0)] {
            told[name] = json!(quantile(&after, share)?);
        }
    }
    Ok(())
}

/// What the guest has in memory: its first process, a shell, and what is measured and measures.
fn entries(programs: &Programs, system: &Path, folder: &Path) -> Result<Vec<Entry>> {
    let busybox = folder.join("busybox");
    let out = File::create(&busybox).with_context(|| format!("cannot make {}", busybox.display()))?;
    process::run(Command::new("tar").arg("-xOf").arg(system).arg("./bin/busybox").stdout(out))?;
    let files = [
        ("bin/busybox", busybox),
        ("suite/peers", paths::workspace().join("benches/peers.sh")),
        ("peers/oom-watcher", programs.agent.clone()),
        ("peers/benches", programs.benches.clone()),
    ];
    let mut entries = vec![guest::init(Arch::Amd64)?];
    entries.extend(files.map(|(path, file)| Entry { path: path.to_owned(), content: Content::Program(file) }));
    Ok(entries)
}

/// An archive with Debian's packages, unpacked and not configured, and the kernel's headers. Its name has their versions.
fn system(folder: &Path, suite: &apt::Suite, kernel: &Kernel, versions: &Value) -> Result<PathBuf> {
    let headers = headers(suite)?;
    let names = PEERS.iter().filter_map(|name| versions[*name].as_str()).chain(headers.iter().map(|one| &*one.version));
    let file = folder.join(format!("system-{}.tar", names.collect::<Vec<_>>().join("-")));
    if !file.is_file() {
        // Under another name until it is whole.
        let partial = folder.join("system.partial.tar");
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(["--variant=extract", &format!("--architectures={}", kernel.arch), "--skip=output/dev"]);
        bootstrap.arg(format!("--include={OTHERS},{}", PEERS.join(",")));
        process::run(bootstrap.arg(kernel.suite).arg(&partial).arg(apt::mirror(kernel.suite)?))?;
        for package in &headers {
            let deb = suite.download(package, folder)?;
            let archive = folder.join("headers.tar");
            let out = File::create(&archive).with_context(|| format!("cannot make {}", archive.display()))?;
            process::run(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&deb).stdout(out))?;
            process::run(Command::new("tar").arg("--concatenate").arg("--file").args([&partial, &archive]))?;
            for file in [deb, archive] {
                std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
            }
        }
        std::fs::rename(&partial, &file).with_context(|| format!("cannot keep {}", file.display()))?;
    }
    Ok(file)
}

/// The headers of the suite's kernel, without the compiler that they want for modules.
fn headers(suite: &apt::Suite) -> Result<Vec<apt::Package>> {
    let newest = suite.newest("linux-headers-cloud-amd64")?;
    let own =
        newest.depends.iter().find(|name| name.starts_with("linux-headers-")).context("it depends on no headers")?;
    let own = suite.newest(own)?;
    let common =
        own.depends.iter().find(|name| name.ends_with("-common")).context("the headers have no common part")?;
    let common = suite.newest(common)?;
    Ok(vec![own, common])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_told_nothing_has_no_quantiles() {
        let mut told = json!({ "after_ms": [3.0, 1.0, 2.0] });
        summarize(&mut told).unwrap();
        assert_eq!((&told["median_ms"], &told["p99_ms"], &told["max_ms"]), (&json!(2.0), &json!(3.0), &json!(3.0)));
        for mut nothing in [json!(null), json!({ "after_ms": [] })] {
            let before = nothing.clone();
            summarize(&mut nothing).unwrap();
            assert_eq!(nothing, before);
        }
    }
}
