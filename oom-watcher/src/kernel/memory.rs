//! Gives back to the machine what only starting needed. It knows nothing of what that was.

use std::fs;

use rustix::mm::{Advice, madvise};
use tracing::debug;

/// Empty pages of the heap, and the pages of code and constants, most of which will not be used again. These stay in the
/// kernel's page cache; what is used again is mapped again, without a read from disk.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointer and may be made at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0)
    };
    // What cannot be read is not given back, and nothing else is lost.
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for (start, length) in unchanged(&smaps) {
        let address = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the mapping is one of a file, private, not writable, and no page of it differs from the file: whoever reads
        // them next gets the same bytes.
        let given = unsafe { madvise(address, length, Advice::LinuxDontNeed) };
        if let Err(error) = given {
            debug!(error = &error as &dyn std::error::Error, "Pages of code are not given back");
        }
    }
}

/// Address and length of the mappings in `/proc/self/smaps` that hold nothing but what their file holds: private, not
/// writable, and without a page of their own (relocated data is such pages behind a mapping that is not writable any more).
fn unchanged(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in smaps.lines() {
        if let Some(amount) = line.strip_prefix("Anonymous:") {
            found.extend(mapping.take().filter(|_| amount.trim() == "0 kB"));
        } else if line.split(' ').next().is_some_and(|first| first.contains('-')) {
            mapping = of_file(line);
        }
    }
    found
}

/// A mapping's head: `start-end permissions offset device inode path`.
fn of_file(head: &str) -> Option<(usize, usize)> {
    let mut fields = head.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let path = fields.nth(3)?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (matches!(permissions, "r-xp" | "r--p") && path.starts_with('/')).then_some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: &str, anonymous: &str, expected: &[(usize, usize)]) {
        let smaps = format!("{head}\nSize: 248 kB\nRss: 100 kB\nAnonymous: {anonymous}\nVmFlags: rd ex mr mw me\n");
        assert_eq!(unchanged(&smaps), expected, "{head}");
    }

    #[test]
    fn code_and_constants_of_files_are_given_back() {
        check("1000-3000 r-xp 00215000 fe:00 10010695                   /oom-watcher", "0 kB", &[(0x1000, 0x2000)]);
        check("1000-3000 r--p 00000000 fe:00 10010695                   /oom-watcher", "0 kB", &[(0x1000, 0x2000)]);
    }

    #[test]
    fn what_no_file_holds_is_kept() {
        check("1000-3000 r--p 005f2000 fe:00 10010695                   /oom-watcher", "8 kB", &[]);
        check("1000-3000 rw-p 00215000 fe:00 10010695                   /oom-watcher", "0 kB", &[]);
        check("1000-3000 rwxp 00215000 fe:00 10010695                   /oom-watcher", "0 kB", &[]);
        check("1000-3000 r--s 00001000 00:10 1038                       anon_inode:bpf-map", "0 kB", &[]);
        check("1000-3000 r-xp 00000000 00:00 0                          [vdso]", "0 kB", &[]);
        check("1000-3000 r--p 00000000 00:00 0", "0 kB", &[]);
        assert_eq!(unchanged("nonsense\nAnonymous: 0 kB\n"), []);
    }

    #[test]
    fn a_page_of_its_own_in_one_mapping_says_nothing_of_the_next() {
        let smaps = "1000-2000 r--p 0 fe:00 1 /a\nAnonymous: 4 kB\n2000-3000 r-xp 0 fe:00 1 /a\nAnonymous: 0 kB\n";
        assert_eq!(unchanged(smaps), [(0x2000, 0x1000)]);
    }

    #[test]
    fn what_was_given_back_is_there() {
        static CONSTANT: &str = "unchanged";
        give_back();
        assert_eq!(CONSTANT, ["un", "changed"].concat());
    }
}
