//! Questions to validated BTF: where a member is, what an enumerator is, what a function takes.

use super::{Btf, BtfError, Kind, Type, TypeId};

/// Typedefs, qualifiers and anonymous structures in one another; kernels nest fewer than ten.
const DEPTH_MAX: u32 = 32;
/// Members looked at in one question: damaged BTF could nest them without end, `task_struct` has some hundreds.
const MEMBERS_MAX: u32 = 1 << 16;
/// Kernels of the supported architectures are 64-bit.
const POINTER_SIZE: u32 = 8;
/// What a type is not whose size or offset leaves 32 bits.
const POSSIBLE: &str = "type of a possible size";

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberPlace {
    /// Bytes from the start of the structure that the path begins with.
    pub offset: u32,
    /// The member's type as declared.
    pub ty: TypeId,
    /// Its size in bytes; 0 for a flexible array.
    pub size: u32,
}

/// The form of a type behind its typedefs and qualifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape<'a> {
    /// An integer, `bool` and `char` among them.
    Int {
        /// Bytes.
        size: u32,
    },
    /// A pointer to anything.
    Pointer,
    /// An array.
    Array {
        /// Type of one element.
        element: TypeId,
        /// Number of elements; 0 for a flexible array.
        length: u32,
    },
    /// A structure or union.
    Composite {
        /// Its tag, empty when it has none.
        name: &'a str,
        /// Bytes.
        size: u32,
    },
    /// An enumeration.
    Enum {
        /// Bytes.
        size: u32,
    },
    /// Anything else: a function, a forward declaration, `void`, a float.
    Other,
}

/// One argument of a function or tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// A pointer, with the tag of the structure that it points to; empty when it points to something else.
    Pointer(String),
    /// An integer or enumeration.
    Int {
        /// Bytes.
        size: u32,
    },
    /// Anything else, a structure by value for example.
    Other,
}

impl Btf {
    /// Where the member of a dotted path is: `mem_cgroup.memory.usage` starts at `struct mem_cgroup`. Members of anonymous
    /// structures and unions are found as in C.
    ///
    /// Where BTF has several structures of that name, all that have the member have to agree.
    pub fn member(&self, path: &str) -> Result<MemberPlace, BtfError> {
        let (name, rest) = path.split_once('.').unwrap_or((path, ""));
        let mut found: Option<MemberPlace> = None;
        let mut failed = BtfError::NoType { kind: "struct", name: name.to_owned() };
        for ty in self.named(name).filter(|ty| matches!(ty.kind, Kind::Struct | Kind::Union)) {
            match (self.member_in(ty, name, rest), found) {
                (Ok(place), Some(other)) if (place.offset, place.size) != (other.offset, other.size) => {
                    return Err(BtfError::Ambiguous { path: path.to_owned() });
                }
                (Ok(place), _) => found = Some(place),
                (Err(error), _) => failed = error,
            }
        }
        found.ok_or(failed)
    }

    /// Size in bytes of a structure or union.
    pub fn size_of_struct(&self, name: &str) -> Result<u32, BtfError> {
        let mut sizes = self.named(name).filter(|ty| matches!(ty.kind, Kind::Struct | Kind::Union));
        let size = sizes.next().ok_or_else(|| BtfError::NoType { kind: "struct", name: name.to_owned() })?.size_or_ref;
        if sizes.any(|other| other.size_or_ref != size) {
            return Err(BtfError::Ambiguous { path: name.to_owned() });
        }
        Ok(size)
    }

    /// Size in bytes of a type.
    pub fn size_of(&self, ty: TypeId) -> Result<u32, BtfError> {
        let mut inner = ty;
        let mut count = 1_u32;
        for _ in 0..DEPTH_MAX {
            let size = match self.shape(inner)? {
                Shape::Array { element, length } => {
                    count = count.checked_mul(length).ok_or(BtfError::NotA { type_id: ty.0, expected: POSSIBLE })?;
                    inner = element;
                    continue;
                }
                Shape::Int { size } | Shape::Composite { size, .. } | Shape::Enum { size } => size,
                Shape::Pointer => POINTER_SIZE,
                Shape::Other => return Err(BtfError::NotA { type_id: ty.0, expected: "type with a size" }),
            };
            return size.checked_mul(count).ok_or(BtfError::NotA { type_id: ty.0, expected: POSSIBLE });
        }
        Err(BtfError::TooDeep { type_id: ty.0 })
    }

