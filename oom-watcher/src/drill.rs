//! `oom-watcher drill`: a child of its own is killed in a memory-limited cgroup of its own, and the hook must report it.
//!
//! It cannot harm the machine: the child asks for a bounded amount of memory, in a cgroup that allows less, and offers
//! itself first (`oom_score_adj` 1000). Whatever happens, the child is ended and the cgroup removed.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use crate::{
    attach, clock,
    config::Config,
    decode::{OomKill, Record},
    kernel::{
        facts::{Facts, MemoryCgroup, Roots},
        reader::Reader,
    },
    run::{self, RunError},
};

/// What the drill's cgroup allows.
const LIMIT_BYTES: usize = 16 << 20;
/// What the child asks for: enough to run out, too little to be felt should the limit not hold.
const HOG_BYTES: usize = 64 << 20;
/// How long the emptied cgroup may take to be removable.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);

/// Why the drill did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The watcher itself.
    #[error("the watcher cannot start")]
    Watch(#[source] RunError),
    /// No memory cgroups here.
    #[error("no memory cgroup hierarchy is mounted ({0}): the drill needs one to be killed in")]
    NoMemoryCgroup(String),
    /// A step on the cgroup.
    #[error("cannot {operation} {}", path.display())]
    Cgroup {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A step on the child.
    #[error("cannot {operation} the drill's child")]
    Child {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The ring buffer.
    #[error("cannot read the ring buffer")]
    Reader(#[source] io::Error),
    /// The child lives on, or ended by itself.
    #[error("the child was not killed ({0}): the limit of the drill's cgroup does not hold")]
    NotKilled(String),
    /// The child died, and no hook said so.
    #[error(
        "the kernel killed the child (pid {pid}), and no hook reported it within {} s: a hook is attached that does not \
         fire",
        timeout.as_secs()
    )]
    NotReported {
        /// The child.
        pid: u32,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

/// Runs the drill and prints its result.
pub fn drill(config: &Config, timeout: Duration) -> Result<(), DrillError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|source| DrillError::Watch(RunError::start("start the runtime")(source)))?;
    runtime.block_on(async {
        let interrupted = run::asked_to_stop().map_err(DrillError::Watch)?;
        tokio::select! {
            biased;
            () = interrupted => Err(DrillError::Interrupted),
            result = run_drill(config, timeout) => result,
        }
    })
}

async fn run_drill(config: &Config, timeout: Duration) -> Result<(), DrillError> {
    let started = Instant::now();
    let (plan, loaded) = attach::attach(config.ring_buffer_bytes).map_err(DrillError::Watch)?;
    let attached = started.elapsed();
    let (events, _counters, _hooks, _programs) = loaded.into_parts();
    let mut reader = Reader::new(events).map_err(DrillError::Reader)?;
    let decoder = run::decoder(&plan);
    let cgroup = DrillCgroup::create()?;
    let mut child = DrillChild::start()?;
    let pid = child.0.id();
    cgroup.admit(pid)?;
    child.release()?;
    let mut report = None;
    let seen = async {
        while report.is_none() {
            reader
                .batch(|bytes| {
                    if let Ok(Record::Kill(kill)) = decoder.decode(bytes)
                        && is_child(&kill, pid, &cgroup)
                    {
                        report = Some((kill, clock::boot_ns()));
                    }
                })
                .await?;
        }
        Ok::<_, io::Error>(())
    };
    match tokio::time::timeout(timeout, seen).await {
        Ok(result) => result.map_err(DrillError::Reader)?,
        Err(_) => return Err(child.explain(timeout)?),
    }
    if let Some((kill, seen_ns)) = report {
        print(&kill, seen_ns, attached);
    }
    Ok(())
}

/// Whether the drill's child was killed. In a pid namespace its pid is another than the kernel's, and not the only one of that number.
fn is_child(kill: &OomKill, pid: u32, cgroup: &DrillCgroup) -> bool {
    let in_cgroup = || {
        let leaf = kill.cgroup.as_ref().and_then(|cgroup| cgroup.levels.last());
        leaf.is_some_and(|leaf| cgroup.path.ends_with(&leaf.name))
    };
    kill.victim.tgid.unwrap_or(kill.victim.pid) == pid || kill.victim.namespace_pid == Some(pid) && in_cgroup()
}

fn print(kill: &OomKill, seen_ns: u64, attached: Duration) {
    let latency = Duration::from_nanos(seen_ns.saturating_sub(kill.time_ns));
    let comm = kill.victim.comm.as_deref().unwrap_or("its child");
    println!(
        "The kernel killed {comm} (pid {}), and its report was here {:.3} ms later (hooks attached in {} ms).",
        kill.victim.pid,
        latency.as_secs_f64() * 1e3,
        attached.as_millis()
    );
}

/// The drill's cgroup; removed when dropped.
struct DrillCgroup {
    path: PathBuf,
}

impl DrillCgroup {
    fn create() -> Result<Self, DrillError> {
        let name = format!("oom-watcher-drill-{}", std::process::id());
        match Facts::probe(&Roots::default()).memory_cgroup {
            Ok(MemoryCgroup::V1(mount)) => {
                let cgroup = Self::make(mount.join(name))?;
                cgroup.write("memory.limit_in_bytes", &LIMIT_BYTES.to_string())?;
                // Where swap is accounted, it must not take what the limit refuses.
                cgroup.write_if_there("memory.memsw.limit_in_bytes", &LIMIT_BYTES.to_string())?;
                Ok(cgroup)
            }
            Ok(MemoryCgroup::V2(mount)) => {
                enable_memory(&mount)?;
                let cgroup = Self::make(mount.join(name))?;
                cgroup.write("memory.max", &LIMIT_BYTES.to_string())?;
                cgroup.write_if_there("memory.swap.max", "0")?;
                Ok(cgroup)
            }
            Ok(MemoryCgroup::None) => Err(DrillError::NoMemoryCgroup("this kernel or mount has none".to_owned())),
            Err(unread) => Err(DrillError::NoMemoryCgroup(unread.0)),
        }
    }

    fn make(path: PathBuf) -> Result<Self, DrillError> {
        fs::create_dir(&path).map_err(|source| DrillError::Cgroup {
            operation: "create",
            path: path.clone(),
            source,
        })?;
        Ok(Self { path })
    }

    fn write(&self, file: &str, value: &str) -> Result<(), DrillError> {
        write(&self.path.join(file), value)
    }

    fn write_if_there(&self, file: &str, value: &str) -> Result<(), DrillError> {
        if self.path.join(file).exists() { self.write(file, value) } else { Ok(()) }
    }

    fn admit(&self, pid: u32) -> Result<(), DrillError> {
        self.write("cgroup.procs", &pid.to_string())
    }
}

impl Drop for DrillCgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + REMOVE_DEADLINE;
        // A cgroup is busy until its last task is reaped by the kernel.
        while let Err(error) = fs::remove_dir(&self.path) {
            if Instant::now() >= deadline {
                eprintln!("oom-watcher: cannot remove {}: {error}", self.path.display());
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The memory controller must be on for the children of the root.
fn enable_memory(mount: &Path) -> Result<(), DrillError> {
    let control = mount.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&control).map_err(|source| DrillError::Cgroup {
        operation: "read",
        path: control.clone(),
        source,
    })?;
    if enabled.split_whitespace().any(|name| name == "memory") { Ok(()) } else { write(&control, "+memory") }
}

fn write(path: &Path, value: &str) -> Result<(), DrillError> {
    fs::write(path, value).map_err(|source| DrillError::Cgroup { operation: "write to", path: path.to_owned(), source })
}

/// The drill's child; ended when dropped.
struct DrillChild(Child);

impl DrillChild {
    fn start() -> Result<Self, DrillError> {
        let program =
            std::env::current_exe().map_err(|source| DrillError::Child { operation: "find the program of", source })?;
        let child = Command::new(program)
            .arg("drill-victim")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|source| DrillError::Child { operation: "start", source })?;
        Ok(Self(child))
    }

    /// It waits for a byte, so that it is in the cgroup before it allocates.
    fn release(&mut self) -> Result<(), DrillError> {
        let Some(mut stdin) = self.0.stdin.take() else { return Ok(()) };
        stdin.write_all(b"g").map_err(|source| DrillError::Child { operation: "release", source })
    }

    /// Why no report came.
    fn explain(&mut self, timeout: Duration) -> Result<DrillError, DrillError> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.0.try_wait().map_err(|source| DrillError::Child { operation: "wait for", source })?;
        Ok(match status {
            Some(status) if status.signal() == Some(9) => DrillError::NotReported { pid: self.0.id(), timeout },
            Some(status) => DrillError::NotKilled(status.to_string()),
            None => DrillError::NotKilled("it still runs".to_owned()),
        })
    }
}

impl Drop for DrillChild {
    fn drop(&mut self) {
        // Either fails only when the child is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The child: waits for its word, then takes memory until it is killed.
pub fn victim() -> ExitCode {
    let mut word = [0];
    if io::stdin().read_exact(&mut word).is_err() {
        // The parent is gone: then nobody limits the memory, and none must be taken.
        return ExitCode::FAILURE;
    }
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "1000") {
        eprintln!("oom-watcher: cannot offer itself to the OOM killer: {error}");
        return ExitCode::FAILURE;
    }
    let mut memory = vec![0_u8; HOG_BYTES];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
    ExitCode::SUCCESS
}
