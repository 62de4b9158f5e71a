//! The configuration: the text of [`crate::cli`] turned into types, checked in one place.
//!
//! A bad value is an error that names the flag, the environment variable and what would be right; it never becomes a
//! default. Nothing here reads the machine: what the defaults depend on comes in as [`Surroundings`].

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;

use crate::{
    cli::{Options, defaults},
    escape::Escaped,
    log,
};

/// Longest node name: that of a Kubernetes object.
const NAME_MAX_BYTES: usize = 253;
/// A smaller ring buffer could not hold a few of the largest records (12 KiB).
const RING_BUFFER_MIN_BYTES: u32 = 64 * 1024;
/// A larger one would cost more than the kills of the worst minute.
const RING_BUFFER_MAX_BYTES: u32 = 256 * 1024 * 1024;
/// One series per family and container has to fit at the least.
const SERIES_MIN: u64 = 100;
/// About 120 MB of exposition text.
const SERIES_MAX: u64 = 1_000_000;
/// A week.
const RETENTION_MAX_SECONDS: u64 = 7 * 24 * 3600;
/// An hour.
const DRILL_TIMEOUT_MAX_SECONDS: u64 = 3600;
/// Most pod labels that a report takes over.
const POD_LABELS_MAX: usize = 32;

/// What the defaults and checks need to know of the machine.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Host name (`uname -n`).
    pub host_name: String,
    /// Whether standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Size of a page, in bytes.
    pub page_size: u32,
}

impl Surroundings {
    /// Those of this process.
    pub fn detect() -> Self {
        Self {
            host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            stdout_is_terminal: std::io::IsTerminal::is_terminal(&std::io::stdout()),
            page_size: rustix::param::page_size() as u32,
        }
    }
}

/// Form of the line per kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// For a person.
    Text,
    /// For a machine: `docs/event.schema.json`.
    Json,
}

/// What the kernel does with a system call that a watching watcher has no use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seccomp {
    /// Lets it pass: there is no filter.
    Off,
    /// Refuses it with EPERM.
    Errno,
    /// Ends the watcher: for tests, and for those who prefer no watcher to a compromised one.
    Kill,
}

/// What the watcher runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Form of the line per kill (`--output`).
    pub output: OutputFormat,
    /// Filter of the watcher's own log (`--rust-log`); known to parse.
    pub log_filter: String,
    /// Name of this node (`--node-name`).
    pub node_name: String,
    /// Size of the ring buffer in bytes (`--ring-buffer-size`): a power of two, in whole pages.
    pub ring_buffer_bytes: u32,
    /// What becomes of unexpected system calls (`--seccomp`).
    pub seccomp: Seccomp,
    /// Directory of the state file (`--state-dir`); none means that none is kept.
    pub state_dir: Option<PathBuf>,
    /// Directory in which programs are pinned (`--pin-dir`); none means that they end with the watcher.
    pub pin_dir: Option<PathBuf>,
    /// The HTTP server and what it shows.
    pub metrics: MetricsConfig,
    /// Where names of containers come from.
    pub names: NamesConfig,
    /// What is asked of and told to the Kubernetes API.
    pub kubernetes: KubernetesConfig,
}

/// The HTTP server and what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Address to listen on (`--metrics-address`); none means all, IPv6 and IPv4.
    pub address: Option<IpAddr>,
    /// Port to listen on (`--metrics-port`); 0 means any free one.
    pub port: u16,
    /// `oom_kills_total` exists at 0 for every live container (`--zero-series`).
    pub zero_series: bool,
    /// The most time series about containers (`--max-series`).
    pub max_series: usize,
    /// How long series outlive their container (`--series-retention`).
    pub series_retention: Duration,
}

/// Where names of containers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamesConfig {
    /// Directory of container links (`--container-log-dir`).
    pub container_log_dir: PathBuf,
    /// Directory of pods (`--pod-log-dir`); none means it is not read.
    pub pod_log_dir: Option<PathBuf>,
    /// UID of the watcher's own pod (`--pod-uid`).
    pub pod_uid: Option<String>,
    /// Directory of CRI-O's bundles (`--crio-bundle-dir`); none means they are not read.
    pub crio_bundle_dir: Option<PathBuf>,
    /// Socket of the container runtime (`--cri-socket`); none means it is not asked.
    pub cri_socket: Option<PathBuf>,
    /// Directory of docker's containers (`--docker-container-dir`).
    pub docker_container_dir: PathBuf,
    /// Directory of podman's list of containers (`--podman-container-dir`).
    pub podman_container_dir: PathBuf,
}

/// What is asked of and told to the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// Pods that had a kill are looked up (`--kubernetes-enrichment`).
    pub enrichment: bool,
    /// Each kill becomes an Event on its pod (`--kubernetes-events`).
    pub events: bool,
    /// Keys of the pod's labels that reports take over (`--pod-labels`).
    pub pod_labels: Vec<String>,
}

