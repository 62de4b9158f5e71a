//! Addresses from the kernel's symbol table.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::Unread;

/// Bytes of the buffer: the table has some ten megabytes, and the kernel gives at most a page's worth or so per read.
const BUFFER_LEN: usize = 1 << 16;

/// What the symbol table says about one symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// Its address.
    Address(u64),
    /// Addresses are shown as zero (`kptr_restrict`).
    Hidden,
    /// The kernel has no such symbol.
    Absent,
    /// The table could not be read.
    Unread(Unread),
}

/// The symbols that the plan asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbols {
    /// `__per_cpu_offset`: a CPU's distance to the first copy of per-CPU data.
    pub per_cpu_offset: Symbol,
    /// `mem_cgroup_stats_index`: from an enumerator to its place among a memory cgroup's statistics.
    pub stats_index: Symbol,
}

impl Symbols {
    /// Reads a file in the form of `/proc/kallsyms`, up to the last symbol that is asked for.
    pub(super) fn read(path: &Path) -> Self {
        let mut symbols = Self { per_cpu_offset: Symbol::Absent, stats_index: Symbol::Absent };
        let read = File::open(path).and_then(|file| symbols.scan(BufReader::with_capacity(BUFFER_LEN, file)));
        if let Err(error) = read {
            let unread = Unread(format!("cannot read {}: {error}", path.display()));
            for symbol in [&mut symbols.per_cpu_offset, &mut symbols.stats_index] {
                if *symbol == Symbol::Absent {
                    *symbol = Symbol::Unread(unread.clone());
                }
            }
        }
        symbols
    }

    fn scan(&mut self, mut table: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        while table.read_until(b'\n', &mut line)? > 0 {
            self.take(&line);
            if self.per_cpu_offset != Symbol::Absent && self.stats_index != Symbol::Absent {
                break;
            }
            if is_hidden_start(&line) {
                for symbol in [&mut self.per_cpu_offset, &mut self.stats_index] {
                    *symbol = Symbol::Hidden;
                }
                break;
            }
            line.clear();
        }
        Ok(())
    }

    /// A line is address, type letter, name, and for a module's symbol its name behind a tab. The letter of data differs
    /// between kernels, so it says nothing; the first symbol of a name is the kernel's own.
    fn take(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let slot = if line.ends_with(b" __per_cpu_offset") {
            &mut self.per_cpu_offset
        } else if line.ends_with(b" mem_cgroup_stats_index") {
            &mut self.stats_index
        } else {
            return;
        };
        let address = line.split(|&byte| byte == b' ').next().and_then(|address| std::str::from_utf8(address).ok());
        match address.and_then(|address| u64::from_str_radix(address, 16).ok()) {
            Some(0) => *slot = Symbol::Hidden,
            Some(address) => *slot = Symbol::Address(address),
            None => *slot = Symbol::Unread(Unread(format!("cannot understand {:?}", String::from_utf8_lossy(line)))),
        }
    }
}

/// Whether this is the symbol near the head of the table that cannot be at address zero, and is shown there: then all of them
/// are, and the rest of the table, which takes the kernel some 50 ms to write, has nothing for us.
fn is_hidden_start(line: &[u8]) -> bool {
    line.strip_suffix(b"\n").is_some_and(|line| line.ends_with(b" _stext"))
        && line.split(|&byte| byte == b' ').next().is_some_and(|address| address.iter().all(|&digit| digit == b'0'))
}
