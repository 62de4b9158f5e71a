//! The container runtime as a source of names: one question of its CRI, for what the node's files did not give.
//!
//! Off unless a socket is configured, because of what that costs: whoever can write to the runtime's socket can start a
//! privileged container, so it is root on the node, and a read-only mount does not change that. All that is ever asked is
//! `ListContainers` for one id. The runtime keeps a container from before its start until the kubelet removes it, so it also
//! knows those that have no link yet, or whose start failed.

use std::{
    collections::HashMap,
    error::Error,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::{sync::Mutex, time::timeout};
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{ContainerName, link};
use crate::cgroup::ContainerId;

/// How long an answer may take, with the wait for those who asked before. A runtime takes 1 to 50 ms, and seconds on a
/// machine that is out of memory.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read at most: one container with its annotations, of which Kubernetes allows 256 KiB.
const ANSWER_MAX: usize = 1 << 20;
const METHOD: &str = "/runtime.v1.RuntimeService/ListContainers";
/// Labels that every kubelet gives a container.
const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD: &str = "io.kubernetes.pod.name";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER: &str = "io.kubernetes.container.name";

/// Why the runtime gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// Nobody listens there, or the agent may not write to it.
    #[error("cannot connect to the container runtime at {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// It did not answer the question.
    #[error("the container runtime at {} does not list its containers", socket.display())]
    Call {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It took longer than [`DEADLINE`].
    #[error("the container runtime at {} did not answer within {} s", socket.display(), DEADLINE.as_secs())]
    Slow {
        /// The socket.
        socket: PathBuf,
    },
}

/// A container, as the runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its names.
    pub name: ContainerName,
    /// UID of its pod.
    pub pod_uid: String,
    /// Restarts of the container before this one.
    pub restart_count: u32,
}

/// Questions so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CriStats {
    /// Questions that were answered, whatever the answer.
    pub answered: u64,
    /// Questions without an answer.
    pub failed: u64,
}

/// The runtime behind a socket. There is one question at a time; each has its own connection, so that none is held open.
#[derive(Debug)]
pub struct Cri {
    socket: PathBuf,
    turn: Mutex<()>,
    answered: AtomicU64,
    failed: AtomicU64,
    /// The last question had no answer: said once, until one has.
    silent: AtomicBool,
}

impl Cri {
    /// A runtime that is asked at this socket; nothing is opened yet.
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            turn: Mutex::default(),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            silent: AtomicBool::new(false),
        }
    }

    /// Asks for the container with this id. `None`: the runtime has none, or not one of the kubelet's.
    ///
    /// # Errors
    /// When there is no answer within [`DEADLINE`].
    pub async fn container(&self, id: &ContainerId) -> Result<Option<Found>, CriError> {
        let answer = timeout(DEADLINE, async {
            let _turn = self.turn.lock().await;
            self.list(id).await
        });
        let answer = answer.await.unwrap_or_else(|_| Err(CriError::Slow { socket: self.socket.clone() }));
        self.note(answer.as_ref().err());
        Ok(answer?.containers.into_iter().find_map(|container| found(container, id)))
    }

    /// Questions so far.
    pub fn stats(&self) -> CriStats {
        CriStats { answered: self.answered.load(Ordering::Relaxed), failed: self.failed.load(Ordering::Relaxed) }
    }

    /// Counts an answer or failure, and logs the first failure and the first answer after it.
    fn note(&self, error: Option<&CriError>) {
        let counter = if error.is_none() { &self.answered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        let was_silent = self.silent.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_silent => {
                tracing::warn!(error = error as &dyn Error, "The container runtime gives no names");
            }
            None if was_silent => tracing::info!("The container runtime gives names again"),
            _ => {}
        }
    }

    async fn list(&self, id: &ContainerId) -> Result<ListContainersResponse, CriError> {
        let socket = || self.socket.clone();
        let mut grpc =
            Grpc::new(self.connect().await.map_err(|source| CriError::Connect { socket: socket(), source })?)
                .max_decoding_message_size(ANSWER_MAX);
        grpc.ready().await.map_err(|source| CriError::Call { socket: socket(), source: source.into() })?;
        let question = ListContainersRequest { filter: Some(ContainerFilter { id: id.to_string() }) };
        let answer: Result<_, Status> =
            grpc.unary(Request::new(question), PathAndQuery::from_static(METHOD), ProstCodec::default()).await;
        Ok(answer.map_err(|status| CriError::Call { socket: socket(), source: status.into() })?.into_inner())
    }

    async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        Endpoint::from_shared(format!("unix://{}", self.socket.display()))?.connect().await
    }
}

/// What an answer says of this container. The labels are the kubelet's word, but anybody with the socket could have made
/// the container: they are held against the grammar of names. The filter matches by prefix in some runtimes.
fn found(mut container: Container, id: &ContainerId) -> Option<Found> {
    if ContainerId::parse(&container.id) != Some(*id) {
        return None;
    }
    let mut label = |key| container.labels.remove(key);
    let name = link::container_name(&label(NAMESPACE)?, &label(POD)?, &label(CONTAINER)?)?;
    let pod_uid = label(POD_UID)?;
    Some(Found { name, pod_uid, restart_count: container.metadata.map_or(0, |metadata| metadata.attempt) })
}

/// `runtime.v1.ListContainersRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    filter: Option<ContainerFilter>,
}

/// `runtime.v1.ContainerFilter`
#[derive(Clone, PartialEq, prost::Message)]
struct ContainerFilter {
    #[prost(string, tag = "1")]
    id: String,
}

/// `runtime.v1.ListContainersResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Container>,
}

/// `runtime.v1.Container`, without what is not asked for.
#[derive(Clone, PartialEq, prost::Message)]
struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<ContainerMetadata>,
    #[prost(map = "string, string", tag = "8")]
    labels: HashMap<String, String>,
}

/// `runtime.v1.ContainerMetadata`, without the name: the label has it.
#[derive(Clone, PartialEq, prost::Message)]
struct ContainerMetadata {
    #[prost(uint32, tag = "2")]
    attempt: u32,
}

#[cfg(test)]
mod tests;
