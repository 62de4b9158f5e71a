//! The kubelet's part: pods and containers over CRI, log directories, and the links in `/var/log/containers`.
//!
//! Order and delays are those of a kubelet 1.36 as measured: the directories are older than the container, the link comes
//! a few milliseconds after the first instruction, and an old container's link goes after the next death.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;
use tonic::Status;

use crate::{
    cgroup,
    containerd::{Containerd, log_end, systemd_handler},
    cri::{self, Client},
    expect, image,
    pods::{self, Qos},
};

/// From the first instruction to the link: 3 to 8 ms, of which the answer of `StartContainer` takes one to three.
const LINK_DELAY: Duration = Duration::from_millis(4);
/// How long a container may take to its kill.
const EXIT: Duration = Duration::from_secs(30);
/// Containers that may wait at the gate: each takes one line of it.
const CONTAINERS_MAX: usize = 64;
/// Namespace of all pods here.
pub(crate) const NAMESPACE: &str = "team-a";
/// How the agent's node is called.
const NODE: &str = "test-node";
/// Where file names end.
const FILE_NAME_MAX: usize = 255;

/// A kubelet with directories of its own.
pub(crate) struct Kubelet<'a> {
    client: &'a Client,
    handler: &'a str,
    driver: Driver,
    single_process_oom_kill: bool,
    directory: TempDir,
}

/// Who names cgroups: the kubelet's `cgroupDriver`, and what the runtime does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// `cgroupfs`, both.
    Cgroupfs,
    /// `systemd`, both: slices and scopes.
    Systemd,
    /// The kubelet's is `systemd` and the runtime's is not: the triple that is meant for systemd becomes one directory.
    Mismatched,
}

impl<'a> Kubelet<'a> {
    /// A kubelet without pods, whose runtime is `handler`.
    pub(crate) fn new(containerd: &'a Containerd, handler: &'a str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        for name in ["containers", "pods", "shared"] {
            fs::create_dir(directory.path().join(name)).expect("the directory is ours");
        }
        let (driver, single_process_oom_kill) = (Driver::Cgroupfs, false);
        let kubelet = Self { client: containerd.client(), handler, driver, single_process_oom_kill, directory };
        mknodat(CWD, kubelet.gate(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("the directory is ours");
        kubelet
    }

    /// The same with another driver.
    pub(crate) fn with(self, driver: Driver) -> Self {
        Self { driver, ..self }
    }

    /// The same with `singleProcessOOMKill`: containers are not killed as groups.
    pub(crate) fn killing_single_processes(self) -> Self {
        Self { single_process_oom_kill: true, ..self }
    }

    /// Its `/var/log/containers`.
    pub(crate) fn links(&self) -> PathBuf {
        self.directory.path().join("containers")
    }

    /// Its `/var/log/pods`.
    pub(crate) fn pod_logs(&self) -> PathBuf {
        self.directory.path().join("pods")
    }

    /// A directory that every container has as `/shared`.
    fn shared(&self) -> PathBuf {
        self.directory.path().join("shared")
    }

    /// Lets all containers go on that wait at `/shared/gate`, and those that come to it while the answer lives. Waiting
    /// costs them nothing, so thirty can do it in an emulated machine.
    #[track_caller]
    pub(crate) fn open_gate(&self) -> File {
        let mut gate = File::options().read(true).write(true).open(self.gate()).expect("the gate is there");
        gate.write_all(&[b'\n'; CONTAINERS_MAX]).expect("a pipe holds that");
        gate
    }

    fn gate(&self) -> PathBuf {
        self.shared().join("gate")
    }

    /// A pod with its sandbox running.
    #[track_caller]
    pub(crate) fn run_pod(&self, name: &str, qos: Qos, limit: Option<u64>) -> Pod<'_> {
        self.pod(name, qos, limit).started()
    }

    /// A static pod with its sandbox running: the node is in its name, and its UID is a hash.
    #[track_caller]
    pub(crate) fn run_static_pod(&self, name: &str, qos: Qos, limit: Option<u64>) -> Pod<'_> {
        self.make_pod(format!("{name}-{NODE}"), uuid().replace('-', ""), qos, limit).started()
    }

    /// A pod with its cgroup and log directory, before its sandbox.
    #[track_caller]
    pub(crate) fn pod(&self, name: &str, qos: Qos, limit: Option<u64>) -> Pod<'_> {
        self.make_pod(name.to_owned(), uuid(), qos, limit)
    }

    #[track_caller]
    fn make_pod(&self, name: String, uid: String, qos: Qos, limit: Option<u64>) -> Pod<'_> {
        let cgroup = match self.driver {
            Driver::Cgroupfs => pods::path(qos, &uid),
            Driver::Systemd | Driver::Mismatched => pods::slice(qos, &uid),
        };
        pods::make(&cgroup, limit);
        let logs = self.pod_logs().join(format!("{NAMESPACE}_{name}_{uid}"));
        fs::create_dir(&logs).expect("the directory is ours");
        let security = cri::LinuxSandboxSecurityContext { namespace_options: Some(namespaces()) };
        let config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.clone(),
                uid: uid.clone(),
                namespace: NAMESPACE.to_owned(),
            }),
            log_directory: text(&logs),
            labels: labels(&name, &uid, None),
            linux: Some(cri::LinuxPodSandboxConfig { cgroup_parent: cgroup.clone(), security_context: Some(security) }),
        };
        Pod { kubelet: self, name, uid, qos, cgroup, logs, config, sandbox: None }
    }

    /// The runtime that makes cgroups as this driver wants them.
    fn runtime_handler(&self) -> String {
        match self.driver {
            Driver::Systemd => systemd_handler(self.handler),
            Driver::Cgroupfs | Driver::Mismatched => self.handler.to_owned(),
        }
    }
}

fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").expect("the kernel makes UUIDs").trim().to_owned()
}

fn namespaces() -> cri::NamespaceOption {
    cri::NamespaceOption { network: cri::NAMESPACE_NODE, pid: cri::NAMESPACE_CONTAINER }
}

fn labels(pod: &str, uid: &str, container: Option<&str>) -> HashMap<String, String> {
    let pairs = [
        ("pod.name", Some(pod)),
        ("pod.namespace", Some(NAMESPACE)),
        ("pod.uid", Some(uid)),
        ("container.name", container),
    ];
    pairs.into_iter().filter_map(|(key, value)| Some((format!("io.kubernetes.{key}"), value?.to_owned()))).collect()
}

fn text(path: &Path) -> String {
    path.to_str().expect("the suite's own paths are text").to_owned()
}

/// A pod; removed when dropped.
pub(crate) struct Pod<'a> {
    kubelet: &'a Kubelet<'a>,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) qos: Qos,
    pub(crate) cgroup: String,
    logs: PathBuf,
    config: cri::PodSandboxConfig,
    sandbox: Option<String>,
}

/// What a container runs, and with what limit.
#[derive(Clone, Copy)]
pub(crate) struct Spec<'a> {
    pub(crate) name: &'a str,
    pub(crate) script: &'a str,
    pub(crate) limit: Option<u64>,
}

impl Pod<'_> {
    #[track_caller]
    fn started(mut self) -> Self {
        if let Err(status) = self.run() {
            panic!("the sandbox does not start: {status}\n{}", log_end());
        }
        self
    }

    /// `RunPodSandbox`.
    pub(crate) fn run(&mut self) -> Result<(), Status> {
        let question = cri::RunPodSandboxRequest {
            config: Some(self.config.clone()),
            runtime_handler: self.kubelet.runtime_handler(),
        };
        let answer: cri::SandboxId = self.kubelet.client.call("RunPodSandbox", question)?;
        self.sandbox = Some(answer.pod_sandbox_id);
        Ok(())
    }

    /// A container that runs, with its link.
    #[track_caller]
    pub(crate) fn run_container(&self, spec: Spec, attempt: u32) -> Container<'_> {
        let container = self.create(spec, attempt);
        container.start_with_link();
        container
    }

    /// Its log directory, then `CreateContainer`.
    #[track_caller]
    pub(crate) fn create(&self, spec: Spec, attempt: u32) -> Container<'_> {
        fs::create_dir_all(self.logs.join(spec.name)).expect("the directory is ours");
        let question = cri::CreateContainerRequest {
            pod_sandbox_id: self.sandbox.clone().expect("the sandbox runs"),
            config: Some(self.container(spec, attempt)),
            sandbox_config: Some(self.config.clone()),
        };
        let answer: cri::ContainerId = self
            .kubelet
            .client
            .call("CreateContainer", question)
            .unwrap_or_else(|status| panic!("no container: {status}\n{}", log_end()));
        let id = answer.container_id;
        let link = self.kubelet.links().join(self.link_name(spec.name, &id));
        let log = self.logs.join(spec.name).join(format!("{attempt}.log"));
        let container = Container { pod: self, name: spec.name.to_owned(), id, attempt, link, log };
        pods::claim(&container.cgroup());
        container
    }

    /// The file name of a container's link. The kubelet cuts what is too long, ahead of the ending.
    fn link_name(&self, container: &str, id: &str) -> String {
        let mut name = format!("{}_{NAMESPACE}_{container}-{id}", self.name);
        name.truncate(FILE_NAME_MAX - ".log".len());
        name + ".log"
    }

    fn container(&self, spec: Spec, attempt: u32) -> cri::ContainerConfig {
        let shared = text(&self.kubelet.shared());
        let limit = spec.limit.map_or(0, u64::cast_signed);
        let is_group = cgroup::hierarchy().v2 && !self.kubelet.single_process_oom_kill;
        let unified = is_group.then(|| ("memory.oom.group".to_owned(), "1".to_owned()));
        let resources = cri::LinuxContainerResources {
            cpu_shares: 2,
            memory_limit_in_bytes: limit,
            memory_swap_limit_in_bytes: limit,
            oom_score_adj: self.qos.oom_score_adj(),
            unified: unified.into_iter().collect(),
        };
        let security = cri::LinuxContainerSecurityContext { namespace_options: Some(namespaces()) };
        cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: spec.name.to_owned(), attempt }),
            image: Some(cri::ImageSpec { image: image::NAME.to_owned() }),
            command: ["/bin/sh", "-c", spec.script].map(str::to_owned).to_vec(),
            mounts: vec![cri::Mount { container_path: "/shared".to_owned(), host_path: shared, readonly: true }],
            labels: labels(&self.name, &self.uid, Some(spec.name)),
            annotations: HashMap::from([("io.kubernetes.container.restartCount".to_owned(), attempt.to_string())]),
            log_path: format!("{}/{attempt}.log", spec.name),
            linux: Some(cri::LinuxContainerConfig { resources: Some(resources), security_context: Some(security) }),
        }
    }

    /// Removes all that there is of the pod outside of the runtime, at once: logs, processes, cgroup.
    #[track_caller]
    pub(crate) fn vanish(&self) {
        fs::remove_dir_all(&self.logs).expect("the directory is ours");
        pods::kill_all(&self.cgroup);
        pods::remove(&self.cgroup);
    }

    /// Removes the pod as the kubelet does: logs, runtime, cgroup.
    pub(crate) fn remove(&mut self) {
        let _ = fs::remove_dir_all(&self.logs);
        if let Some(pod_sandbox_id) = self.sandbox.take() {
            let question = cri::SandboxId { pod_sandbox_id };
            for method in ["StopPodSandbox", "RemovePodSandbox"] {
                if let Err(status) = self.kubelet.client.call::<_, cri::Empty>(method, question.clone()) {
                    println!("{method} of {}: {status}", self.name);
                }
            }
        }
        pods::remove(&self.cgroup);
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

/// One container of a pod: a restart is another one of the same name.
pub(crate) struct Container<'a> {
    pub(crate) pod: &'a Pod<'a>,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) attempt: u32,
    link: PathBuf,
    log: PathBuf,
}

