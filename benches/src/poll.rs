//! The common design as a yard-stick, on our own programs and ring buffer: instead of waiting it looks every so often.

use std::{fs, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use oom_watcher::{
    attach,
    cli::defaults,
    decode::Record,
    kernel::{load::Loaded, reader::Reader},
    run,
};

/// How often it looks.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Milliseconds between two looks
    #[arg(long, default_value_t = 100)]
    every: u64,
}

/// Bytes of the agent's ring buffer, where nobody asks for another.
pub(crate) fn ring_buffer() -> Result<u32> {
    defaults::RING_BUFFER_SIZE.parse().context("the default is no number")
}

/// Writes a line for each kill, in the form of the agent's as far as the bench reads it, until it is ended.
pub(crate) fn run(options: &Options) -> Result<()> {
    let (plan, loaded) = attach::attach(ring_buffer()?)?;
    let decoder = run::decoder(&plan);
    in_runtime(|| {
        let (mut reader, _kept) = reader(loaded)?;
        eprintln!("Polling");
        loop {
            thread::sleep(Duration::from_millis(options.every));
            reader.take(usize::MAX, |bytes| {
                if let Ok(Record::Kill(kill)) = decoder.decode(bytes) {
                    let path = kill.cgroup.as_ref().map(|cgroup| cgroup.path.as_str()).unwrap_or_default();
                    let (time, pid) = (kill.time, kill.victim.pid);
                    println!(r#"{{"time":"{time}","victim":{{"pid":{pid}}},"cgroup":{{"path":"{path}"}}}}"#);
                }
            });
        }
    })
}

/// Writes the bytes of the next kill.
pub(crate) fn record(file: &Path) -> Result<()> {
    let (_, loaded) = attach::attach(ring_buffer()?)?;
    in_runtime(|| {
        let (mut reader, _kept) = reader(loaded)?;
        eprintln!("Waiting for a kill");
        loop {
            thread::sleep(Duration::from_millis(100));
            let mut first = None;
            reader.take(usize::MAX, |bytes| {
                first.get_or_insert_with(|| bytes.to_vec());
            });
            if let Some(bytes) = first {
                return fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()));
            }
        }
    })
}

/// The reader registers its descriptor with a runtime, which is not used otherwise.
fn in_runtime(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    work()
}

fn reader(loaded: Loaded) -> Result<(Reader, impl Sized)> {
    let (events, _, hooks, programs) = loaded.into_parts();
    if hooks.is_empty() {
        bail!("no hook is attached");
    }
    Ok((Reader::new(events).context("cannot register the ring buffer")?, programs))
}