/// A value that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("--{flag} ({env}): {value:?} {expected}")]
pub struct ConfigError {
    flag: &'static str,
    env: String,
    value: String,
    expected: Expected,
}

/// What would be right.
#[derive(Debug, Error, PartialEq, Eq)]
enum Expected {
    #[error("is neither text nor json")]
    Format,
    #[error("is none of off, errno and kill")]
    Seccomp,
    #[error("is neither true nor false")]
    Bool,
    #[error("is not a whole number from {min} to {max}")]
    Number { min: u64, max: u64 },
    #[error("is not a power of two in whole pages of {page_size} bytes")]
    RingSize { page_size: u32 },
    #[error("is not an IPv4 or IPv6 address")]
    Address,
    #[error("is not an absolute path")]
    AbsolutePath,
    #[error("is longer than {max} bytes, or has control characters or blanks")]
    Name { max: usize },
    #[error("is not a list of at most {max} label keys, separated by commas")]
    LabelKeys { max: usize },
    #[error("is not a log filter: {reason}")]
    Filter { reason: String },
}

/// A flag's name with the text that was given for it.
#[derive(Clone, Copy)]
struct Setting<'a> {
    flag: &'static str,
    text: &'a str,
}

impl Config {
    /// Checks and converts all of `options`; the first bad value is the error.
    pub fn new(options: &Options, surroundings: &Surroundings) -> Result<Self, ConfigError> {
        Ok(Self {
            output: match optional("output", options.output.as_deref()) {
                Some(setting) => setting.format()?,
                None if surroundings.stdout_is_terminal => OutputFormat::Text,
                None => OutputFormat::Json,
            },
            log_filter: required("rust-log", &options.rust_log, defaults::RUST_LOG).filter()?,
            node_name: required("node-name", options.node_name.as_deref().unwrap_or(""), &surroundings.host_name)
                .name()?,
            ring_buffer_bytes: required("ring-buffer-size", &options.ring_buffer_size, defaults::RING_BUFFER_SIZE)
                .ring_size(surroundings.page_size)?,
            seccomp: required("seccomp", &options.seccomp, defaults::SECCOMP).seccomp()?,
            state_dir: optional("state-dir", options.state_dir.as_deref()).map(Setting::path).transpose()?,
            pin_dir: optional("pin-dir", options.pin_dir.as_deref()).map(Setting::path).transpose()?,
            metrics: MetricsConfig::new(options)?,
            names: NamesConfig::new(options)?,
            kubernetes: KubernetesConfig::new(options)?,
        })
    }
}

impl MetricsConfig {
    fn new(options: &Options) -> Result<Self, ConfigError> {
        let port = required("metrics-port", &options.metrics_port, defaults::METRICS_PORT);
        let max_series = required("max-series", &options.max_series, defaults::MAX_SERIES);
        let retention = required("series-retention", &options.series_retention, defaults::SERIES_RETENTION);
        Ok(Self {
            address: optional("metrics-address", options.metrics_address.as_deref())
                .map(Setting::address)
                .transpose()?,
            port: port.number(0, u64::from(u16::MAX))? as u16,
            zero_series: required("zero-series", &options.zero_series, defaults::ZERO_SERIES).boolean()?,
            max_series: max_series.number(SERIES_MIN, SERIES_MAX)? as usize,
            series_retention: Duration::from_secs(retention.number(0, RETENTION_MAX_SECONDS)?),
        })
    }
}

impl NamesConfig {
    fn new(options: &Options) -> Result<Self, ConfigError> {
        let links = required("container-log-dir", &options.container_log_dir, defaults::CONTAINER_LOG_DIR);
        let docker = required("docker-container-dir", &options.docker_container_dir, defaults::DOCKER_CONTAINER_DIR);
        let podman = required("podman-container-dir", &options.podman_container_dir, defaults::PODMAN_CONTAINER_DIR);
        Ok(Self {
            container_log_dir: links.path()?,
            pod_log_dir: optional("pod-log-dir", options.pod_log_dir.as_deref()).map(Setting::path).transpose()?,
            pod_uid: optional("pod-uid", options.pod_uid.as_deref()).map(Setting::name).transpose()?,
            crio_bundle_dir: optional("crio-bundle-dir", options.crio_bundle_dir.as_deref())
                .map(Setting::path)
                .transpose()?,
            cri_socket: optional("cri-socket", options.cri_socket.as_deref()).map(Setting::path).transpose()?,
            docker_container_dir: docker.path()?,
            podman_container_dir: podman.path()?,
        })
    }
}

