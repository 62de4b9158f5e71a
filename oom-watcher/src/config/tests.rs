use std::process::Command;

use clap::Parser;
use proptest::prelude::*;

use super::*;
use crate::cli::Cli;

fn surroundings() -> Surroundings {
    Surroundings { host_name: "host-1".to_owned(), stdout_is_terminal: false, page_size: 4096 }
}

fn configure(args: &[&str]) -> Result<Config, ConfigError> {
    let cli = Cli::try_parse_from(["oom-watcher"].iter().chain(args)).unwrap();
    Config::new(&cli.options, &surroundings())
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let expected = Config {
        output: OutputFormat::Json,
        log_filter: "info".to_owned(),
        node_name: "host-1".to_owned(),
        ring_buffer_bytes: 512 * 1024,
        seccomp: Seccomp::Errno,
        state_dir: None,
        pin_dir: None,
        metrics: MetricsConfig {
            address: None,
            port: 8080,
            zero_series: true,
            max_series: 5000,
            series_retention: Duration::from_hours(1),
        },
        names: NamesConfig {
            container_log_dir: "/var/log/containers".into(),
            pod_log_dir: None,
            pod_uid: None,
            crio_bundle_dir: None,
            cri_socket: None,
            docker_container_dir: "/var/lib/docker/containers".into(),
            podman_container_dir: "/var/lib/containers/storage/overlay-containers".into(),
        },
        kubernetes: KubernetesConfig { enrichment: false, events: false, pod_labels: Vec::new() },
    };
    assert_eq!(configure(&[]).unwrap(), expected);
    let terminal = Surroundings { stdout_is_terminal: true, ..surroundings() };
    let options = Cli::try_parse_from(["oom-watcher"]).unwrap().options;
    assert_eq!(Config::new(&options, &terminal).unwrap().output, OutputFormat::Text);
}

#[test]
fn every_flag_arrives() {
    let config = configure(&[
        "--output=text",
        "--rust-log=warn,oom_watcher=debug",
        "--node-name=worker-1",
        "--ring-buffer-size=1048576",
        "--seccomp=kill",
        "--state-dir=/var/lib/oom-watcher",
        "--pin-dir=/sys/fs/bpf/oom-watcher",
        "--metrics-address=::1",
        "--metrics-port=0",
        "--zero-series=false",
        "--max-series=100",
        "--series-retention=0",
        "--container-log-dir=/c",
        "--pod-log-dir=/var/log/pods",
        "--pod-uid=0a5a1b6e-9d1f-4a9b-8f0e-0c6d2f7f9a11",
        "--crio-bundle-dir=/var/lib/containers/storage/overlay-containers",
        "--cri-socket=/run/containerd/containerd.sock",
        "--docker-container-dir=/d",
        "--podman-container-dir=/p",
        "--kubernetes-enrichment=true",
        "--kubernetes-events=true",
        "--pod-labels=app, app.kubernetes.io/name",
    ])
    .unwrap();
    let expected = Config {
        output: OutputFormat::Text,
        log_filter: "warn,oom_watcher=debug".to_owned(),
        node_name: "worker-1".to_owned(),
        ring_buffer_bytes: 1024 * 1024,
        seccomp: Seccomp::Kill,
        state_dir: Some("/var/lib/oom-watcher".into()),
        pin_dir: Some("/sys/fs/bpf/oom-watcher".into()),
        metrics: MetricsConfig {
            address: Some("::1".parse().unwrap()),
            port: 0,
            zero_series: false,
            max_series: 100,
            series_retention: Duration::ZERO,
        },
        names: NamesConfig {
            container_log_dir: "/c".into(),
            pod_log_dir: Some("/var/log/pods".into()),
            pod_uid: Some("0a5a1b6e-9d1f-4a9b-8f0e-0c6d2f7f9a11".to_owned()),
            crio_bundle_dir: Some("/var/lib/containers/storage/overlay-containers".into()),
            cri_socket: Some("/run/containerd/containerd.sock".into()),
            docker_container_dir: "/d".into(),
            podman_container_dir: "/p".into(),
        },
        kubernetes: KubernetesConfig {
            enrichment: true,
            events: true,
            pod_labels: vec!["app".to_owned(), "app.kubernetes.io/name".to_owned()],
        },
    };
    assert_eq!(config, expected);
}

