//! What became of the Events of the kills: by the watcher's own count, held against the books of the API server.

use super::{
    account::{Check, Row},
    api::Books,
    phase::{Phase, Schedule},
};
use crate::watcher::{Watcher, sample_of};

/// Kills in pods by what became of their Event, as the watcher says.
#[derive(Clone, Copy, Default)]
struct Outcomes {
    told: u64,
    unnamed: u64,
    refused: u64,
    /// Too many waited, or too long: the limits that an API in trouble runs into.
    given_up: u64,
}

impl Outcomes {
    fn of(page: &str) -> Self {
        let of =
            |outcome: &str| sample_of(page, &format!("oom_watcher_pod_events_total{{outcome=\"{outcome}\"}}")) as u64;
        let sum = |outcomes: &[&str]| outcomes.iter().map(|outcome| of(outcome)).sum();
        Self {
            told: sum(&["created", "raised", "covered"]),
            unnamed: of("unnamed"),
            refused: of("refused"),
            given_up: sum(&["too_late", "overflow", "abandoned"]),
        }
    }

    fn settled(self) -> u64 {
        self.told + self.unnamed + self.refused + self.given_up
    }
}

/// The account of Events.
#[derive(Default)]
pub(super) struct Events {
    /// What had been given up when the API last began to be well for good.
    given_up_before: Option<u64>,
    /// What was given up while it was. What it refused is held against its books, which know the fault that it was refused in; here it
    /// would be counted as of the time before, since the look comes a moment after a fault has begun.
    given_up_while_well: u64,
    end: Outcomes,
    /// What the stage itself says: told, and lost for whatever reason.
    stage: [u64; 2],
    enrichments: u64,
    unreachable: u64,
}

impl Events {
    /// Looks at the watcher where the schedule says that something begins or ends; true when it did.
    pub(super) fn look(&mut self, watcher: &Watcher, schedule: &Schedule) -> bool {
        let given_up = || Outcomes::of(&watcher.get("/metrics")).given_up;
        match (schedule.steady(), self.given_up_before) {
            (true, None) => self.given_up_before = Some(given_up()),
            (false, Some(before)) => {
                self.given_up_while_well += given_up() - before;
                self.given_up_before = None;
            }
            _ => return false,
        }
        true
    }

    /// Takes what the watcher says at the end; whether it is settled for each of `kills`.
    pub(super) fn end(&mut self, watcher: &Watcher, kills: u64) -> bool {
        let page = watcher.get("/metrics");
        self.end = Outcomes::of(&page);
        self.stage = ["oom_watcher_events_total", "oom_watcher_lost_events_total"]
            .map(|family| sample_of(&page, &format!("{family}{{stage=\"sink_event\"}}")) as u64);
        self.enrichments = sample_of(&page, "oom_watcher_enrichments_total{outcome=\"published\"}") as u64;
        let unreachable = |verb| {
            let labels = format!("{{verb=\"{verb}\",outcome=\"unreachable\"}}");
            sample_of(&page, &format!("oom_watcher_kubernetes_requests_total{labels}")) as u64
        };
        self.unreachable = ["get", "list", "create", "patch"].map(unreachable).iter().sum();
        self.end.settled() >= kills
    }

    /// Figures and verdicts; `kills` in pods were reported, `unnamed` of them in pods that nobody knows, and `lines` of enrichments
    /// came.
    pub(super) fn close(&self, books: &Books, kills: u64, unnamed: u64, lines: u64) -> (Vec<Row>, Vec<Check>) {
        let Outcomes { told, unnamed: without_name, refused, given_up } = self.end;
        let (written, told_by_books) = books.told();
        let faults = Phase::FAULTS.into_iter().filter(|phase| *phase != Phase::Closed);
        let not_met: Vec<&str> =
            faults.map(Phase::name).filter(|name| books.requests.get(name).is_none_or(|count| *count == 0)).collect();
        let requests: u64 = books.requests.values().sum();
        let rows = vec![
            ("kills in pods", kills.to_string()),
            ("told by an Event", told.to_string()),
            ("Events that the API has, and the kills that they tell of", format!("{written}, {told_by_books}")),
            ("without an Event: nobody knows the pod", without_name.to_string()),
            ("without an Event: the API refused it", refused.to_string()),
            ("without an Event: given up, too many or too long", given_up.to_string()),
            ("given up while the API was well", self.given_up_while_well.to_string()),
            ("requests to the API, by how it was", format!("{requests}: {}", by_phase(books))),
            ("requests that reached nobody", self.unreachable.to_string()),
            ("enrichments", self.enrichments.to_string()),
        ];
        let checks = vec![
            Check::new("each kill in a pod has an Event or is counted as without", self.end.settled() == kills),
            Check::new("the stage says the same", self.stage == [told, kills - told]),
            Check::new("the API's books have what the watcher says that it told", told_by_books == told),
            Check::new("what it says was refused is what the API refused", refused == books.refused && refused > 0),
            Check::new("only pods that nobody knows are without a name", without_name <= unnamed),
            Check::new("no Event was given up while the API was well", self.given_up_while_well == 0),
            Check::new(&format!("the API was asked in each of its faults, not {not_met:?}"), not_met.is_empty()),
            Check::new("it was not reached while it was closed", self.unreachable > 0),
            Check::new("each enrichment is a line, and there are some", self.enrichments == lines && lines > 0),
        ];
        (rows, checks)
    }
}

fn by_phase(books: &Books) -> String {
    books.requests.iter().map(|(phase, count)| format!("{phase} {count}")).collect::<Vec<_>>().join(", ")
}
