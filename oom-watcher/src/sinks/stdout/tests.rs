use std::{
    io::{BufRead, BufReader, Read},
    sync::mpsc,
    time::Instant,
};

use rustix::pipe::{PipeFlags, pipe, pipe_with};

use super::*;
use crate::sinks::samples::{enrichment, full, minimal};

const SOON: Duration = Duration::from_secs(10);

fn start(output: impl Write + Send + 'static) -> (StdoutSink, Arc<Telemetry>) {
    let telemetry = Arc::new(Telemetry::new());
    (StdoutSink::start_on(output, OutputFormat::Json, Arc::clone(&telemetry)).unwrap(), telemetry)
}

/// Every line made is written or lost.
#[track_caller]
fn check_account(telemetry: &Telemetry, written: u64, lost: u64) {
    assert_eq!((telemetry.passed(Stage::SinkStdout), telemetry.lost(Stage::SinkStdout)), (written, lost));
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn lines_arrive_whole_and_in_order() {
    run(async {
        let (read, write) = pipe().unwrap();
        let (sink, telemetry) = start(File::from(write));
        let reader = thread::spawn(move || BufReader::new(File::from(read)).lines().collect::<io::Result<Vec<_>>>());
        for pid in 0..1000 {
            let mut report = full();
            report.victim.pid = pid;
            sink.deliver(&report);
        }
        sink.close(SOON).await;
        let lines = reader.join().unwrap().unwrap();
        for (pid, line) in lines.iter().enumerate() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["victim"]["pid"], pid);
        }
        check_account(&telemetry, 1000, 0);
    });
}

#[test]
fn enrichments_are_in_no_account_of_kills() {
    run(async {
        let (read, write) = pipe().unwrap();
        let (sink, telemetry) = start(File::from(write));
        sink.deliver(&full());
        let clone = sink.clone();
        clone.deliver_enrichment(&enrichment());
        drop(clone);
        sink.close(SOON).await;
        let mut said = String::new();
        File::from(read).read_to_string(&mut said).unwrap();
        let types: Vec<_> = said
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(types, [None, Some("enrichment".to_owned())]);
        check_account(&telemetry, 1, 0);
    });
}

#[test]
fn text_is_text() {
    run(async {
        let (read, write) = pipe().unwrap();
        let telemetry = Arc::new(Telemetry::new());
        let sink = StdoutSink::start_on(File::from(write), OutputFormat::Text, telemetry).unwrap();
        sink.deliver(&minimal());
        sink.close(SOON).await;
        let mut said = String::new();
        File::from(read).read_to_string(&mut said).unwrap();
        assert_eq!(said, text::line(&minimal()) + "\n");
    });
}

#[test]
fn a_reader_that_never_reads_costs_lines_and_no_time() {
    run(async {
        let (read, write) = pipe().unwrap();
        let (sink, telemetry) = start(File::from(write));
        let began = Instant::now();
        let made = 5000;
        for _ in 0..made {
            sink.deliver(&full());
        }
        assert!(began.elapsed() < SOON);
        assert!(sink.shared.queued_bytes.load(Ordering::Acquire) <= QUEUE_BYTES_MAX);
        assert!(sink.shared.queued_lines.load(Ordering::Acquire) <= QUEUE_LINES_MAX as u64 + 1);
        let dropped = telemetry.lost(Stage::SinkStdout);
        assert!(dropped >= made - QUEUE_LINES_MAX as u64 - 100, "{dropped} dropped");

        sink.close(Duration::from_millis(50)).await;
        let (written, lost) = (telemetry.passed(Stage::SinkStdout), telemetry.lost(Stage::SinkStdout));
        assert_eq!(written + lost, made);
        assert!(written > 0 && lost > dropped, "a pipe holds {written} lines");
        drop(read);
    });
}

#[test]
fn long_lines_are_held_by_their_bytes() {
    run(async {
        let (read, write) = pipe().unwrap();
        let (sink, telemetry) = start(File::from(write));
        let mut report = full();
        report.trigger.cgroup_path = Some("p".repeat(256 * 1024));
        for _ in 0..100 {
            sink.deliver(&report);
        }
        let queued = sink.shared.queued_bytes.load(Ordering::Acquire);
        assert!((QUEUE_BYTES_MAX / 2..=QUEUE_BYTES_MAX).contains(&queued), "{queued}");
        assert!(telemetry.lost(Stage::SinkStdout) >= 100 - 16);
        drop(read);
        sink.close(SOON).await;
        check_account(&telemetry, 0, 100);
    });
}