impl Container<'_> {
    /// `StartContainer`.
    #[track_caller]
    pub(crate) fn start(&self) {
        let question = cri::ContainerId { container_id: self.id.clone() };
        let started: Result<cri::Empty, Status> = self.pod.kubelet.client.call("StartContainer", question);
        started.unwrap_or_else(|status| panic!("{} does not start: {status}\n{}", self.name, log_end()));
    }

    /// `StartContainer`, and the link when a kubelet makes it.
    #[track_caller]
    pub(crate) fn start_with_link(&self) {
        self.start();
        thread::sleep(LINK_DELAY);
        self.link();
    }

    /// Makes the link.
    #[track_caller]
    pub(crate) fn link(&self) {
        symlink(&self.log, &self.link).expect("the directory is ours");
        expect::linked(&self.id);
    }

    /// Removes the link, and the log before it.
    #[track_caller]
    pub(crate) fn unlink(&self) {
        let _ = fs::remove_file(&self.log);
        fs::remove_file(&self.link).expect("the link is there");
    }

    /// The file name of its link.
    pub(crate) fn link_name(&self) -> String {
        self.pod.link_name(&self.name, &self.id)
    }

    /// The cgroup of its processes, as the kernel has it.
    pub(crate) fn cgroup(&self) -> String {
        let (pod, id) = (&self.pod.cgroup, &self.id);
        match self.pod.kubelet.driver {
            Driver::Cgroupfs => format!("{pod}/{id}"),
            // crun's one level more of v2.
            Driver::Systemd if self.pod.kubelet.handler == "crun" && cgroup::hierarchy().v2 => {
                format!("{pod}/cri-containerd-{id}.scope/container")
            }
            Driver::Systemd => format!("{pod}/cri-containerd-{id}.scope"),
            Driver::Mismatched => {
                let above = if self.pod.kubelet.handler == "runc" { pods::containerds() } else { "" };
                format!("{above}/{}:cri-containerd:{id}", pod.rsplit('/').next().unwrap_or_default())
            }
        }
    }

    /// Waits for the first kill in it. Its cgroup is gone with its last process.
    #[track_caller]
    pub(crate) fn wait_for_kill(&self) {
        let deadline = Instant::now() + EXIT;
        while pods::oom_kills(&self.cgroup()).is_some_and(|kills| kills == 0) {
            assert!(Instant::now() < deadline, "nobody is killed in {}", self.name);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the end of its first process.
    #[track_caller]
    pub(crate) fn wait_for_exit(&self) {
        let deadline = Instant::now() + EXIT;
        while !self.has_exited() {
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether its first process has ended.
    #[track_caller]
    pub(crate) fn has_exited(&self) -> bool {
        self.status().state == cri::CONTAINER_EXITED
    }

    /// When its first process ended, by the runtime: a kubelet cannot begin a restart before. In milliseconds, by the wall clock.
    #[track_caller]
    pub(crate) fn finished(&self) -> f64 {
        self.status().finished_at as f64 / 1e6
    }

    #[track_caller]
    fn status(&self) -> cri::ContainerStatus {
        let question = cri::ContainerId { container_id: self.id.clone() };
        let answer: cri::ContainerStatusResponse =
            self.pod.kubelet.client.call("ContainerStatus", question).expect("the runtime knows it");
        answer.status.expect("a status")
    }
}
