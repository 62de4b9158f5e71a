//! The command line as text: flags, environment variables, subcommands and their help.
//!
//! Every value is kept as the text that was given; [`crate::config`] turns it into types and names what is wrong. This
//! module knows nothing of what a value means beyond its help. `docs/configuration.md` is generated from it.

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// What stands in for a value that was not given, or is empty.
pub mod defaults {
    /// `--metrics-port`
    pub const METRICS_PORT: &str = "8080";
    /// `--ring-buffer-size`: 512 KiB, in bytes, while the reader does not run at all: a group kill of 1,000 processes, each of
    /// which takes 384 bytes, or 680 kills in cgroups of their own, which take about 770 in a pod. The kernel is faster than a
    /// reader that shares the CPUs with a thousand exiting processes. Each byte counts twice in the agent's resident memory,
    /// for the buffer is mapped twice in a row.
    pub const RING_BUFFER_SIZE: &str = "524288";
    /// `--container-log-dir`: where the kubelet keeps one link per container.
    pub const CONTAINER_LOG_DIR: &str = "/var/log/containers";
    /// `--docker-container-dir`: where docker keeps a directory per container.
    pub const DOCKER_CONTAINER_DIR: &str = "/var/lib/docker/containers";
    /// `--podman-container-dir`: where podman keeps the list of root's containers.
    pub const PODMAN_CONTAINER_DIR: &str = "/var/lib/containers/storage/overlay-containers";
    /// `--kubernetes-enrichment`
    pub const KUBERNETES_ENRICHMENT: &str = "false";
    /// `--kubernetes-events`
    pub const KUBERNETES_EVENTS: &str = "false";
    /// `--zero-series`
    pub const ZERO_SERIES: &str = "true";
    /// `--max-series`
    pub const MAX_SERIES: &str = "5000";
    /// `--series-retention`, in seconds.
    pub const SERIES_RETENTION: &str = "3600";
    /// `--rust-log`
    pub const RUST_LOG: &str = "info";
    /// `--seccomp`
    pub const SECCOMP: &str = "errno";
    /// `drill --timeout`, in seconds.
    pub const DRILL_TIMEOUT: &str = "10";
}

// Each paragraph is one line: the help is wrapped to the terminal.
const LONG_ABOUT: &str = "\
Reports every process that the kernel's OOM killer kills on this machine, as it happens: who was killed, in which pod \
and container, whose limit ran out and who asked for the memory.

One line per kill goes to standard output, the metrics to http://HOST:8080/metrics, the watcher's own log to standard \
error. Without a command it runs until SIGTERM or SIGINT. It needs the capabilities BPF and PERFMON, or root.";

const AFTER_HELP: &str = "\
Every flag is an environment variable too (its name in upper case, with underscores); the flag wins, and an empty \
value counts as not given.

Examples:
  oom-watcher                                 watch, and print a line for each kill
  oom-watcher --output json | jq .victim      one JSON object per kill
  oom-watcher check                           what this machine gives, and what it does not
  oom-watcher drill                           prove it: have a child killed, and see it reported
  METRICS_PORT=9090 oom-watcher               the same as --metrics-port 9090";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "oom-watcher",
    version,
    about = "Reports every OOM kill of this machine as it happens",
    long_about = LONG_ABOUT,
    after_help = AFTER_HELP,
    disable_help_subcommand = true,
    max_term_width = 120
)]
pub struct Cli {
    /// How to run.
    #[command(flatten)]
    pub options: Options,
    /// What to do; nothing means: watch.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of watching.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print what this machine gives: kernel, BTF, hooks, capabilities, cgroups
    ///
    /// Exits with 0 when the watcher can run here (each thing that is missing is named, with what it costs), with 1 when
    /// it cannot.
    Check,
    /// Have a child killed in a small cgroup of its own, and see that it is reported
    ///
    /// Exits with 0 and the time that the report took. Cleans up after itself, also when interrupted.
    Drill {
        /// How long to wait for the report
        #[arg(long, env = "DRILL_TIMEOUT", value_name = "SECONDS", default_value = defaults::DRILL_TIMEOUT)]
        timeout: String,
    },
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// The child of `drill`: allocates until it is killed.
    #[command(hide = true)]
    DrillVictim,
}

/// The heading of flags about where names come from.
const NAMES: &str = "Names of containers";

