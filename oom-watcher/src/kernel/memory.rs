//! Gives back to the machine what only starting needed. It knows nothing of what that was.

use std::fs;

use rustix::mm::{Advice, madvise};
use tracing::debug;

/// Empty pages of the heap, and the mappings of code that may not run again. The code stays in the kernel's page cache; what
/// is called again is mapped again, without a read from disk.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointer and may be made at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0)
    };
    // What cannot be read is not given back, and nothing else is lost.
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in maps.lines().filter_map(code) {
        let address = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the mapping is one of a file, private and not writable, so its pages hold what the file holds and nothing
        // else: whoever reads them next gets the same bytes.
        let given = unsafe { madvise(address, length, Advice::LinuxDontNeed) };
        if let Err(error) = given {
            debug!(error = &error as &dyn std::error::Error, "Pages of code are not given back");
        }
    }
}

/// Address and length of a mapping that is a file's code, from a line of `/proc/self/maps`: `start-end r-xp offset device inode
/// path`. A writable mapping, or one that is not of a file, has what no file has.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let path = fields.nth(3)?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (permissions == "r-xp" && path.starts_with('/')).then_some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_code_of_files_is_given_back() {
        let text = "55fd7e837000-55fd7ec15000 r-xp 00215000 fe:00 10010695                   /oom-watcher";
        assert_eq!(code(text), Some((0x55fd_7e83_7000, 0x3d_e000)));
        for line in [
            "55fd7ec15000-55fd7ec65000 r--p 005f2000 fe:00 10010695                   /oom-watcher",
            "55fd7e837000-55fd7ec15000 rwxp 00215000 fe:00 10010695                   /oom-watcher",
            "55fd7e837000-55fd7ec15000 r-xs 00215000 fe:00 10010695                   /oom-watcher",
            "7ffd1e9f5000-7ffd1e9f7000 r-xp 00000000 00:00 0                          [vdso]",
            "7fbe7e659000-7fbe7e75a000 r-xp 00000000 00:00 0",
            "nonsense",
            "",
        ] {
            assert_eq!(code(line), None, "{line}");
        }
    }

    #[test]
    fn what_was_given_back_still_runs() {
        give_back();
        assert_eq!(code("1-2 r-xp 0 0 0 /f"), Some((1, 1)));
    }
}
