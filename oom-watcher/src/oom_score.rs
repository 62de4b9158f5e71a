//! The watcher's own place in the OOM killer's choice: as late as it may be.
//!
//! Its memory is not locked. It holds a few megabytes, a victim of its size frees nothing worth the kill, and `mlockall` would
//! make an allocation fail at RLIMIT_MEMLOCK (8 MiB in most containers) where memory could still be had. What of its program
//! is paged out comes back late, not never: meanwhile the kernel program records into the ring buffer, which is never paged.

use std::{io, path::Path};

/// What the kubelet gives to critical pods and to its own helpers: behind every workload, before the kubelet and the runtime.
pub const WANTED: i16 = -997;

/// Why the value is not known, or not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum OomScoreError {
    /// The file in /proc.
    #[error("cannot read oom_score_adj")]
    Read(#[source] io::Error),
    /// What stands in it.
    #[error("oom_score_adj is {0:?}, not a number")]
    NotANumber(String),
    /// Below what the process was started with, `CAP_SYS_RESOURCE` is needed.
    #[error("cannot lower oom_score_adj from {current} to {WANTED}")]
    Lower {
        /// What stays.
        current: i16,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// This process's value.
pub fn current(proc: &Path) -> Result<i16, OomScoreError> {
    let text = std::fs::read_to_string(proc.join("self/oom_score_adj")).map_err(OomScoreError::Read)?;
    text.trim().parse().map_err(|_| OomScoreError::NotANumber(text))
}

/// Lowers it as far as wanted, where it is higher; what it is then.
pub fn lower(proc: &Path) -> Result<i16, OomScoreError> {
    let current = current(proc)?;
    if current <= WANTED {
        return Ok(current);
    }
    let lowered = std::fs::write(proc.join("self/oom_score_adj"), WANTED.to_string());
    lowered.map_err(|source| OomScoreError::Lower { current, source })?;
    Ok(WANTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn proc_with(text: &str) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir(proc.path().join("self")).unwrap();
        std::fs::write(proc.path().join("self/oom_score_adj"), text).unwrap();
        proc
    }

    #[test]
    fn it_is_lowered_and_never_raised() {
        for (before, after) in [("0\n", -997), ("1000\n", -997), ("-997\n", -997), ("-1000\n", -1000)] {
            let proc = proc_with(before);
            assert_eq!(lower(proc.path()).unwrap(), after, "{before}");
            assert_eq!(current(proc.path()).unwrap(), after, "{before}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        assert!(matches!(lower(Path::new("/nonexistent")), Err(OomScoreError::Read(_))));
        let error = lower(proc_with("many").path()).unwrap_err().to_string();
        assert_eq!(error, r#"oom_score_adj is "many", not a number"#);
    }
}
