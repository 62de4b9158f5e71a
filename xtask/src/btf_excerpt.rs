//! Cuts a small BTF out of a kernel's, for the fixtures of the agent's tests (`oom-watcher/tests/fixtures/btf`).
//!
//! What is kept: the structures in [`STRUCTURES`] with all their members, the enumerations, tracepoints and functions below,
//! and the form of everything that those refer to. A structure behind a pointer becomes a forward declaration, and one inside
//! another keeps its size and loses its members, so that every offset and size of the original holds.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

/// Structures that are kept whole. More than the plan asks for today, so that a new field needs no new fixture.
const STRUCTURES: &[&str] = &[
    "cgroup",
    "cgroup_subsys_state",
    "cred",
    "css_set",
    "kernfs_node",
    "mem_cgroup",
    "memcg_vmstats",
    "mm_rss_stat",
    "mm_struct",
    "new_utsname",
    "nsproxy",
    "oom_control",
    "page_counter",
    "percpu_counter",
    "pid",
    "pt_regs",
    "signal_struct",
    "task_struct",
    "upid",
    "uts_namespace",
];
const ENUMERATIONS: &[&str] = &["cgroup_subsys_id", "memcg_stat_item", "node_stat_item"];
/// An enumerator of an enumeration without name.
const ANONYMOUS_ENUMERATORS: &[&str] = &["MM_FILEPAGES"];
const TRACEPOINTS: &[&str] = &["btf_trace_mark_victim", "btf_trace_signal_generate"];
const FUNCTIONS: &[&str] = &["memory_max_write", "out_of_memory"];

const HEADER_LEN: usize = 24;
const HEAD_LEN: usize = 12;

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FWD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const FLOAT: u32 = 16;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// What to cut, and where to put it.
#[derive(Args)]
pub(crate) struct Options {
    /// The BTF of a kernel, such as /sys/kernel/btf/vmlinux
    from: PathBuf,
    /// The excerpt
    to: PathBuf,
}

/// Reads a kernel's BTF and writes the excerpt.
pub(crate) fn run(Options { from, to }: &Options) -> Result<()> {
    let data = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let source = Source::new(&data).with_context(|| format!("cannot use {}", from.display()))?;
    let excerpt = cut(&source)?;
    std::fs::write(to, &excerpt).with_context(|| format!("cannot write {}", to.display()))?;
    println!("{}: {} of {} bytes", to.display(), excerpt.len(), data.len());
    Ok(())
}

fn cut(source: &Source<'_>) -> Result<Vec<u8>> {
    let mut excerpt = Excerpt::default();
    for id in 1..source.heads.len() as u32 {
        let ty = source.get(id)?;
        let name = source.string(ty.name)?;
        let wanted = match ty.kind() {
            STRUCT | UNION => STRUCTURES.contains(&name),
            TYPEDEF => TRACEPOINTS.contains(&name),
            FUNC => FUNCTIONS.contains(&name),
            ENUM if name.is_empty() && ty.vlen() > 0 => {
                ANONYMOUS_ENUMERATORS.contains(&source.string(source.part(ty, 0)?)?)
            }
            ENUM | ENUM64 => ENUMERATIONS.contains(&name),
            _ => false,
        };
        if wanted {
            excerpt.copy(source, id)?;
        }
    }
    Ok(excerpt.finish())
}

/// The head of a type.
#[derive(Clone, Copy)]
struct Head {
    at: usize,
    name: u32,
    info: u32,
    size_or_type: u32,
}

impl Head {
    fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn vlen(self) -> u32 {
        self.info & 0xffff
    }

    /// Bytes after the head.
    fn tail_len(self) -> Result<usize> {
        let vlen = self.vlen() as usize;
        Ok(match self.kind() {
            INT | VAR | DECL_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | DATASEC | ENUM64 => 12 * vlen,
            ENUM | FUNC_PROTO => 8 * vlen,
            PTR | FWD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => 0,
            kind => bail!("unknown kind {kind}"),
        })
    }
}

