//! Names in the node's other files: the kubelet's pod log directories, and what docker and podman write of their containers.
//!
//! All of them are optional mounts. Each answer is read on a thread for blocking work, since a machine that is out of memory
//! may take seconds for a file, and each read has a limit. Only names are taken: docker's file also holds the container's
//! environment, which is skipped over and never kept.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cgroup::ContainerId;
use crate::names::link;

/// Entries of one directory that are read at most: pods of a node (500 are large) and what a runtime has left there for years.
const ENTRIES_MAX: usize = 16_384;
/// Bytes of one file that are read at most: podman's lists every container of the machine.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What the log directory of a pod says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PodLogs {
    pub(super) namespace: String,
    pub(super) pod: String,
    /// Each start of each container.
    pub(super) starts: Vec<Start>,
}

/// A log file: the runtime makes one for each start of a container, before it starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) container: String,
    pub(super) restart_count: u32,
    pub(super) at: SystemTime,
}

/// Looks for the log directory of the pod with this UID.
pub(super) async fn pod(dir: PathBuf, uid: String) -> Option<PodLogs> {
    beside("pod log directories", move || read_pod(&dir, &uid)).await
}

/// What CRI-O wrote of a container of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) pod_uid: String,
    /// None for a sandbox.
    pub(super) container: Option<(String, Option<u32>)>,
}

/// Looks for the bundle of a container of CRI-O.
pub(super) async fn bundle(dir: PathBuf, id: ContainerId) -> Option<Bundle> {
    beside("bundles of CRI-O", move || read_bundle(&dir, id)).await
}

/// Looks for the name of a container that no pod owns.
pub(super) async fn container_name(
    docker: Option<PathBuf>,
    podman: Option<PathBuf>,
    id: ContainerId,
) -> Option<String> {
    beside("runtime's files", move || {
        // One that cannot be read says nothing about what the other has.
        let docker = docker.map_or(Ok(None), |dir| read_docker(&dir, id));
        let podman = || podman.map_or(Ok(None), |file| read_podman(&file, id));
        match docker {
            Ok(Some(name)) => Ok(Some(name)),
            Ok(None) => podman(),
            Err(error) => podman()?.map_or(Err(error), |name| Ok(Some(name))),
        }
    })
    .await
}

/// Runs a read on a thread for blocking work. What is not there is no answer; what cannot be read is none either, and is
/// logged for whoever looks into it.
async fn beside<T: Send + 'static>(
    what: &'static str,
    read: impl FnOnce() -> io::Result<Option<T>> + Send + 'static,
) -> Option<T> {
    match tokio::task::spawn_blocking(read).await.map_err(io::Error::other).flatten() {
        Ok(answer) => answer,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, source = what, "Looking for a name failed");
            None
        }
    }
}

fn read_pod(dir: &Path, uid: &str) -> io::Result<Option<PodLogs>> {
    for entry in fs::read_dir(dir)?.take(ENTRIES_MAX) {
        let file_name = entry?.file_name();
        let Some(found) = file_name.to_str().and_then(link::pod_directory).filter(|found| found.uid == uid) else {
            continue;
        };
        // The pod's name stands even if its directory is going at this moment.
        let starts = read_starts(&dir.join(file_name)).unwrap_or_default();
        return Ok(Some(PodLogs { namespace: found.namespace, pod: found.pod, starts }));
    }
    Ok(None)
}

/// The starts that a pod's directory knows. A file system that does not say when a file was made knows none.
fn read_starts(dir: &Path) -> io::Result<Vec<Start>> {
    let containers = fs::read_dir(dir)?.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        link::is_container_name(&name).then_some(name)
    });
    let logs = containers.flat_map(|container| {
        let entries = fs::read_dir(dir.join(&container)).into_iter().flatten().filter_map(Result::ok);
        entries.map(move |entry| (container.clone(), entry))
    });
    let starts = logs.take(ENTRIES_MAX).filter_map(|(container, entry)| {
        let restart_count = link::restart(entry.file_name().to_str()?)?;
        Some(Start { container, restart_count, at: entry.metadata().ok()?.created().ok()? })
    });
    Ok(starts.collect())
}

/// The part of an OCI bundle's `config.json` that is wanted.
#[derive(Deserialize)]
struct OciConfig {
    annotations: Annotations,
}

/// The kubelet's labels and annotations, which CRI-O puts there one by one, and its own word on what it is.
#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "io.kubernetes.cri-o.ContainerType")]
    kind: String,
    #[serde(rename = "io.kubernetes.pod.namespace")]
    namespace: String,
    #[serde(rename = "io.kubernetes.pod.name")]
    pod: String,
    #[serde(rename = "io.kubernetes.pod.uid")]
    pod_uid: String,
    #[serde(rename = "io.kubernetes.container.name")]
    container: Option<String>,
    #[serde(rename = "io.kubernetes.container.restartCount")]
    restart_count: Option<String>,
}

/// A sandbox has the kubelet's names too, with a container name of CRI-O's own.
fn read_bundle(dir: &Path, id: ContainerId) -> io::Result<Option<Bundle>> {
    let config: Option<OciConfig> = read_json(&dir.join(id.to_string()).join("userdata/config.json"))?;
    let Some(OciConfig { annotations: found }) = config else { return Ok(None) };
    let is_container = found.kind == "container";
    let container = found.container.filter(|_| is_container).unwrap_or_default();
    let name = if is_container { &container } else { "sandbox" };
    let Some(names) = link::container_name(&found.namespace, &found.pod, name) else { return Ok(None) };
    let restart_count = found.restart_count.and_then(|count| count.parse().ok());
    let container = is_container.then_some((names.container, restart_count));
    Ok(Some(Bundle { namespace: names.namespace, pod: names.pod, pod_uid: found.pod_uid, container }))
}

/// The one field of docker's `config.v2.json` that is wanted.
#[derive(Deserialize)]
struct DockerContainer {
    #[serde(rename = "Name")]
    name: String,
}

fn read_docker(dir: &Path, id: ContainerId) -> io::Result<Option<String>> {
    let container: Option<DockerContainer> = read_json(&dir.join(id.to_string()).join("config.v2.json"))?;
    Ok(container.and_then(|container| checked(container.name.trim_start_matches('/'))))
}

/// One container of podman's storage.
#[derive(Deserialize)]
struct PodmanContainer {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

fn read_podman(file: &Path, id: ContainerId) -> io::Result<Option<String>> {
    let containers: Vec<PodmanContainer> = read_json(file)?.unwrap_or_default();
    let found = containers.into_iter().find(|container| ContainerId::parse(&container.id) == Some(id));
    Ok(found.and_then(|container| checked(container.names.first()?)))
}

/// Reads a file of JSON, if it exists.
fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(serde_json::from_slice(&text)?))
}

/// A name that docker or podman can have given: both allow these bytes only.
fn checked(name: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    ((1..=255).contains(&name.len()) && name.bytes().all(allowed)).then(|| name.to_owned())
}
