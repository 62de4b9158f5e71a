//! What a page of /metrics has, counted. Pure.

use serde_json::{Value, json};

/// What the agent counts of its dealings with others: without them, nothing is lost where they are not used.
const OF_OTHERS: [&str; 4] = [
    "oom_watcher_kubernetes_requests_total",
    "oom_watcher_pod_events_total",
    "oom_watcher_enrichments_total",
    "oom_watcher_cri_requests_total",
];
/// Series about containers; the rest is the agent's own.
const OF_CONTAINERS: &str = "container=\"";

/// Bytes and series of a page, as it was answered.
pub(super) fn of(answer: &str) -> Value {
    let page = answer.split_once("\r\n\r\n").map_or(answer, |(_, page)| page);
    let series = || page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (containers, own): (Vec<_>, Vec<_>) = series().partition(|line| line.contains(OF_CONTAINERS));
    let of_others =
        own.iter().filter(|line| line.split(['{', ' ']).next().is_some_and(|name| OF_OTHERS.contains(&name)));
    json!({
        "bytes": page.len(),
        "series": own.len() + containers.len(),
        "own_series": own.len(),
        "own_series_of_others": of_others.count(),
        "series_of_containers": containers.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_told_apart() {
        let page = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n# HELP a b\na{node=\"n\"} 1\n\
            oom_kills_total{node=\"n\",container=\"c\"} 0\noom_watcher_pod_events_total{outcome=\"x\"} 0\n# EOF\n";
        let page = of(page);
        assert_eq!((&page["series"], &page["own_series"]), (&json!(3), &json!(2)));
        assert_eq!((&page["own_series_of_others"], &page["series_of_containers"]), (&json!(1), &json!(1)));
    }
}