/// The flags of the watcher. Each has an environment variable of the same name.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Form of the line per kill: text or json [default: text on a terminal, else json]
    #[arg(long, env, global = true, value_name = "FORMAT", help_heading = "Output")]
    pub output: Option<String>,
    /// Which of its own messages the watcher logs to standard error: a level, or a filter such as info,oom_watcher=debug
    #[arg(long, env, value_name = "FILTER", default_value = defaults::RUST_LOG, help_heading = "Output")]
    pub rust_log: String,
    /// Name of this node in metrics and reports [default: the host name]
    #[arg(long, env, value_name = "NAME", help_heading = "Output")]
    pub node_name: Option<String>,

    /// Address that serves /metrics, /livez and /readyz [default: all addresses, IPv6 and IPv4]
    #[arg(long, env, value_name = "IP", help_heading = "Metrics")]
    pub metrics_address: Option<String>,
    /// Port that serves them; 0 takes any free port and logs it
    #[arg(long, env, value_name = "PORT", default_value = defaults::METRICS_PORT, help_heading = "Metrics")]
    pub metrics_port: String,
    /// Whether oom_kills_total exists at 0 for every live container: true or false
    #[arg(long, env, value_name = "BOOL", default_value = defaults::ZERO_SERIES, help_heading = "Metrics")]
    pub zero_series: String,
    /// The most time series that are kept about containers; what is refused beyond is counted
    #[arg(long, env, value_name = "COUNT", default_value = defaults::MAX_SERIES, help_heading = "Metrics")]
    pub max_series: String,
    /// How long the series of a container stay after it is gone
    #[arg(long, env, value_name = "SECONDS", default_value = defaults::SERIES_RETENTION, help_heading = "Metrics")]
    pub series_retention: String,

    /// Size of the buffer between kernel and watcher: a power of two, in whole pages
    #[arg(long, env, value_name = "BYTES", default_value = defaults::RING_BUFFER_SIZE, help_heading = "Kernel")]
    pub ring_buffer_size: String,
    /// What the kernel does with a system call that the watcher, once it watches, has no use for: errno refuses it, kill ends
    /// the watcher, off lets it pass
    #[arg(long, env, value_name = "ACTION", default_value = defaults::SECCOMP, help_heading = "Kernel")]
    pub seccomp: String,

    /// Directory for a small file that tells the next watcher how far this one came [default: none is kept]
    #[arg(long, env, value_name = "DIR", help_heading = "Restarts")]
    pub state_dir: Option<String>,
    /// Directory in a BPF file system, in which the hooks stay attached while no watcher runs [default: they are detached]
    #[arg(long, env, value_name = "DIR", help_heading = "Restarts")]
    pub pin_dir: Option<String>,

    /// Directory whose links name the node's containers
    #[arg(long, env, value_name = "DIR", default_value = defaults::CONTAINER_LOG_DIR, help_heading = NAMES)]
    pub container_log_dir: String,
    /// Directory whose subdirectories name the node's pods, such as /var/log/pods [default: not read]
    #[arg(long, env, value_name = "DIR", help_heading = NAMES)]
    pub pod_log_dir: Option<String>,
    /// UID of the pod that the watcher runs in, to tell its node's pods from those of a node in a pod [default: not known]
    #[arg(long, env, value_name = "UID", help_heading = NAMES)]
    pub pod_uid: Option<String>,
    /// Directory of CRI-O's bundles, such as /var/lib/containers/storage/overlay-containers [default: not read]
    #[arg(long, env, value_name = "DIR", help_heading = NAMES)]
    pub crio_bundle_dir: Option<String>,
    /// Socket of the container runtime, asked for names that the node's files do not give [default: not asked]
    #[arg(long, env, value_name = "PATH", help_heading = NAMES)]
    pub cri_socket: Option<String>,
    /// Directory of docker, whose files name containers that no pod owns
    #[arg(long, env, value_name = "DIR", default_value = defaults::DOCKER_CONTAINER_DIR, help_heading = NAMES)]
    pub docker_container_dir: String,
    /// Directory of podman, whose containers.json names containers that no pod owns
    #[arg(long, env, value_name = "DIR", default_value = defaults::PODMAN_CONTAINER_DIR, help_heading = NAMES)]
    pub podman_container_dir: String,

    /// Whether the Kubernetes API is asked about pods that had a kill: true or false
    #[arg(long, env, value_name = "BOOL", default_value = defaults::KUBERNETES_ENRICHMENT, help_heading = "Kubernetes")]
    pub kubernetes_enrichment: String,
    /// Whether each kill becomes an Event on its pod: true or false
    #[arg(long, env, value_name = "BOOL", default_value = defaults::KUBERNETES_EVENTS, help_heading = "Kubernetes")]
    pub kubernetes_events: String,
    /// Labels of the pod that the report takes over, separated by commas [default: none]
    #[arg(long, env, value_name = "KEYS", help_heading = "Kubernetes")]
    pub pod_labels: Option<String>,
}

/// Writes the completions of `shell`.
pub fn write_completions(shell: Shell, out: &mut dyn std::io::Write) {
    clap_complete::generate(shell, &mut Cli::command(), "oom-watcher", out);
}