/// The kernel's BTF.
struct Source<'a> {
    data: &'a [u8],
    heads: Vec<usize>,
    strings: &'a [u8],
}

impl<'a> Source<'a> {
    fn new(data: &'a [u8]) -> Result<Self> {
        ensure!(data.starts_with(&[0x9f, 0xeb, 1]), "not a little-endian BTF of version 1");
        let mut source = Self { data, heads: vec![0], strings: &[] };
        let header = source.word(4)? as usize;
        let [types, types_len, strings, strings_len] =
            [8, 12, 16, 20].map(|at| source.word(at).map(|word| word as usize));
        let end = header + types_len?;
        let mut at = header + types?;
        let strings = header + strings?;
        source.strings = data.get(strings..strings + strings_len?).context("the strings are truncated")?;
        while at < end {
            source.heads.push(at);
            let id = source.heads.len() as u32 - 1;
            at += HEAD_LEN + source.get(id)?.tail_len()?;
        }
        Ok(source)
    }

    fn word(&self, at: usize) -> Result<u32> {
        let bytes = self.data.get(at..).and_then(<[u8]>::first_chunk::<4>);
        Ok(u32::from_le_bytes(*bytes.with_context(|| format!("truncated at {at}"))?))
    }

    fn get(&self, id: u32) -> Result<Head> {
        let at = *self.heads.get(id as usize).with_context(|| format!("no type {id}"))?;
        Ok(Head { at, name: self.word(at)?, info: self.word(at + 4)?, size_or_type: self.word(at + 8)? })
    }

    /// Word `index` after the head.
    fn part(&self, ty: Head, index: usize) -> Result<u32> {
        self.word(ty.at + HEAD_LEN + 4 * index)
    }

    fn string(&self, offset: u32) -> Result<&'a str> {
        let rest = self.strings.get(offset as usize..).context("a name is outside of the strings")?;
        Ok(std::str::from_utf8(rest.split(|&byte| byte == 0).next().unwrap_or_default())?)
    }
}

/// The BTF that is being written. A type follows all that it refers to, which is possible because pointers end at forward
/// declarations.
#[derive(Default)]
struct Excerpt {
    types: Vec<u8>,
    count: u32,
    strings: Vec<u8>,
    offsets: HashMap<String, u32>,
    /// From a type of the source to its copy.
    copies: HashMap<u32, u32>,
    /// From a type of the source to its forward declaration.
    forwards: HashMap<u32, u32>,
}

impl Excerpt {
    /// Copies type `id` and what it refers to, and gives the copy's number.
    fn copy(&mut self, source: &Source<'_>, id: u32) -> Result<u32> {
        if id == 0 {
            return Ok(0);
        }
        if let Some(&copy) = self.copies.get(&id) {
            return Ok(copy);
        }
        let ty = source.get(id)?;
        let name = source.string(ty.name)?;
        let copy = match ty.kind() {
            STRUCT | UNION if name.is_empty() || STRUCTURES.contains(&name) => self.composite(source, ty)?,
            // Size only.
            STRUCT | UNION => self.emit(name, ty.kind() << 24, ty.size_or_type, &[]),
            ENUM | ENUM64 => self.enumeration(source, ty)?,
            PTR => {
                let to = self.pointee(source, ty.size_or_type)?;
                self.emit(name, ty.info, to, &[])
            }
            TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG | FUNC => {
                let to = self.copy(source, ty.size_or_type)?;
                self.emit(name, ty.info, to, &[])
            }
            ARRAY => {
                let element = self.copy(source, source.part(ty, 0)?)?;
                let index = self.copy(source, source.part(ty, 1)?)?;
                self.emit(name, ty.info, 0, &[element, index, source.part(ty, 2)?])
            }
            FUNC_PROTO => self.prototype(source, ty)?,
            INT => self.emit(name, ty.info, ty.size_or_type, &[source.part(ty, 0)?]),
            FWD | FLOAT => self.emit(name, ty.info, ty.size_or_type, &[]),
            kind => bail!("type {id} is of kind {kind}, which nothing should refer to"),
        };
        self.copies.insert(id, copy);
        Ok(copy)
    }

