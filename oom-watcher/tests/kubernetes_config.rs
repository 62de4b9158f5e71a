//! What a user meets who asks for the Kubernetes API where there is none, and that no message is an instruction to a terminal.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    process::{Command, Output, Stdio},
};

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
    let environment = [("KUBECONFIG", file.to_str().unwrap())];
    check("--kubernetes-events=true", &environment, &["--kubernetes-events", "kubeconfig"]);
    let said = String::from_utf8(run("--kubernetes-events=true", &environment).stderr).unwrap();
    assert!(!said.contains("secret-token"), "{said}");
}

#[test]
fn a_pod_without_a_service_account_is_told_apart() {
    let pod = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];
    check("--kubernetes-events=true", &pod, &["--kubernetes-events", "service account of this pod"]);
}

/// Clears the screen, sets the title, changes colours, by the 7-bit and the 8-bit way, and begins another line.
const HOSTILE: &str = "a\x1b[2J\x1b]0;t\x07\u{9b}31m\u{202e}b\rc\nd";

/// Runs the agent with a terminal for its standard error; what the terminal is sent.
fn at_a_terminal(arguments: &[&OsStr], environment: &[(&str, &OsStr)]) -> Vec<u8> {
    use rustix::{pty, termios};
    let flags = pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY;
    let master = pty::openpt(flags).expect("a terminal");
    pty::grantpt(&master).expect("it is ours");
    pty::unlockpt(&master).expect("it can be opened");
    let name = pty::ptsname(&master, Vec::new()).expect("it has a name");
    let terminal =
        OpenOptions::new().read(true).write(true).open(OsStr::from_bytes(name.as_bytes())).expect("it opens");
    assert!(termios::isatty(&terminal));
    let status = Command::new(env!("CARGO_BIN_EXE_oom-watcher"))
        .args(arguments)
        .args(["--metrics-port=0", "--metrics-address=127.0.0.1"])
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(terminal)
        .status()
        .expect("the agent starts");
    assert!(!status.success());
    let mut sent = Vec::new();
    // The end of a terminal is an error: nobody has its other side any more.
    let _ = std::fs::File::from(master).read_to_end(&mut sent);
    sent
}

#[track_caller]
fn check_terminal(arguments: &[&OsStr], environment: &[(&str, &OsStr)], expected: &str) {
    let sent = at_a_terminal(arguments, environment);
    let sent = String::from_utf8(sent).expect("text");
    // The terminal itself makes \r\n of each line's end.
    let said = sent.replace("\r\n", "\n");
    assert!(!said.contains(|c: char| oom_watcher::escape::is_unsafe(c) && c != '\n'), "{said:?}");
    // In the one or the other notation.
    assert!(said.contains("[2J") && said.contains(r"b\rc") && said.contains(expected), "{said}");
}

#[test]
fn no_message_is_an_instruction_to_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join(HOSTILE);
    let nowhere = folder.path().join("none").join(HOSTILE);
    let events: &OsStr = "--kubernetes-events=true".as_ref();
    // A directory where a file should be, and a file that is not there.
    std::fs::create_dir(&kubeconfig).unwrap();
    for path in [&kubeconfig, &nowhere] {
        check_terminal(&[events], &[("KUBECONFIG", path.as_os_str())], "the kubeconfig cannot be used");
    }
    for flag in ["--ring-buffer-size", "--output", "--series-retention", "--node-name", "--container-log-dir"] {
        let argument = format!("{flag}={HOSTILE}");
        check_terminal(&[argument.as_ref()], &[], flag);
    }
    // The one message of several lines.
    check_terminal(&[format!("--{HOSTILE}").as_ref()], &[], "unexpected argument");
    check_terminal(&[], &[("RUST_LOG", format!("a={HOSTILE}").as_ref())], "RUST_LOG");
}

#[test]
fn the_text_of_a_kubeconfig_is_no_instruction_to_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    for text in [
        format!("users: [{{ token: secret-token, name: \"{HOSTILE}\"\n"),
        "current-context: \"\\e[2J\"\nclusters: []\n".to_owned(),
        "clusters: \"\\e[2J\"\n".to_owned(),
    ] {
        std::fs::write(&file, &text).unwrap();
        let sent = at_a_terminal(&["--kubernetes-events=true".as_ref()], &[("KUBECONFIG", file.as_os_str())]);
        let said = String::from_utf8(sent).unwrap().replace("\r\n", "\n");
        assert!(!said.trim_end_matches('\n').contains(oom_watcher::escape::is_unsafe), "{said:?}");
        assert!(said.contains("kubeconfig") && !said.contains("secret-token"), "{said}");
    }
}