    /// Form of a type behind its typedefs and qualifiers.
    pub fn shape(&self, ty: TypeId) -> Result<Shape<'_>, BtfError> {
        let Some(ty) = self.strip(ty)? else { return Ok(Shape::Other) };
        let size = ty.size_or_ref;
        Ok(match ty.kind {
            Kind::Int => Shape::Int { size },
            Kind::Ptr => Shape::Pointer,
            Kind::Array => Shape::Array { element: TypeId(self.part(ty, 0)?), length: self.part(ty, 2)? },
            Kind::Struct | Kind::Union => Shape::Composite { name: self.name(ty)?, size },
            Kind::Enum | Kind::Enum64 => Shape::Enum { size },
            _ => Shape::Other,
        })
    }

    /// Value of an enumerator of the enumeration `enumeration`; `None` looks in all that have no name.
    pub fn enumerator(&self, enumeration: Option<&str>, name: &str) -> Result<i64, BtfError> {
        let missing = || BtfError::NoEnumerator {
            enumeration: enumeration.unwrap_or_default().to_owned(),
            name: name.to_owned(),
        };
        let is_enum = |ty: &Type| matches!(ty.kind, Kind::Enum | Kind::Enum64);
        let Some(enumeration) = enumeration else {
            let all = (1..self.type_count() as u32).filter_map(|id| self.get(id).ok());
            let mut values = all.filter(|ty| is_enum(ty) && ty.name == 0).map(|ty| self.enumerator_in(ty, name));
            return values.find_map(Result::transpose).unwrap_or_else(|| Err(missing()));
        };
        let mut enums = self.named(enumeration).filter(is_enum).peekable();
        if enums.peek().is_none() {
            return Err(BtfError::NoType { kind: "enum", name: enumeration.to_owned() });
        }
        enums.find_map(|ty| self.enumerator_in(ty, name).transpose()).unwrap_or_else(|| Err(missing()))
    }

    /// The function `name`, the first of several, and what all of them take.
    pub fn function(&self, name: &str) -> Result<(TypeId, Vec<ArgKind>), BtfError> {
        let no_function = || BtfError::NoType { kind: "function", name: name.to_owned() };
        let mut functions = self.named(name).filter(|ty| ty.kind == Kind::Func);
        let function = functions.next().ok_or_else(no_function)?;
        let args = self.arguments(function.size_or_ref)?;
        let mut first = function.id;
        for other in functions {
            if self.arguments(other.size_or_ref)? != args {
                return Err(BtfError::Ambiguous { path: name.to_owned() });
            }
            first = first.min(other.id);
        }
        Ok((TypeId(first), args))
    }

    /// What the raw tracepoint `name` gives to a program; an error when BTF does not describe it.
    pub fn raw_tracepoint_args(&self, name: &str) -> Result<Vec<ArgKind>, BtfError> {
        let name = format!("btf_trace_{name}");
        let typedef = self.named(&name).find(|ty| ty.kind == Kind::Typedef);
        let typedef = typedef.ok_or(BtfError::NoType { kind: "typedef", name })?;
        let expected = "pointer to a function";
        let not = BtfError::NotA { type_id: typedef.id, expected };
        let pointer = self.strip(TypeId(typedef.size_or_ref))?.filter(|ty| ty.kind == Kind::Ptr).ok_or(not)?;
        let mut args = self.arguments(pointer.size_or_ref)?;
        // The first is the program's own data (`void *`), which the program never sees.
        if args.is_empty() {
            return Err(BtfError::NotA { type_id: typedef.id, expected });
        }
        args.remove(0);
        Ok(args)
    }

    /// The member of a dotted path below `ty`; `rest` empty is an error.
    fn member_in(&self, ty: Type, name: &str, rest: &str) -> Result<MemberPlace, BtfError> {
        let mut place = MemberPlace { offset: 0, ty: TypeId(ty.id), size: ty.size_or_ref };
        let mut outer = name.to_owned();
        for member in rest.split('.') {
            let composite = self.strip(place.ty)?.filter(|ty| matches!(ty.kind, Kind::Struct | Kind::Union));
            let composite = composite.ok_or(BtfError::NotA { type_id: place.ty.0, expected: "struct or union" })?;
            let mut budget = MEMBERS_MAX;
            let inner = self.direct_member(composite, member, DEPTH_MAX, &mut budget)?;
            let inner =
                inner.ok_or_else(|| BtfError::NoMember { structure: outer.clone(), member: member.to_owned() })?;
            outer = format!("{outer}.{member}");
            if inner.bit_offset % 8 != 0 || inner.bits.is_some_and(|bits| bits % 8 != 0) {
                return Err(BtfError::BitField { path: outer });
            }
            let size = inner.bits.map_or_else(|| self.size_of(inner.ty), |bits| Ok(bits / 8))?;
            let offset = place.offset.checked_add(inner.bit_offset / 8);
            place.offset = offset.ok_or(BtfError::NotA { type_id: composite.id, expected: POSSIBLE })?;
            place = MemberPlace { ty: inner.ty, size, ..place };
        }
        Ok(place)
    }

    /// The member `name` of `ty` itself or of an anonymous structure in it.
    fn direct_member(&self, ty: Type, name: &str, depth: u32, budget: &mut u32) -> Result<Option<BitPlace>, BtfError> {
        let too_deep = BtfError::TooDeep { type_id: ty.id };
        let depth = depth.checked_sub(1).ok_or(too_deep.clone())?;
        for index in 0..ty.vlen {
            *budget = budget.checked_sub(1).ok_or(too_deep.clone())?;
            let place = self.bit_place(ty, index)?;
            let member = self.string(place.name).ok_or(BtfError::Name { type_id: ty.id })?;
            if !member.is_empty() {
                if member == name.as_bytes() {
                    return Ok(Some(place));
                }
                continue;
            }
            let inner = self.strip(place.ty)?.filter(|ty| matches!(ty.kind, Kind::Struct | Kind::Union));
            let Some(inner) = inner else { continue };
            if let Some(found) = self.direct_member(inner, name, depth, budget)? {
                let bit_offset = place.bit_offset.checked_add(found.bit_offset).ok_or(too_deep)?;
                return Ok(Some(BitPlace { bit_offset, ..found }));
            }
        }
        Ok(None)
    }

    /// Member `index` of a structure or union.
    fn bit_place(&self, ty: Type, index: usize) -> Result<BitPlace, BtfError> {
        let raw = self.part(ty, 3 * index + 2)?;
        // With the flag, the upper byte is the width of a bit field; 0 for a plain member.
        let (bit_offset, width) = if ty.kflag { (raw & 0x00ff_ffff, raw >> 24) } else { (raw, 0) };
        Ok(BitPlace {
            name: self.part(ty, 3 * index)?,
            ty: TypeId(self.part(ty, 3 * index + 1)?),
            bit_offset,
            bits: (width != 0).then_some(width),
        })
    }

    /// The value of `name` in one enumeration.
    fn enumerator_in(&self, ty: Type, name: &str) -> Result<Option<i64>, BtfError> {
        let words = if ty.kind == Kind::Enum64 { 3 } else { 2 };
        for index in 0..ty.vlen {
            if self.string(self.part(ty, words * index)?) != Some(name.as_bytes()) {
                continue;
            }
            let low = self.part(ty, words * index + 1)?;
            return Ok(Some(match ty.kind {
                Kind::Enum64 => (u64::from(self.part(ty, words * index + 2)?) << 32 | u64::from(low)) as i64,
                // The flag says signed.
                _ if ty.kflag => i64::from(low as i32),
                _ => i64::from(low),
            }));
        }
        Ok(None)
    }

    /// The arguments of the function prototype `id`.
    fn arguments(&self, id: u32) -> Result<Vec<ArgKind>, BtfError> {
        let proto = self.get(id)?;
        if proto.kind != Kind::FuncProto {
            return Err(BtfError::NotA { type_id: id, expected: "function prototype" });
        }
        (0..proto.vlen).map(|index| self.argument(TypeId(self.part(proto, 2 * index + 1)?))).collect()
    }

    fn argument(&self, ty: TypeId) -> Result<ArgKind, BtfError> {
        Ok(match self.shape(ty)? {
            Shape::Int { size } | Shape::Enum { size } => ArgKind::Int { size },
            Shape::Pointer => {
                let pointer = self.strip(ty)?.map_or(0, |pointer| pointer.size_or_ref);
                match self.strip(TypeId(pointer))? {
                    Some(to) if matches!(to.kind, Kind::Struct | Kind::Union | Kind::Fwd) => {
                        ArgKind::Pointer(self.name(to)?.to_owned())
                    }
                    _ => ArgKind::Pointer(String::new()),
                }
            }
            Shape::Array { .. } | Shape::Composite { .. } | Shape::Other => ArgKind::Other,
        })
    }

    /// The type behind typedefs, qualifiers and tags; `None` for `void`.
    fn strip(&self, ty: TypeId) -> Result<Option<Type>, BtfError> {
        let mut id = ty.0;
        for _ in 0..DEPTH_MAX {
            if id == 0 {
                return Ok(None);
            }
            let inner = self.get(id)?;
            match inner.kind {
                Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                    id = inner.size_or_ref;
                }
                _ => return Ok(Some(inner)),
            }
        }
        Err(BtfError::TooDeep { type_id: ty.0 })
    }

    fn name(&self, ty: Type) -> Result<&str, BtfError> {
        let name = self.string(ty.name).and_then(|name| std::str::from_utf8(name).ok());
        name.ok_or(BtfError::Name { type_id: ty.id })
    }

    /// Word `index` after the head of `ty`.
    fn part(&self, ty: Type, index: usize) -> Result<u32, BtfError> {
        self.word(ty.id, ty.at + super::TYPE_HEAD_LEN + 4 * index)
    }
}

/// A member as the format has it.
#[derive(Clone, Copy)]
struct BitPlace {
    name: u32,
    ty: TypeId,
    bit_offset: u32,
    bits: Option<u32>,
}