#[test]
fn an_empty_value_is_no_value() {
    let flags = Cli::try_parse_from(["oom-watcher"]).unwrap();
    let expected = Config::new(&flags.options, &surroundings()).unwrap();
    let empty = FLAGS.map(|flag| format!("--{flag}="));
    let empty = configure(&empty.each_ref().map(String::as_str));
    assert_eq!(empty.unwrap(), expected);
}

#[test]
fn spaces_between_the_directives_of_the_log_mean_nothing() {
    let filter = |text: &str| configure(&[&format!("--rust-log={text}")]).map(|config| config.log_filter);
    assert_eq!(filter("warn, oom_watcher=debug").unwrap(), "warn,oom_watcher=debug");
    // What the parser panics at.
    assert_eq!(filter("info,\u{c}éé=debug").unwrap(), "info,éé=debug");
}

#[test]
fn a_bad_value_is_named_with_its_flag_and_variable() {
    let port = "is not a whole number from 0 to 65535";
    let ring = "is not a power of two in whole pages of 4096 bytes";
    let range = "is not a whole number from 65536 to 268435456";
    let name = "is longer than 253 bytes, or has control characters or blanks";
    let keys = "is not a list of at most 32 label keys, separated by commas";
    let long = "x".repeat(254);
    for (flag, value, problem) in [
        ("output", "yaml", "is neither text nor json"),
        ("output", "JSON", "is neither text nor json"),
        ("metrics-port", "http", port),
        ("metrics-port", "65536", port),
        ("metrics-port", "+80", port),
        ("metrics-port", " 80", port),
        ("metrics-port", "99999999999999999999999", port),
        ("metrics-address", "localhost", "is not an IPv4 or IPv6 address"),
        ("metrics-address", "[::1]", "is not an IPv4 or IPv6 address"),
        ("zero-series", "yes", "is neither true nor false"),
        ("zero-series", "True", "is neither true nor false"),
        ("kubernetes-enrichment", "1", "is neither true nor false"),
        ("kubernetes-events", "on", "is neither true nor false"),
        ("max-series", "0", "is not a whole number from 100 to 1000000"),
        ("series-retention", "1h", "is not a whole number from 0 to 604800"),
        ("ring-buffer-size", "512KiB", range),
        ("ring-buffer-size", "32768", range),
        ("ring-buffer-size", "524289", ring),
        ("ring-buffer-size", "786432", ring),
        ("seccomp", "trap", "is none of off, errno and kill"),
        ("state-dir", "state", "is not an absolute path"),
        ("pin-dir", "bpf:pins", "is not an absolute path"),
        ("container-log-dir", "var/log", "is not an absolute path"),
        ("pod-log-dir", ".", "is not an absolute path"),
        ("crio-bundle-dir", "crio", "is not an absolute path"),
        ("cri-socket", "unix:///run/cri.sock", "is not an absolute path"),
        ("docker-container-dir", "docker", "is not an absolute path"),
        ("podman-container-dir", "podman", "is not an absolute path"),
        ("node-name", "a b", name),
        ("node-name", &long, name),
        ("pod-uid", "a\nb", name),
        ("pod-labels", "app,,tier", keys),
        ("pod-labels", "app/", keys),
        ("pod-labels", "a b", keys),
    ] {
        let env = flag.to_uppercase().replace('-', "_");
        let error = configure(&[&format!("--{flag}={value}")]).unwrap_err();
        assert_eq!(error.to_string(), format!("--{flag} ({env}): {value:?} {problem}"));
    }
    let error = configure(&["--rust-log=info,=,"]).unwrap_err().to_string();
    assert!(error.starts_with("--rust-log (RUST_LOG): \"info,=,\" is not a log filter: "), "{error}");
}

