//! What a page of /metrics has, counted. Pure.

use serde_json::{Value, json};

/// Series about containers and, one for each pod that had a kill, about pods; the rest is the agent's own.
const OF_CONTAINERS: &str = "container=\"";
const OF_PODS: &str = "oom_pod_info{";

/// Bytes and series of a page, as it was answered.
pub(super) fn of(answer: &str) -> Value {
    let page = answer.split_once("\r\n\r\n").map_or(answer, |(_, page)| page);
    let series = || page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (containers, others): (Vec<_>, Vec<_>) = series().partition(|line| line.contains(OF_CONTAINERS));
    let (pods, own): (Vec<_>, Vec<_>) = others.into_iter().partition(|line| line.starts_with(OF_PODS));
    json!({
        "bytes": page.len(),
        "series": own.len() + containers.len() + pods.len(),
        "own_series": own.len(),
        "series_of_containers": containers.len(),
        "series_of_pods": pods.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_told_apart() {
        let page = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n# HELP a b\na{node=\"n\"} 1\n\
            oom_kills_total{node=\"n\",container=\"c\"} 0\noom_watcher_pod_events_total{outcome=\"x\"} 0\n\
            oom_pod_info{pod=\"p\"} 1\n# EOF\n";
        let page = of(page);
        assert_eq!((&page["series"], &page["own_series"]), (&json!(4), &json!(2)));
        assert_eq!(page["series_of_pods"], json!(1));
        assert_eq!(page["series_of_containers"], json!(1));
    }
}
