//! The kernel's own type information (BTF): validated once, then asked by name.
//!
//! It owns the format and nothing else: which types matter, and what their absence costs, is the plan's business. The input is
//! kept as it came, beside one offset and one hash link per type, so that the five megabytes of a kernel do not become a tree.
//! Every bound is checked: truncated or damaged input gives an error and never a panic.

#[cfg(test)]
pub(crate) mod builder;
mod query;
#[cfg(test)]
mod tests;

pub use query::{ArgKind, MemberPlace, Shape};

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
const HEADER_LEN: usize = 24;
/// Words of the head of every type: name, info, size or type.
const TYPE_HEAD_LEN: usize = 12;
/// The kernel's own limit (`BTF_MAX_TYPE`).
const TYPES_MAX: usize = 0x000f_ffff;
/// Hash buckets for about 130 000 types: a chain is two types long.
const BUCKETS: usize = 1 << 16;

/// Why BTF could not be read, or does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// Shorter than a header, or the header says it is.
    #[error("BTF of {size} bytes has no whole header")]
    Header {
        /// Bytes of the input.
        size: usize,
    },
    /// Written on a big-endian machine.
    #[error("BTF is big-endian; only little-endian kernels are supported")]
    BigEndian,
    /// Not BTF at all.
    #[error("BTF starts with {magic:#06x}, not with {MAGIC:#06x}")]
    Magic {
        /// The first two bytes.
        magic: u16,
    },
    /// A format that did not exist when this was written.
    #[error("BTF has format version {version}, only {VERSION} is known")]
    Version {
        /// The version it gives.
        version: u8,
    },
    /// A section that leaves the input, or strings without a final NUL.
    #[error("BTF's section of {section} is damaged or truncated")]
    Section {
        /// `types` or `strings`.
        section: &'static str,
    },
    /// More types than the kernel itself allows.
    #[error("BTF has more than {TYPES_MAX} types")]
    TooManyTypes,
    /// A kind whose length is not known, so that nothing after it can be found.
    #[error("BTF type {type_id} is of kind {kind}, which is not known")]
    UnknownKind {
        /// The kind's number.
        kind: u8,
        /// The type that has it.
        type_id: u32,
    },
    /// A type that leaves its section.
    #[error("BTF type {type_id} is truncated")]
    Truncated {
        /// The type.
        type_id: u32,
    },
    /// A name that leaves the strings.
    #[error("the name of BTF type {type_id}, or of a part of it, is outside of the strings")]
    Name {
        /// The type.
        type_id: u32,
    },
    /// A reference to a type that is not there.
    #[error("BTF refers to type {type_id}, which it does not have")]
    Dangling {
        /// The missing type.
        type_id: u32,
    },
    /// References nested deeper than any kernel has, most likely a loop.
    #[error("BTF type {type_id} refers to others without end")]
    TooDeep {
        /// Where it started.
        type_id: u32,
    },
    /// No type of this name and kind.
    #[error("BTF has no {kind} {name}")]
    NoType {
        /// What was looked for: `struct`, `enum`, `function`, `typedef`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The structure lacks the member.
    #[error("struct {structure} has no member {member}")]
    NoMember {
        /// The structure, or the path to it.
        structure: String,
        /// The member that it lacks.
        member: String,
    },
    /// Several structures of this name have it in different places.
    #[error("{path} is in several structures of that name, at different offsets")]
    Ambiguous {
        /// What was looked for.
        path: String,
    },
    /// A bit field that does not cover whole bytes.
    #[error("{path} is a bit field that does not cover whole bytes")]
    BitField {
        /// The member.
        path: String,
    },
    /// The type has another form than the question supposes, as an array asked of a number.
    #[error("BTF type {type_id} is no {expected}")]
    NotA {
        /// The type.
        type_id: u32,
        /// What was supposed.
        expected: &'static str,
    },
    /// The enumeration lacks the enumerator.
    #[error("BTF has no enumerator {name} in enum {enumeration}")]
    NoEnumerator {
        /// The enumeration; empty for one without name.
        enumeration: String,
        /// The enumerator.
        name: String,
    },
}

/// A type's number in its BTF; 0 is `void`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeId(pub(crate) u32);

/// Kinds, by their numbers in the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Int = 1,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    DataSec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    fn new(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Int,
            2 => Self::Ptr,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Fwd,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::DataSec,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// Bytes after the head of a type with `vlen` parts.
    fn tail_len(self, vlen: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::DataSec | Self::Enum64 => 12 * vlen,
            Self::Enum | Self::FuncProto => 8 * vlen,
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag => 0,
        }
    }
}

/// One type's head.
#[derive(Clone, Copy, Debug)]
struct Type {
    id: u32,
    /// Offset of the head in the input.
    at: usize,
    name: u32,
    kind: Kind,
    vlen: usize,
    kflag: bool,
    /// Size in bytes, or the type that it refers to, by kind.
    size_or_ref: u32,
}

/// Validated BTF.
#[derive(Clone)]
pub struct Btf {
    data: Vec<u8>,
    /// Offset of each type's head in `data`; that of type 0 (`void`) has no meaning.
    heads: Vec<u32>,
    /// The first type of each hash bucket of names, 0 for none.
    buckets: Vec<u32>,
    /// The next type of the same bucket, by type.
    next: Vec<u32>,
    /// Where the strings are in `data`.
    strings: std::ops::Range<usize>,
}

