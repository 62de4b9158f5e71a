//! Wiring: builds the parts, starts them, waits for the end.

use std::{io, path::Path, sync::Arc, time::Instant};

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tracing::{debug, info, warn};

use crate::{
    assemble::NodeNames,
    attach::{self, Hooks},
    attribute::{Resolver, Sources},
    audit::{self, Audit},
    clock,
    config::{Config, NamesConfig, Seccomp},
    decode::Decoder,
    enrichment::Enrichment,
    exposition::Exposition,
    health::Health,
    http::{self, BindError, Pages},
    incident::Assembler,
    k8s,
    kernel::{
        counters::Counters,
        load::{HookStatus, LoadError},
        pin::{PinDir, PinError},
        plan::{Plan, PlanError, SwapCounter},
        reader::Reader,
        slice,
    },
    names::{self, Feed, Limits, Names, Scanner},
    oom_score::{self, OomScoreError},
    own_node,
    past::Past,
    pipeline::{Pipeline, TICK},
    privileges::{self, PrivilegesError},
    seccomp::{self, SeccompError},
    sinks::{Sinks, metrics::KillMetrics, stdout::StdoutSink},
    state::{Account, StateFile, Unsettled},
    telemetry::{KernelCounters, NamesState, Stage, Telemetry},
    tick::Tick,
};

/// Threads that may be stuck on a disk at once: each search for a name in a file takes one, and there may be a thousand. The others
/// wait; a thread costs some 20 KiB.
const BLOCKING_THREADS_MAX: usize = 32;

