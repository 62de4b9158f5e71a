//! Names in the node's other files: the kubelet's pod log directories, and what docker and podman write of their containers.
//!
//! All of them are optional mounts. Each answer is read on a thread for blocking work, since a machine that is out of memory
//! may take seconds for a file, and each read has a limit. Only names are taken: docker's file also holds the container's
//! environment, which is skipped over and never kept.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cgroup::ContainerId;
use crate::names::link;

/// Entries of one directory that are read at most.
const ENTRIES_MAX: usize = 16_384;
/// Bytes of one file that are read at most: podman's lists every container of the machine.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What the log directory of a pod says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PodLogs {
    pub(super) namespace: String,
    pub(super) pod: String,
    /// The container, where the pod has started only one by name.
    pub(super) only_container: Option<OnlyContainer>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct OnlyContainer {
    pub(super) name: String,
    pub(super) restart_count: Option<u32>,
}

/// Looks for the log directory of the pod with this UID.
pub(super) async fn pod(dir: PathBuf, uid: String) -> Option<PodLogs> {
    beside("pod log directories", move || read_pod(&dir, &uid)).await
}

/// Looks for the name of a container that no pod owns.
pub(super) async fn container_name(
    docker: Option<PathBuf>,
    podman: Option<PathBuf>,
    id: ContainerId,
) -> Option<String> {
    beside("runtime's files", move || {
        let docker = docker.map(|dir| read_docker(&dir, id)).transpose()?.flatten();
        let podman = || podman.map(|file| read_podman(&file, id)).transpose();
        docker.map_or_else(|| Ok(podman()?.flatten()), |name| Ok(Some(name)))
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
        let only_container = read_only_container(&dir.join(file_name)).ok().flatten();
        return Ok(Some(PodLogs { namespace: found.namespace, pod: found.pod, only_container }));
    }
    Ok(None)
}

/// The container of a pod's directory, if there is exactly one.
fn read_only_container(dir: &Path) -> io::Result<Option<OnlyContainer>> {
    let mut containers = fs::read_dir(dir)?.take(ENTRIES_MAX);
    let (Some(first), None) = (containers.next().transpose()?, containers.next()) else { return Ok(None) };
    let Ok(name) = first.file_name().into_string() else { return Ok(None) };
    if !link::is_container_name(&name) {
        return Ok(None);
    }
    let logs = fs::read_dir(first.path())?.take(ENTRIES_MAX).filter_map(Result::ok);
    let restart_count = logs.filter_map(|log| link::restart(log.file_name().to_str()?)).max();
    Ok(Some(OnlyContainer { name, restart_count }))
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