impl std::fmt::Debug for Btf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Btf").field("bytes", &self.data.len()).field("types", &self.heads.len()).finish_non_exhaustive()
    }
}

impl Btf {
    /// Validates `data` and indexes its types.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let (types, strings) = sections(&data)?;
        let mut btf = Self { data, heads: vec![0], buckets: vec![0; BUCKETS], next: vec![0], strings };
        let mut at = types.start;
        while at < types.end {
            at = btf.add_type(at, types.end)?;
        }
        Ok(btf)
    }

    /// How many types there are, `void` among them.
    pub fn type_count(&self) -> usize {
        self.heads.len()
    }

    /// Indexes the type at `at` and says where the next one starts.
    fn add_type(&mut self, at: usize, end: usize) -> Result<usize, BtfError> {
        if self.heads.len() > TYPES_MAX {
            return Err(BtfError::TooManyTypes);
        }
        let type_id = self.heads.len() as u32;
        if end - at < TYPE_HEAD_LEN {
            return Err(BtfError::Truncated { type_id });
        }
        self.heads.push(at as u32);
        let ty = self.get(type_id)?;
        let len = TYPE_HEAD_LEN + ty.kind.tail_len(ty.vlen);
        if end - at < len {
            return Err(BtfError::Truncated { type_id });
        }
        let name = self.string(ty.name).ok_or(BtfError::Name { type_id })?;
        let bucket = if name.is_empty() { None } else { Some(bucket_of(name)) };
        // Chains keep the newest type first: the order does not matter, `named` returns all of them.
        let link = bucket.map_or(0, |bucket| std::mem::replace(&mut self.buckets[bucket], type_id));
        self.next.push(link);
        Ok(at + len)
    }

    /// The head of type `id`.
    fn get(&self, id: u32) -> Result<Type, BtfError> {
        let at = match self.heads.get(id as usize) {
            Some(&at) if id != 0 => at as usize,
            _ => return Err(BtfError::Dangling { type_id: id }),
        };
        let info = self.word(id, at + 4)?;
        let number = (info >> 24 & 0x1f) as u8;
        let kind = Kind::new(number).ok_or(BtfError::UnknownKind { kind: number, type_id: id })?;
        Ok(Type {
            id,
            at,
            name: self.word(id, at)?,
            kind,
            vlen: (info & 0xffff) as usize,
            kflag: info >> 31 == 1,
            size_or_ref: self.word(id, at + 8)?,
        })
    }

    /// The little-endian word at `at`, which belongs to type `id`.
    fn word(&self, id: u32, at: usize) -> Result<u32, BtfError> {
        let bytes = self.data.get(at..).and_then(<[u8]>::first_chunk::<4>);
        bytes.map(|bytes| u32::from_le_bytes(*bytes)).ok_or(BtfError::Truncated { type_id: id })
    }

    /// The bytes of the string at `offset`, without NUL; `None` outside of the strings.
    fn string(&self, offset: u32) -> Option<&[u8]> {
        let rest = self.data.get(self.strings.clone())?.get(offset as usize..)?;
        rest.split(|&byte| byte == 0).next().filter(|_| !rest.is_empty())
    }

    /// All types of this name, of whatever kind.
    fn named(&self, name: &str) -> impl Iterator<Item = Type> {
        let mut id = self.buckets[bucket_of(name.as_bytes())];
        std::iter::from_fn(move || {
            while id != 0 {
                let ty = self.get(id).ok()?;
                id = self.next.get(id as usize).copied().unwrap_or(0);
                if self.string(ty.name) == Some(name.as_bytes()) {
                    return Some(ty);
                }
            }
            None
        })
    }
}

/// Where the types and the strings are, from the header.
fn sections(data: &[u8]) -> Result<(std::ops::Range<usize>, std::ops::Range<usize>), BtfError> {
    let short = BtfError::Header { size: data.len() };
    let header = data.first_chunk::<HEADER_LEN>().ok_or(short.clone())?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let magic = u16::from_le_bytes([header[0], header[1]]);
    if magic == MAGIC.swap_bytes() {
        return Err(BtfError::BigEndian);
    }
    if magic != MAGIC {
        return Err(BtfError::Magic { magic });
    }
    if header[2] != VERSION {
        return Err(BtfError::Version { version: header[2] });
    }
    let header_len = word(4);
    if header_len < HEADER_LEN || header_len > data.len() {
        return Err(short);
    }
    // Type offsets are kept in 32 bits, so the whole has to fit them.
    if u32::try_from(data.len()).is_err() {
        return Err(BtfError::Section { section: "types" });
    }
    let range = |offset: usize, len: usize, section| {
        let start = header_len.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(len)).filter(|&end| end <= data.len());
        start.zip(end).map(|(start, end)| start..end).ok_or(BtfError::Section { section })
    };
    let types = range(word(8), word(12), "types")?;
    let strings = range(word(16), word(20), "strings")?;
    // A string ends with its NUL, so the last byte has to be one; the first string is the empty one.
    let bytes = &data[strings.clone()];
    if bytes.first() != Some(&0) || bytes.last() != Some(&0) {
        return Err(BtfError::Section { section: "strings" });
    }
    Ok((types, strings))
}

/// The hash bucket of a name: FNV-1a, folded.
fn bucket_of(name: &[u8]) -> usize {
    let hash = name.iter().fold(0x811c_9dc5_u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    ((hash >> 16 ^ hash) as usize) % BUCKETS
}
