//! What runs in no pod: containers of containerd as docker and podman name their cgroups, and a unit as systemd does.
//!
//! docker is containerd with cgroups and a file of names of its own, and podman calls the same runtimes; so cgroups, runtimes
//! and kills are real here, and the two files of names are written in the form that docker and podman write.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{containerd, image, pods};

/// Names of plain containers, where docker and podman keep them below `/var/lib`.
pub(crate) struct NameFiles(TempDir);

impl NameFiles {
    /// No names yet.
    #[track_caller]
    pub(crate) fn new() -> Self {
        // Where it is mounted for the agent; a guest does not have it.
        fs::create_dir_all("/var/lib").expect("there is a /var/lib");
        let files = Self(tempfile::tempdir().expect("a temporary directory can be made"));
        for folder in [files.docker(), files.podman()] {
            fs::create_dir_all(folder).expect("the directory is ours");
        }
        files.write_podman(&json!([]));
        files
    }

    /// A shell command that shows them to what it becomes, in place of the machine's own.
    pub(crate) fn shown(&self) -> String {
        format!("mount --bind {} /var/lib && exec \"$0\" \"$@\"", self.0.path().display())
    }

    fn docker(&self) -> PathBuf {
        self.0.path().join("docker/containers")
    }

    fn podman(&self) -> PathBuf {
        self.0.path().join("containers/storage/overlay-containers")
    }

    /// docker's file of a container.
    #[track_caller]
    pub(crate) fn add_docker(&self, id: &str, name: &str) {
        let folder = self.docker().join(id);
        fs::create_dir(&folder).expect("the directory is ours");
        let config = json!({ "Config": { "Env": ["TOKEN=secret"] }, "ID": id, "Name": format!("/{name}") });
        fs::write(folder.join("config.v2.json"), config.to_string()).expect("the directory is ours");
    }

    /// podman's file of all containers, with this one in it.
    #[track_caller]
    pub(crate) fn add_podman(&self, id: &str, name: &str) {
        self.write_podman(&json!([{ "id": id, "names": [name], "layer": "", "metadata": "{}" }]));
    }

    #[track_caller]
    fn write_podman(&self, containers: &Value) {
        fs::write(self.podman().join("containers.json"), containers.to_string()).expect("the directory is ours");
    }
}

/// A new id, of 64 digits as every engine makes them.
pub(crate) fn new_id() -> String {
    let uuid = || fs::read_to_string("/proc/sys/kernel/random/uuid").expect("the kernel makes UUIDs");
    (uuid() + &uuid()).chars().filter(char::is_ascii_hexdigit).collect()
}

/// Runs a container with this id in this cgroup; removed with containerd.
#[track_caller]
pub(crate) fn run(handler: &str, id: &str, cgroup: &str, limit: u64, script: &str) {
    let (above, _) = cgroup.rsplit_once('/').expect("a path");
    pods::make(above, None);
    pods::claim(cgroup);
    let output = Command::new(containerd::program_path("ctr").expect("it was looked for before"))
        .arg("--address")
        .arg(containerd::socket())
        .args(["--namespace", "k8s.io", "run", "--detach", "--null-io", "--snapshotter", "native"])
        .arg("--runc-binary")
        .arg(containerd::program_path(handler).expect("it was looked for before"))
        .arg("--runc-root")
        .arg(containerd::home("state-of-plain"))
        .args(["--cgroup", cgroup, "--memory-limit", &limit.to_string()])
        .args([image::NAME, id, "/bin/sh", "-c", script])
        .output()
        .expect("ctr starts");
    assert!(output.status.success(), "ctr does not run it: {}", String::from_utf8_lossy(&output.stderr));
}

/// The processes of a unit of systemd.
pub(crate) struct Unit(Child);

impl Unit {
    /// A unit in this cgroup, in which the shell waits for [`Self::go`].
    #[track_caller]
    pub(crate) fn start(cgroup: &str, limit: u64, script: &str) -> Self {
        pods::make(cgroup, Some(limit));
        let child = Command::new(image::busybox().expect("it was looked for before"))
            .args(["sh", "-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("busybox starts");
        pods::admit(cgroup, child.id());
        Self(child)
    }

    /// Lets it run.
    #[track_caller]
    pub(crate) fn go(&mut self) {
        self.0.stdin.take().expect("it is piped").write_all(b"\n").expect("it waits");
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
