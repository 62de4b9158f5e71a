//! Every limit of the traffic with the Kubernetes API, in one place.

use std::time::Duration;

/// How much, how often, how long. The default is what the agent runs with; tests wait for less.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Places for kills that are handed over, each of 4 KiB and for the victims of one incident in one container: what comes
    /// during one request, which takes 2 s at most. A loop of 50 kills a second takes 100 places, 100 cgroups in the same
    /// second 100 more, a group kill of 1,000 processes one. There are as many for kills whose pod is yet to be asked for; of
    /// 40 pods the answer comes in time (`lookup_burst`, and one a second for `patience`).
    pub(super) queue: u32,
    /// The whole of one request: connection, answer, body.
    pub(super) request: Duration,
    /// Pods that are asked for at once…
    pub(super) lookup_burst: u32,
    /// …and then one in each of these.
    pub(super) lookup_every: Duration,
    /// A kill that is older than this is not enriched any more.
    pub(super) patience: Duration,
    /// How long the Event of a kill waits for what the API knows of its pod.
    pub(super) pod_patience: Duration,
    /// How long an answer about a pod stands, and the answer that pods may not be listed.
    pub(super) found_for: Duration,
    /// How long the answer stands that there is no such pod.
    pub(super) missing_for: Duration,
    /// Time between two lists of the node's pods.
    pub(super) list_every: Duration,
    /// Time between two changes of one Event.
    pub(super) patch_every: Duration,
    /// An Event that was not raised for this long is closed: the next kill makes a new one.
    pub(super) series_idle: Duration,
    /// A kill that could not be told for this long is given up.
    pub(super) event_patience: Duration,
    /// Writes of Events about one pod at once…
    pub(super) pod_burst: u32,
    /// …and then one in each of these.
    pub(super) pod_every: Duration,
    /// Writes of Events by this agent at once…
    pub(super) agent_burst: u32,
    /// …and then one in each of these.
    pub(super) agent_every: Duration,
    /// Pause after the first failure of the API; it doubles with each further one.
    pub(super) backoff_min: Duration,
    /// The longest pause after a failure.
    pub(super) backoff_max: Duration,
    /// The longest pause that the API may ask for.
    pub(super) retry_after_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            queue: 256,
            request: seconds(2),
            lookup_burst: 10,
            lookup_every: seconds(1),
            patience: seconds(30),
            pod_patience: seconds(1),
            found_for: seconds(600),
            missing_for: seconds(30),
            list_every: seconds(30),
            patch_every: seconds(10),
            series_idle: seconds(360),
            event_patience: seconds(600),
            pod_burst: 25,
            pod_every: seconds(300),
            agent_burst: 50,
            agent_every: seconds(2),
            backoff_min: seconds(1),
            backoff_max: seconds(60),
            retry_after_max: seconds(300),
        }
    }
}
