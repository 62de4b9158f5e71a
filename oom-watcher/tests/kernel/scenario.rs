//! What a scenario is.

/// One way to run out of memory, with what the watcher must say of it.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// Its name, for filters and results.
    pub(crate) name: &'static str,
    /// Whether this machine can have it; the reason why not.
    pub(crate) possible: fn() -> Result<(), String>,
    /// Makes the kills and asserts; a panic is a failure.
    pub(crate) run: fn(),
}

/// What became of a scenario.
pub(crate) enum Outcome {
    /// All assertions held.
    Passed,
    /// One did not; its panic has been printed.
    Failed,
    /// This machine cannot have it.
    Impossible(String),
}

/// Any machine can have it.
#[expect(clippy::unnecessary_wraps, reason = "the others say why not")]
pub(crate) fn anywhere() -> Result<(), String> {
    Ok(())
}