impl KubernetesConfig {
    fn new(options: &Options) -> Result<Self, ConfigError> {
        let enrichment =
            required("kubernetes-enrichment", &options.kubernetes_enrichment, defaults::KUBERNETES_ENRICHMENT);
        let labels = optional("pod-labels", options.pod_labels.as_deref()).map(Setting::label_keys).transpose()?;
        Ok(Self {
            enrichment: enrichment.boolean()?,
            events: required("kubernetes-events", &options.kubernetes_events, defaults::KUBERNETES_EVENTS).boolean()?,
            pod_labels: labels.unwrap_or_default(),
        })
    }
}

/// `drill --timeout`: 1 second to an hour.
pub fn drill_timeout(text: &str) -> Result<Duration, ConfigError> {
    let setting = required("timeout", text, defaults::DRILL_TIMEOUT);
    let seconds = setting
        .number(1, DRILL_TIMEOUT_MAX_SECONDS)
        .map_err(|error| ConfigError { env: "DRILL_TIMEOUT".to_owned(), ..error })?;
    Ok(Duration::from_secs(seconds))
}

/// A setting that has a default; an empty text counts as not given.
fn required<'a>(flag: &'static str, text: &'a str, default: &'a str) -> Setting<'a> {
    Setting { flag, text: if text.is_empty() { default } else { text } }
}

/// A setting without a default; an empty text counts as not given.
fn optional<'a>(flag: &'static str, text: Option<&'a str>) -> Option<Setting<'a>> {
    text.filter(|text| !text.is_empty()).map(|text| Setting { flag, text })
}

impl Setting<'_> {
    fn bad(self, expected: Expected) -> ConfigError {
        let env = self.flag.to_uppercase().replace('-', "_");
        ConfigError { flag: self.flag, env, value: self.text.to_owned(), expected }
    }

    fn format(self) -> Result<OutputFormat, ConfigError> {
        match self.text {
            "text" => Ok(OutputFormat::Text),
            "json" => Ok(OutputFormat::Json),
            _ => Err(self.bad(Expected::Format)),
        }
    }

    fn seccomp(self) -> Result<Seccomp, ConfigError> {
        match self.text {
            "off" => Ok(Seccomp::Off),
            "errno" => Ok(Seccomp::Errno),
            "kill" => Ok(Seccomp::Kill),
            _ => Err(self.bad(Expected::Seccomp)),
        }
    }

    fn boolean(self) -> Result<bool, ConfigError> {
        self.text.parse().map_err(|_| self.bad(Expected::Bool))
    }

    /// Digits only: `str::parse` alone would take a plus sign.
    fn number(self, min: u64, max: u64) -> Result<u64, ConfigError> {
        let digits = self.text.bytes().all(|byte| byte.is_ascii_digit());
        self.text
            .parse()
            .ok()
            .filter(|number| digits && (min..=max).contains(number))
            .ok_or_else(|| self.bad(Expected::Number { min, max }))
    }

    fn ring_size(self, page_size: u32) -> Result<u32, ConfigError> {
        let bytes = self.number(u64::from(RING_BUFFER_MIN_BYTES), u64::from(RING_BUFFER_MAX_BYTES))? as u32;
        if bytes.is_power_of_two() && bytes.is_multiple_of(page_size) {
            Ok(bytes)
        } else {
            Err(self.bad(Expected::RingSize { page_size }))
        }
    }

    fn address(self) -> Result<IpAddr, ConfigError> {
        self.text.parse().map_err(|_| self.bad(Expected::Address))
    }

    fn path(self) -> Result<PathBuf, ConfigError> {
        let path = Path::new(self.text);
        if path.is_absolute() { Ok(path.to_owned()) } else { Err(self.bad(Expected::AbsolutePath)) }
    }

    fn name(self) -> Result<String, ConfigError> {
        let fits = self.text.len() <= NAME_MAX_BYTES;
        if fits && !self.text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            Ok(self.text.to_owned())
        } else {
            Err(self.bad(Expected::Name { max: NAME_MAX_BYTES }))
        }
    }

    fn label_keys(self) -> Result<Vec<String>, ConfigError> {
        let keys: Vec<String> = self.text.split(',').map(|key| key.trim().to_owned()).collect();
        if keys.len() <= POD_LABELS_MAX && keys.iter().all(|key| is_label_key(key)) {
            Ok(keys)
        } else {
            Err(self.bad(Expected::LabelKeys { max: POD_LABELS_MAX }))
        }
    }

    fn filter(self) -> Result<String, ConfigError> {
        // With a space before a directive the parser takes the wrong part of it, and panics where that is half of a character.
        let text = self.text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
        match log::filter(&text) {
            Ok(_) => Ok(text),
            Err(error) => Err(self.bad(Expected::Filter { reason: Escaped(&error.to_string()).to_string() })),
        }
    }
}

/// A qualified name of Kubernetes: `[prefix/]name`, of 253 and 63 bytes.
fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("prefix", key));
    let plain = |text: &str, max| {
        (1..=max).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    plain(prefix, NAME_MAX_BYTES) && plain(name, 63)
}

#[cfg(test)]
mod tests;
