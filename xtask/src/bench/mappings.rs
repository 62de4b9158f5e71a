//! What resident memory consists of, by `/proc/PID/smaps`. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The kinds of mappings, as the results name them.
pub(super) const KINDS: [&str; 6] = ["text", "constants", "data", "ring", "heap", "other"];

/// Resident KiB of each kind.
pub(super) fn of(smaps: &str, program: &str) -> Value {
    let mut kib: BTreeMap<&str, u64> = KINDS.map(|kind| (kind, 0)).into();
    let mut current = "other";
    for line in smaps.lines() {
        if let Some(amount) = line.strip_prefix("Rss:") {
            let amount = amount.trim().trim_end_matches(" kB").parse().unwrap_or(0);
            *kib.entry(current).or_default() += amount;
        } else if line.split(' ').next().is_some_and(|first| first.contains('-')) {
            current = kind(line, program);
        }
    }
    json!(kib)
}

/// That of a mapping by its head: `start-end permissions offset device inode path`.
fn kind(head: &str, program: &str) -> &'static str {
    let mut fields = head.split_whitespace().skip(1);
    let permissions = fields.next().unwrap_or_default();
    let path = fields.skip(3).collect::<Vec<_>>().join(" ");
    match (path.as_str(), permissions) {
        (path, "r-xp") if path == program => "text",
        (path, "r--p") if path == program => "constants",
        (path, _) if path == program => "data",
        (path, _) if path.starts_with("anon_inode:bpf") => "ring",
        // What has no name is malloc's, too: a large piece, or another thread's heap or stack.
        ("[heap]" | "", _) => "heap",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_told_apart_by_path_and_permissions() {
        let mapping = |head: &str, kib: u64| format!("7f00-7f10 {head}\nSize: 9 kB\nRss: {kib} kB\nPss: 7 kB\n");
        let smaps = [
            mapping("r--p 00000000 fe:00 5 /bin/agent", 1),
            mapping("r-xp 00001000 fe:00 5 /bin/agent", 2),
            mapping("rw-p 00002000 fe:00 5 /bin/agent", 4),
            mapping("rw-s 00000000 00:0e 6 anon_inode:bpf-map", 8),
            mapping("r--s 00001000 00:0e 6 anon_inode:bpf-map", 16),
            mapping("rw-p 00000000 00:00 0 [heap]", 32),
            mapping("rw-p 00000000 00:00 0", 64),
            mapping("rw-p 00000000 00:00 0 [stack]", 128),
        ];
        let expected = json!({ "constants": 1, "text": 2, "data": 4, "ring": 24, "heap": 96, "other": 128 });
        assert_eq!(of(&smaps.concat(), "/bin/agent"), expected);
    }
}