    /// What a pointer points to: a structure becomes a forward declaration, which also ends every circle.
    fn pointee(&mut self, source: &Source<'_>, id: u32) -> Result<u32> {
        if id == 0 {
            return Ok(0);
        }
        let ty = source.get(id)?;
        let name = source.string(ty.name)?;
        match ty.kind() {
            STRUCT | UNION if !name.is_empty() => {
                if let Some(&forward) = self.forwards.get(&id) {
                    return Ok(forward);
                }
                let union_flag = u32::from(ty.kind() == UNION) << 31;
                let forward = self.emit(name, FWD << 24 | union_flag, 0, &[]);
                self.forwards.insert(id, forward);
                Ok(forward)
            }
            TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => {
                let to = self.pointee(source, ty.size_or_type)?;
                Ok(self.emit(name, ty.info, to, &[]))
            }
            _ => self.copy(source, id),
        }
    }

    fn composite(&mut self, source: &Source<'_>, ty: Head) -> Result<u32> {
        let mut parts = Vec::new();
        for member in 0..ty.vlen() as usize {
            let name = self.string(source.string(source.part(ty, 3 * member)?)?);
            let member_type = self.copy(source, source.part(ty, 3 * member + 1)?)?;
            parts.extend([name, member_type, source.part(ty, 3 * member + 2)?]);
        }
        Ok(self.emit(source.string(ty.name)?, ty.info, ty.size_or_type, &parts))
    }

    /// An enumeration; one that is only referred to keeps its size.
    fn enumeration(&mut self, source: &Source<'_>, ty: Head) -> Result<u32> {
        let name = source.string(ty.name)?;
        if !name.is_empty() && !ENUMERATIONS.contains(&name) {
            return Ok(self.emit(name, ty.kind() << 24, ty.size_or_type, &[]));
        }
        let words = if ty.kind() == ENUM64 { 3 } else { 2 };
        let mut parts = Vec::new();
        for value in 0..ty.vlen() as usize {
            parts.push(self.string(source.string(source.part(ty, words * value)?)?));
            for word in 1..words {
                parts.push(source.part(ty, words * value + word)?);
            }
        }
        Ok(self.emit(name, ty.info, ty.size_or_type, &parts))
    }

    fn prototype(&mut self, source: &Source<'_>, ty: Head) -> Result<u32> {
        let result = self.copy(source, ty.size_or_type)?;
        let mut parts = Vec::new();
        for argument in 0..ty.vlen() as usize {
            parts.push(self.string(source.string(source.part(ty, 2 * argument)?)?));
            parts.push(self.copy(source, source.part(ty, 2 * argument + 1)?)?);
        }
        Ok(self.emit("", ty.info, result, &parts))
    }

    fn emit(&mut self, name: &str, info: u32, size_or_type: u32, parts: &[u32]) -> u32 {
        let name = self.string(name);
        for word in [name, info, size_or_type].iter().chain(parts) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    fn string(&mut self, string: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if string.is_empty() {
            return 0;
        }
        if let Some(&offset) = self.offsets.get(string) {
            return offset;
        }
        let offset = self.strings.len() as u32;
        self.strings.extend(string.as_bytes());
        self.strings.push(0);
        self.offsets.insert(string.to_owned(), offset);
        offset
    }

    fn finish(self) -> Vec<u8> {
        let mut data = vec![0x9f, 0xeb, 1, 0];
        let types_len = self.types.len() as u32;
        for word in [HEADER_LEN as u32, 0, types_len, types_len, self.strings.len() as u32] {
            data.extend(word.to_le_bytes());
        }
        data.extend(self.types);
        data.extend(self.strings);
        data
    }
}
