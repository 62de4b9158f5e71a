//! What a user meets who asks for the Kubernetes API where there is none.

use std::process::{Command, Output};

fn run(flag: &str, environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oom-watcher"))
        .args([flag, "--metrics-port=0", "--metrics-address=127.0.0.1"])
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("the agent starts")
}

#[track_caller]
fn check(flag: &str, environment: &[(&str, &str)], expected: &[&str]) {
    let output = run(flag, environment);
    let said = String::from_utf8(output.stderr).expect("it says text");
    assert!(!output.status.success(), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in expected {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

#[test]
fn no_api_is_an_error_that_names_the_flag() {
    let nowhere = [("HOME", "/nonexistent")];
    let no_pod = "KUBERNETES_SERVICE_HOST is not set";
    check("--kubernetes-events=true", &nowhere, &["--kubernetes-events", no_pod, "/nonexistent/.kube/config"]);
    check("--kubernetes-enrichment=true", &nowhere, &["--kubernetes-enrichment", no_pod]);
    check("--kubernetes-events=true", &[("KUBECONFIG", "/nonexistent/config")], &["/nonexistent/config"]);
}

#[test]
fn a_bad_kubeconfig_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    std::fs::write(&file, "users: [{ token: secret-token\n").unwrap();
    check(
        "--kubernetes-events=true",
        &[("KUBECONFIG", file.to_str().unwrap())],
        &["--kubernetes-events", "kubeconfig"],
    );
}

#[test]
fn a_pod_without_a_service_account_is_told_apart() {
    let pod = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];
    check("--kubernetes-events=true", &pod, &["--kubernetes-events", "service account of this pod"]);
}
