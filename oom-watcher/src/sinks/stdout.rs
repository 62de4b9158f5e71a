//! Standard output: one line per kill, and one for what is learnt about it later.
//!
//! Whoever reads it may be slow, stuck, full or gone, and the reader of the kernel must not notice. Lines go through a
//! bounded queue to a thread of their own that blocks as long as it must. What finds no room is dropped and counted: lines
//! made = lines written + lines lost.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    config::OutputFormat,
    enrichment::Enrichment,
    report::OomReport,
    sinks::{json, text},
    telemetry::{
        Stage, Telemetry,
        events::{EnrichmentLineLost, ReportUnprintable, StdoutAbandoned, StdoutFailed, StdoutOverflowed},
    },
};

/// Lines that wait at most: text of two group kills of 1,000 processes.
const QUEUE_LINES_MAX: usize = 2048;
/// Bytes that wait at most: 1,960 JSON lines of 2.1 KB.
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pause before the next attempt at a standard output that somebody has made non-blocking, and that is full.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The sink of standard output. It ends when all clones of it are gone.
#[derive(Clone, Debug)]
pub struct StdoutSink {
    format: OutputFormat,
    queue: SyncSender<Line>,
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
}

/// A line with its end.
#[derive(Debug)]
struct Line {
    bytes: Box<[u8]>,
    /// Of a kill: the account of kills has it.
    kill: bool,
}

/// What both sides of the queue count.
#[derive(Debug)]
struct Shared {
    queued_bytes: AtomicUsize,
    /// Of kills.
    queued_lines: AtomicU64,
    telemetry: Arc<Telemetry>,
}

/// How far the writing thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Writing,
    /// Nobody reads any more: further lines are counted as lost, quietly.
    ReaderGone,
    /// The queue was closed and emptied.
    Ended,
}

impl StdoutSink {
    /// Writes to this process's standard output.
    pub fn start(format: OutputFormat, telemetry: Arc<Telemetry>) -> io::Result<Self> {
        // A file of its own: the standard library's handle would hold back a part of a line after an error.
        let output = File::from(rustix::stdio::stdout().try_clone_to_owned()?);
        Self::start_on(output, format, telemetry)
    }

    /// Writes to `output`.
    pub fn start_on(
        output: impl Write + Send + 'static,
        format: OutputFormat,
        telemetry: Arc<Telemetry>,
    ) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE_LINES_MAX);
        let (announce, state) = watch::channel(State::Writing);
        let shared = Arc::new(Shared { queued_bytes: 0.into(), queued_lines: 0.into(), telemetry });
        let writer = LineWriter { output, torn: false, shared: Arc::clone(&shared), announce };
        thread::Builder::new().name("stdout".to_owned()).spawn(move || writer.run(&lines))?;
        Ok(Self { format, queue, shared, state })
    }

    /// Queues the line of a report, or counts it as lost. Never blocks.
    pub fn deliver(&self, report: &OomReport) {
        let line = match self.format {
            OutputFormat::Text => text::line(report),
            OutputFormat::Json => match json::line(report) {
                Ok(line) => line,
                Err(error) => return ReportUnprintable { error: &error }.emit(&self.shared.telemetry),
            },
        };
        if !self.queue_line(line, true) {
            StdoutOverflowed.emit(&self.shared.telemetry);
        }
    }

    /// Queues the line of an enrichment, or counts it as lost. Never blocks.
    pub fn deliver_enrichment(&self, enrichment: &Enrichment) {
        let line = match self.format {
            OutputFormat::Text => Ok(text::enrichment_line(enrichment)),
            OutputFormat::Json => json::line(enrichment),
        };
        if !line.is_ok_and(|line| self.queue_line(line, false)) {
            EnrichmentLineLost { error: None }.emit(&self.shared.telemetry);
        }
    }

    /// Resolves when nobody reads standard output any more.
    pub async fn reader_gone(&self) {
        let mut state = self.state.clone();
        // An error means that the thread has ended, which it does not before the queue is closed.
        if state.wait_for(|state| *state == State::ReaderGone).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Kills whose line waits, or is being written.
    pub fn queued(&self) -> u64 {
        self.shared.queued_lines.load(Ordering::Acquire)
    }

    /// Waits at most `deadline` for the queue to be written; what is not is counted as lost. How many kills that were.
    pub async fn close(self, deadline: Duration) -> u64 {
        let Self { queue, shared, mut state, .. } = self;
        drop(queue);
        let ended = state.wait_for(|state| *state == State::Ended);
        if matches!(tokio::time::timeout(deadline, ended).await, Ok(Ok(_))) {
            return 0;
        }
        let lines = shared.queued_lines.load(Ordering::Acquire);
        StdoutAbandoned { lines }.emit(&shared.telemetry);
        lines
    }

    /// False: there was no room.
    fn queue_line(&self, mut text: String, kill: bool) -> bool {
        text.push('\n');
        let line = Line { bytes: text.into_bytes().into_boxed_slice(), kill };
        let (bytes, lines) = (line.bytes.len(), u64::from(kill));
        let waiting = self.shared.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.shared.queued_lines.fetch_add(lines, Ordering::AcqRel);
        let queued = waiting + bytes <= QUEUE_BYTES_MAX && self.queue.try_send(line).is_ok();
        if !queued {
            self.shared.left_queue(bytes, lines);
        }
        queued
    }
}

impl Shared {
    fn left_queue(&self, bytes: usize, lines: u64) {
        self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.queued_lines.fetch_sub(lines, Ordering::AcqRel);
    }
}

/// The thread's side: blocks as long as the output does.
struct LineWriter<W> {
    output: W,
    /// The last line was written in part: the next starts on a line of its own.
    torn: bool,
    shared: Arc<Shared>,
    announce: watch::Sender<State>,
}

impl<W: Write> LineWriter<W> {
    fn run(mut self, lines: &Receiver<Line>) {
        let mut reader_gone = false;
        for line in lines {
            if reader_gone {
                self.count_unread(&line);
            } else {
                reader_gone = self.write(&line);
            }
            self.shared.left_queue(line.bytes.len(), u64::from(line.kill));
        }
        self.announce.send_replace(State::Ended);
    }

    /// Writes a line and counts it; true when nobody reads any more.
    fn write(&mut self, line: &Line) -> bool {
        match self.write_whole(&line.bytes) {
            Ok(()) if line.kill => self.shared.telemetry.count_passed(Stage::SinkStdout),
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.count_unread(line);
                self.announce.send_replace(State::ReaderGone);
                return true;
            }
            Err(error) if !line.kill => EnrichmentLineLost { error: Some(&error) }.emit(&self.shared.telemetry),
            Err(error) => StdoutFailed { error: &error }.emit(&self.shared.telemetry),
        }
        false
    }

    /// Nobody reads any more: counted, quietly.
    fn count_unread(&self, line: &Line) {
        if line.kill {
            self.shared.telemetry.count_lost(Stage::SinkStdout, 1);
        } else {
            self.shared.telemetry.count_enrichment_line_lost();
        }
    }

    fn write_whole(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.write_all(b"\n")?;
        }
        self.write_all(line)?;
        self.output.flush()
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.output.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.torn = !bytes.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