/// Why the watcher could not run, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// This machine does not give what is needed.
    #[error("this machine cannot be watched")]
    Plan(#[source] PlanError),
    /// The kernel refused.
    #[error("cannot start watching")]
    Load(#[source] LoadError),
    /// The directory for what is pinned.
    #[error("cannot keep the hooks attached beyond this watcher")]
    Pin(#[source] PinError),
    /// Capabilities.
    #[error("cannot give up the privileges that are not needed any more")]
    Privileges(#[source] PrivilegesError),
    /// System calls.
    #[error("cannot refuse the system calls that are not needed any more")]
    Seccomp(#[source] SeccompError),
    /// The address or port.
    #[error("cannot serve metrics")]
    Bind(#[source] BindError),
    /// The Kubernetes API is asked for, but cannot be used.
    #[error("cannot tell Kubernetes of kills")]
    Kubernetes(#[source] k8s::StartError),
    /// A part of the process.
    #[error("cannot {operation}")]
    Start {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The ring buffer or the timer.
    #[error("cannot wait for kills any more")]
    Wait(#[source] io::Error),
}

impl RunError {
    /// For `map_err`.
    pub fn start(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Start { operation, source }
    }
}

/// Watches until SIGTERM or SIGINT, or until nobody reads standard output.
pub fn run(config: &Config) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(RunError::start("start the runtime"))?;
    run_on(runtime, watch(config))
}

/// The runtime's threads for blocking work are left to the end of the process: one may be stuck on a disk.
fn run_on<T>(runtime: Runtime, task: impl Future<Output = T>) -> T {
    let result = runtime.block_on(task);
    runtime.shutdown_background();
    result
}

async fn watch(config: &Config) -> Result<(), RunError> {
    let telemetry = Arc::new(Telemetry::new());
    let health = Arc::new(Health::new(Instant::now()));
    let containers = Names::new(Limits::default());
    let metrics = KillMetrics::new(&config.metrics, Arc::clone(&telemetry)).following(containers.clone());
    let metrics = Arc::new(metrics);
    // The port first: a watcher that cannot be scraped says so before it touches the kernel.
    let listener = http::bind(config.metrics.address, config.metrics.port).map_err(RunError::Bind)?;
    let address = listener.local_addr().map_err(RunError::start("name the listening address"))?;
    let kubernetes = k8s::prepare(&config.kubernetes, &config.node_name, Arc::clone(&telemetry))
        .await
        .map_err(RunError::Kubernetes)?;
    let Hooks { plan, loaded, pins, past } = attach::attach_as(config)?;
    let node = own_node::find(config.names.pod_uid.as_deref(), &plan);
    let timer = Tick::every(TICK).map_err(RunError::start("make a timer"))?;
    give_up_power(config, &telemetry)?;
    let (events, counters, hooks, programs) = loaded.into_parts();
    announce_past(pins.as_ref(), &past, &telemetry);
    announce_hooks(&hooks, &telemetry);
    health.set_attached();
    let exposition = Exposition::new(&config.node_name, Arc::clone(&metrics), Arc::clone(&telemetry));
    let pages = Pages::new(exposition, Arc::clone(&health), Arc::clone(&telemetry));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let server = tokio::spawn(http::serve(listener, Arc::new(pages), until_set(stopped.clone())));
    let stdout = StdoutSink::start(config.output, Arc::clone(&telemetry))
        .map_err(RunError::start("write to standard output"))?;
    let kubernetes = kubernetes.map(|prepared| prepared.start(publish_to(&metrics, &stdout)));
    let resolver = start_names(&config.names, &containers, &health, &telemetry);
    // Before it is said that it watches: whoever reads that may ask it to stop.
    let asked = asked_to_stop()?;
    info!(%address, node = config.node_name, "Watching for OOM kills");
    let counters = Arc::new(counters);
    telemetry.set_kernel_counters(reading(Arc::clone(&counters)));
    let names = NodeNames { node: config.node_name.clone(), boot: boot_id() };
    let audit = open_audit(&counters, &telemetry);
    let now = audit.map(|audit| past.account(&names.boot, &audit));
    let (state, unsettled) = open_state(config.state_dir.as_deref(), now, &telemetry).unzip();
    let pipeline = Pipeline {
        decoder: decoder(&plan),
        state,
        past,
        unsettled: unsettled.flatten(),
        taken: 0,
        names,
        node,
        resolver,
        waiting: JoinSet::new(),
        sinks: Sinks::new(Arc::clone(&metrics), stdout, Arc::clone(&telemetry)).with_kubernetes(kubernetes),
        metrics,
        telemetry: Arc::clone(&telemetry),
        health,
        assembler: Assembler::default(),
        audit,
        audited_incident: 0,
        first: None,
        timer,
        ticks: 0,
    };
    let reader = Reader::new(events).map_err(RunError::start("await the ring buffer"))?;
    let (ended, end) = pipeline.run(reader, reading(counters), asked).await.map_err(RunError::Wait)?;
    // Not before the account was written: what the hooks have seen until then is in it.
    drop(programs);
    info!(?ended, "Ending");
    // The server's end has no news: an error of it was one of its start, which would have been seen.
    let _ = stop.send(true);
    let _ = tokio::time::timeout_at(end.of_all().into(), server).await;
    Ok(())
}

/// What the API adds goes where reports went: to the metrics first, then to standard output.
fn publish_to(metrics: &Arc<KillMetrics>, stdout: &StdoutSink) -> impl Fn(&Enrichment) + Send + 'static {
    let (metrics, stdout) = (Arc::clone(metrics), stdout.clone());
    move |enrichment| {
        metrics.enrich(enrichment);
        stdout.deliver_enrichment(enrichment);
    }
}

/// What decoding needs of the plan.
pub fn decoder(plan: &Plan) -> Decoder {
    Decoder {
        page_size: plan.page_size as u64,
        // Not known: the error bound is then that of the largest machine that the kernel program sums for.
        possible_cpus: plan.possible_cpus.unwrap_or(oom_watcher_common::record::CPUS_MAX),
        swap_is_separate: plan.swap_counter == Some(SwapCounter::Swap),
        boot_to_wall: clock::boot_to_wall(),
    }
}

fn announce_past(pins: Option<&PinDir>, past: &Past, telemetry: &Telemetry) {
    telemetry.set_pinned(pins.is_some());
    telemetry.count_lost(Stage::RingBuffer, past.lost());
}

fn announce_hooks(hooks: &[HookStatus], telemetry: &Telemetry) {
    for status in hooks {
        let hook = status.hook.as_str();
        for (method, reason) in &status.failures {
            telemetry.set_hook(hook, method.as_str(), false);
            info!(hook, method = method.as_str(), reason, "A hook is not attached this way");
        }
        if let Some(method) = status.attached {
            telemetry.set_hook(hook, method.as_str(), true);
        } else {
            warn!(hook, costs = status.hook.costs(), "A hook is not attached");
        }
    }
}

/// What feeds the index of names, and what searches where it knows nothing.
fn start_names(config: &NamesConfig, containers: &Names, health: &Arc<Health>, telemetry: &Telemetry) -> Arc<Resolver> {
    let scanner = Arc::new(Scanner::new(config.container_log_dir.clone(), containers.clone()));
    let names_health = follow_names(&scanner, health);
    let resolver = Resolver::new(scanner, sources(config));
    telemetry.set_names(names_state(containers, names_health, &resolver));
    resolver
}

/// Follows the directory of links for as long as the runtime lives.
fn follow_names(scanner: &Arc<Scanner>, health: &Arc<Health>) -> tokio::sync::watch::Receiver<names::Health> {
    let (feed, state) = Feed::new(Arc::clone(scanner));
    tokio::spawn(feed.run());
    let (health, mut first) = (Arc::clone(health), state.clone());
    tokio::spawn(async move {
        // An error means that the feed is gone, with the runtime.
        if first.wait_for(|state| state.filled).await.is_ok() {
            // From now on each scrape shows every container that was there at the start: it asks the index.
            health.set_names_known();
        }
    });
    state
}

fn names_state(
    containers: &Names,
    health: tokio::sync::watch::Receiver<names::Health>,
    resolver: &Arc<Resolver>,
) -> impl Fn() -> NamesState + Send + Sync + 'static {
    let (containers, resolver) = (containers.clone(), Arc::clone(resolver));
    move || NamesState {
        index: containers.stats(),
        problem: health.borrow().problem,
        searches: resolver.pending(),
        searches_refused: resolver.refused(),
        cri: resolver.cri_stats(),
    }
}

fn sources(names: &NamesConfig) -> Sources {
    for dir in [&names.pod_log_dir, &names.crio_bundle_dir].into_iter().flatten() {
        if let Err(error) = std::fs::read_dir(dir) {
            let error: &dyn std::error::Error = &error;
            warn!(error, dir = %dir.display(), "A configured source of names cannot be read");
        }
    }
    Sources {
        pod_logs: names.pod_log_dir.clone(),
        docker: Some(names.docker_container_dir.clone()),
        podman: Some(names.podman_container_dir.join("containers.json")),
        crio_bundles: names.crio_bundle_dir.clone(),
        cri_socket: names.cri_socket.clone(),
    }
}

fn reading(counters: Arc<Counters>) -> impl Fn() -> KernelCounters + Send + Sync + 'static {
    move || counters.read()
}

fn open_audit(counters: &Counters, telemetry: &Telemetry) -> Option<Audit> {
    // In this order: a kill between the two looks like one too many that was seen, not like a missed one.
    let seen = counters.read();
    match audit::kernel_kills(Path::new("/proc")) {
        Ok(kernel) => {
            let audit = Audit::new(kernel, &seen);
            telemetry.set_kills_before_start(audit.kills_before_start());
            Some(audit)
        }
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "Kills cannot be audited");
            None
        }
    }
}

/// The state file, and what the watcher before left in it.
fn open_state(
    dir: Option<&Path>,
    now: Option<Account>,
    telemetry: &Arc<Telemetry>,
) -> Option<(StateFile, Option<Unsettled>)> {
    let (file, now) = (StateFile::new(dir?, Arc::clone(telemetry)), now?);
    let before = file.read();
    Some((file, before.map(|before| Unsettled { before, now })))
}

/// Before any other thread exists: each would keep the capabilities, and the slice, that it was started with.
fn give_up_power(config: &Config, telemetry: &Telemetry) -> Result<(), RunError> {
    lower_oom_score(telemetry);
    if let Err(error) = slice::shorten() {
        debug!(error = &error as &dyn std::error::Error, "On a busy machine kills are told later than they could be");
    }
    privileges::drop_all().map_err(RunError::Privileges)?;
    refuse_system_calls(config, telemetry)
}

fn lower_oom_score(telemetry: &Telemetry) {
    match oom_score::lower(Path::new("/proc")) {
        Ok(value) => telemetry.set_oom_score_adj(value),
        Err(error) => {
            if let OomScoreError::Lower { current, .. } = error {
                telemetry.set_oom_score_adj(current);
            }
            // Most containers may not: the cluster's operator does it by the pod's priority class.
            info!(error = &error as &dyn std::error::Error, "The OOM killer may choose this watcher early");
        }
    }
}

/// Installs the filter of system calls. A kernel that has none is no reason not to watch, but where the filter is to kill,
/// somebody relies on it.
fn refuse_system_calls(config: &Config, telemetry: &Telemetry) -> Result<(), RunError> {
    match seccomp::install(config.seccomp, config.state_dir.is_some()) {
        Ok(()) => telemetry.set_seccomp(config.seccomp != Seccomp::Off),
        Err(error) if config.seccomp == Seccomp::Kill => return Err(RunError::Seccomp(error)),
        Err(error) => warn!(error = &error as &dyn std::error::Error, "Unexpected system calls are not refused"),
    }
    Ok(())
}

/// The first part of the boot's id; all-zero where it cannot be read.
fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.split('-').next().filter(|part| part.len() == 8).unwrap_or("00000000").to_owned()
}

/// Resolves at the first SIGTERM or SIGINT.
pub fn asked_to_stop() -> Result<impl Future<Output = ()>, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::start("listen for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::start("listen for SIGINT"))?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn until_set(mut flag: tokio::sync::watch::Receiver<bool>) {
    // An error means that the sender is gone, which is an end too.
    let _ = flag.wait_for(|set| *set).await;
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        sync::{
            atomic::{AtomicBool, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use super::*;
    use crate::config::MetricsConfig;

    /// Samples of containers of a node whose directory of links has so many, at the moment when it is ready.
    fn containers_when_ready(zero_series: bool, containers: usize) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for pod in 0..containers {
            let (id, target) = (format!("{pod:064x}"), format!("/var/log/pods/shop_cart-{pod}_uid-{pod}/app/0.log"));
            symlink(target, dir.path().join(format!("cart-{pod}_shop_app-{id}.log"))).unwrap();
        }
        let config =
            MetricsConfig { address: None, port: 0, zero_series, max_series: 5000, series_retention: Duration::ZERO };
        let (telemetry, names) = (Arc::new(Telemetry::new()), Names::new(Limits::default()));
        let metrics = Arc::new(KillMetrics::new(&config, Arc::clone(&telemetry)).following(names.clone()));
        let health = Arc::new(Health::new(Instant::now()));
        health.set_attached();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            follow_names(&Arc::new(Scanner::new(dir.path(), names)), &health);
            while !health.not_ready_because(Instant::now()).is_empty() {
                tokio::task::yield_now().await;
            }
        });
        let page = Exposition::new("worker-1", metrics, telemetry).render().unwrap();
        page.lines().filter(|line| line.starts_with("oom_kills_total{")).map(Into::into).collect()
    }

    #[test]
    fn who_is_ready_shows_each_container_at_zero() {
        let samples = containers_when_ready(true, 300);
        assert_eq!(samples.len(), 301, "and those in no container: {samples:#?}");
        assert!(samples.iter().all(|sample| sample.ends_with(" 0")), "{samples:#?}");
    }

    #[test]
    fn without_zero_series_there_is_none() {
        assert_eq!(containers_when_ready(false, 300), Vec::<String>::new());
    }

    /// A write to a disk that is stuck, say.
    #[test]
    fn the_end_waits_for_no_thread_that_is_stuck() {
        static GAVE_UP: AtomicBool = AtomicBool::new(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (release, released) = mpsc::channel::<()>();
        let (started, is_started) = tokio::sync::oneshot::channel();
        run_on(runtime, async {
            tokio::task::spawn_blocking(move || {
                started.send(()).unwrap();
                let error = released.recv_timeout(Duration::from_mins(1)).unwrap_err();
                GAVE_UP.store(error == mpsc::RecvTimeoutError::Timeout, Ordering::Release);
            });
            is_started.await.unwrap();
        });
        assert!(!GAVE_UP.load(Ordering::Acquire), "it was waited for");
        drop(release);
    }
}