#[test]
fn a_slow_reader_gets_what_fits_the_queue() {
    run(async {
        let (read, write) = pipe().unwrap();
        let (sink, telemetry) = start(File::from(write));
        for _ in 0..3000 {
            sink.deliver(&minimal());
        }
        let reader = thread::spawn(move || BufReader::new(File::from(read)).lines().count() as u64);
        sink.close(SOON).await;
        let written = reader.join().unwrap();
        check_account(&telemetry, written, 3000 - written);
        assert!(written >= QUEUE_LINES_MAX as u64);
    });
}

#[test]
fn when_nobody_reads_any_more_the_watcher_learns_it() {
    run(async {
        let (read, write) = pipe().unwrap();
        let (sink, telemetry) = start(File::from(write));
        let early = tokio::time::timeout(Duration::from_millis(20), sink.reader_gone()).await;
        assert!(early.is_err(), "somebody reads still");
        drop(read);
        sink.deliver(&minimal());
        tokio::time::timeout(SOON, sink.reader_gone()).await.expect("the closed pipe is noticed");
        sink.deliver(&minimal());
        sink.close(SOON).await;
        check_account(&telemetry, 0, 2);
    });
}

#[test]
fn a_full_disk_costs_the_lines_and_nothing_else() {
    run(async {
        let (sink, telemetry) = start(File::options().write(true).open("/dev/full").unwrap());
        for _ in 0..3 {
            sink.deliver(&minimal());
        }
        let gone = tokio::time::timeout(Duration::from_millis(20), sink.reader_gone()).await;
        assert!(gone.is_err(), "a full disk is not a reader that has gone");
        sink.close(SOON).await;
        check_account(&telemetry, 0, 3);
    });
}

#[test]
fn a_pipe_that_somebody_made_non_blocking_is_waited_for() {
    run(async {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        rustix::io::ioctl_fionbio(&read, false).unwrap();
        let (sink, telemetry) = start(File::from(write));
        for _ in 0..200 {
            sink.deliver(&full());
        }
        let reader = thread::spawn(move || BufReader::new(File::from(read)).lines().count());
        sink.close(SOON).await;
        assert_eq!(reader.join().unwrap(), 200);
        check_account(&telemetry, 200, 0);
    });
}

/// Takes `room` bytes, then refuses once, then takes everything: a disk that was full for a moment.
struct FullOnce {
    room: usize,
    refused: bool,
    taken: mpsc::Sender<u8>,
}

impl Write for FullOnce {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 && !self.refused {
            self.refused = true;
            return Err(ErrorKind::StorageFull.into());
        }
        let count = if self.refused { bytes.len() } else { bytes.len().min(self.room) };
        self.room = self.room.saturating_sub(count);
        bytes[..count].iter().for_each(|byte| self.taken.send(*byte).unwrap());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn after_a_torn_line_the_next_is_whole() {
    run(async {
        let (taken, bytes) = mpsc::channel();
        let (sink, telemetry) = start(FullOnce { room: 10, refused: false, taken });
        sink.deliver(&full());
        sink.deliver(&minimal());
        sink.close(SOON).await;
        let said = String::from_utf8(bytes.iter().collect()).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines, [&json::line(&full()).unwrap()[..10], &json::line(&minimal()).unwrap()]);
        check_account(&telemetry, 1, 1);
    });
}

/// The whole of the sinks: one that fails does not stop the other.
#[test]
fn metrics_count_what_standard_output_cannot_take() {
    use crate::{
        config::MetricsConfig,
        sinks::{Sinks, metrics::KillMetrics},
    };
    run(async {
        let (sink, telemetry) = start(File::options().write(true).open("/dev/full").unwrap());
        let config = MetricsConfig {
            address: None,
            port: 0,
            zero_series: false,
            max_series: 100,
            series_retention: Duration::ZERO,
        };
        let metrics = Arc::new(KillMetrics::new(&config, Arc::clone(&telemetry)));
        let sinks = Sinks::new(metrics, sink, Arc::clone(&telemetry));
        sinks.deliver(&minimal());
        sinks.close(SOON).await;
        check_account(&telemetry, 0, 1);
        assert_eq!((telemetry.passed(Stage::Report), telemetry.passed(Stage::SinkMetrics)), (1, 1));
    });
}
