//! Aya without its parse of the kernel's BTF, which costs tens of milliseconds and some 20 MB each time. Nothing here needs
//! it: the programs have no relocations against the kernel, and fentry needs one number, which our own reader has.

use std::io;

use aya::{Btf, BtfError, EbpfLoader, Endianness};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kernel::btf::TypeId;

/// A function, among the kinds of BTF.
const KIND_FUNC: u32 = 12;
/// Words of a function's description, and of the fillers before it.
const TYPE_WORDS: usize = 3;

/// A loader that knows no BTF.
///
/// Its only constructor reads the kernel's BTF before it can be told not to, and does without where the file cannot be
/// opened. So none can be for that moment. The process has one thread now: nobody else misses a file.
pub(super) fn loader<'a>() -> io::Result<EbpfLoader<'a>> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit })?;
    let loader = EbpfLoader::new();
    setrlimit(Resource::Nofile, limit)?;
    Ok(loader)
}

/// BTF in which the function `name` has the number that it has in the kernel's. Aya takes nothing else from it, and gives the
/// kernel only the number. What stands before has no meaning.
pub(super) fn function(name: &str, TypeId(id): TypeId) -> Result<Btf, BtfError> {
    // Numbers begin at 1, after `void`, which is not written.
    let before = (id as usize).saturating_sub(1) * TYPE_WORDS;
    let types_len = (before + TYPE_WORDS) * size_of::<u32>();
    let strings_len = name.len() + 2;
    let mut data = vec![0x9f, 0xeb, 1, 0];
    data.reserve_exact(20 + types_len + strings_len);
    for word in [24, 0, types_len as u32, types_len as u32, strings_len as u32] {
        data.extend(word.to_le_bytes());
    }
    data.resize(data.len() + before * size_of::<u32>(), 0);
    for word in [1, KIND_FUNC << 24, 0] {
        data.extend(word.to_le_bytes());
    }
    data.push(0);
    data.extend(name.as_bytes());
    data.push(0);
    Btf::parse(&data, Endianness::Little)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_has_its_number() {
        for id in [1, 2, 126_586] {
            let btf = function("out_of_memory", TypeId(id)).unwrap();
            // The kind's type is not among what aya shows; loading a program shows the number, in the guests.
            let shown = format!("{btf:?}");
            assert_eq!(shown.matches("Unknown").count(), id as usize, "fillers and void");
            assert!(shown.contains("Func(Func { name_offset: 1"), "{id}");
        }
    }
}