#[test]
fn a_ring_buffer_is_whole_pages_of_this_machine() {
    let options = Cli::try_parse_from(["oom-watcher", "--ring-buffer-size=65536"]).unwrap().options;
    let pages_of_64k = Surroundings { page_size: 64 * 1024, ..surroundings() };
    assert_eq!(Config::new(&options, &pages_of_64k).unwrap().ring_buffer_bytes, 65536);
    let pages_of_128k = Surroundings { page_size: 128 * 1024, ..surroundings() };
    assert!(Config::new(&options, &pages_of_128k).is_err());
}

#[test]
fn the_timeout_of_a_drill() {
    assert_eq!(drill_timeout("").unwrap(), Duration::from_secs(10));
    assert_eq!(drill_timeout("3600").unwrap(), Duration::from_hours(1));
    let error = drill_timeout("0").unwrap_err().to_string();
    assert_eq!(error, "--timeout (DRILL_TIMEOUT): \"0\" is not a whole number from 1 to 3600");
}

#[test]
fn output_goes_before_or_after_the_command() {
    for args in [["oom-watcher", "check", "--output=text"], ["oom-watcher", "--output=text", "check"]] {
        let cli = Cli::try_parse_from(args).unwrap();
        assert_eq!(Config::new(&cli.options, &surroundings()).unwrap().output, OutputFormat::Text);
    }
}

#[test]
fn an_unknown_flag_or_command_is_named() {
    for (args, named) in [
        (["oom-watcher", "--metrics-prot=1"], "--metrics-prot"),
        (["oom-watcher", "chekc"], "chekc"),
        (["oom-watcher", "--output"], "--output"),
    ] {
        let error = Cli::try_parse_from(args).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(named), "{error}");
    }
}

/// The environment belongs to a process, so this test runs itself again in one of its own.
#[test]
fn the_flag_wins_over_the_environment_and_that_over_the_default() {
    const CHILD: &str = "OOM_WATCHER_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let config = configure(&["--metrics-port=1111"]).unwrap();
        assert_eq!(config.metrics.port, 1111, "the flag wins over METRICS_PORT");
        assert_eq!(config.node_name, "from-env", "NODE_NAME wins over the host name");
        assert_eq!(config.metrics.max_series, 5000, "an empty MAX_SERIES is no value");
        let error = configure(&["--metrics-port="]).map(|config| config.metrics.port);
        assert_eq!(error, Ok(8080), "an empty flag is no value either");
        let error = Cli::try_parse_from(["oom-watcher"]).map(|cli| Config::new(&cli.options, &surroundings()));
        let error = error.unwrap().unwrap_err().to_string();
        assert_eq!(error, "--metrics-port (METRICS_PORT): \"http\" is not a whole number from 0 to 65535");
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "config::tests::the_flag_wins_over_the_environment_and_that_over_the_default"])
        .env_clear()
        .envs([(CHILD, "1"), ("METRICS_PORT", "http"), ("NODE_NAME", "from-env"), ("MAX_SERIES", "")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let mut out = Vec::new();
        crate::cli::write_completions(shell.parse().unwrap(), &mut out);
        let script = String::from_utf8(out).unwrap();
        assert!(script.contains("metrics-port"), "{shell}");
    }
}

proptest! {
    /// Whatever is given is either what was meant or an error that shows it, escaped.
    #[test]
    fn no_value_is_too_odd(text in any::<String>(), flag in prop::sample::select(&FLAGS[..])) {
        if let Err(error) = configure(&[&format!("--{flag}={text}")]) {
            let shown = error.to_string();
            prop_assert!(shown.starts_with(&format!("--{flag} (")), "{shown}");
            prop_assert!(!shown.contains(char::is_control), "{shown:?}");
        }
    }
}

const FLAGS: [&str; 22] = [
    "output",
    "rust-log",
    "node-name",
    "ring-buffer-size",
    "seccomp",
    "state-dir",
    "pin-dir",
    "metrics-address",
    "metrics-port",
    "zero-series",
    "max-series",
    "series-retention",
    "container-log-dir",
    "pod-log-dir",
    "pod-uid",
    "crio-bundle-dir",
    "cri-socket",
    "docker-container-dir",
    "podman-container-dir",
    "kubernetes-enrichment",
    "kubernetes-events",
    "pod-labels",
];
