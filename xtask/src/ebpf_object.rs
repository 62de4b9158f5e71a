//! What the object of the kernel program must not contain, whoever built it.
//!
//! Each of these builds without a word and fails later: at load on some kernel, or at the next rebuild on another machine.

use std::env;

use anyhow::{Context as _, Result, bail};
use object::{Architecture, File, Object as _, ObjectSection as _, ObjectSymbol};

use crate::paths;

/// Fails with every fault of the object, each with its remedy.
pub(crate) fn check(bytes: &[u8]) -> Result<()> {
    let file = File::parse(bytes).context("the object is not an ELF file")?;
    if file.architecture() != Architecture::Bpf {
        bail!("the object is for {:?}, not for BPF", file.architecture());
    }
    let faults = [panics(&file), undefined(&file), debug_sections(&file), host_paths(bytes)].concat();
    if !faults.is_empty() {
        bail!("the object of the kernel program is not fit to be committed:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

fn panics(file: &File) -> Vec<String> {
    let names = file.symbols().filter_map(|symbol| symbol.name().ok());
    let panics = names.filter(|name| name.contains("panicking") || name.contains("rust_begin_unwind"));
    panics
        .map(|name| {
            format!("a panic is reachable ({name}), which no kernel loads: use `get`, masks, `checked_*` or pointer arithmetic")
        })
        .collect()
}

fn undefined(file: &File) -> Vec<String> {
    let symbols = file.symbols().filter(ObjectSymbol::is_undefined);
    let names = symbols.filter_map(|symbol| symbol.name().ok()).filter(|name| !name.is_empty());
    names.map(|name| format!("the symbol {name} is undefined: nothing at load gives it")).collect()
}

fn debug_sections(file: &File) -> Vec<String> {
    let names = file.sections().filter_map(|section| section.name().ok().map(str::to_owned));
    let debug = names.filter(|name| name.starts_with(".debug") || name.starts_with(".BTF"));
    debug.map(|name| format!("it has the section {name}, which differs by machine: build with -Cdebuginfo=0")).collect()
}

fn host_paths(bytes: &[u8]) -> Vec<String> {
    let home = env::var("HOME").unwrap_or_default();
    let places = [paths::workspace().to_string_lossy().into_owned(), home];
    // The root folder as a home would be found in every object.
    let places = places.into_iter().filter(|place| place.len() > 1);
    let needles = places.chain([".cargo/".to_owned(), "/rustlib/".to_owned(), "/rustc/".to_owned()]);
    let found = needles.filter(|needle| bytes.windows(needle.len()).any(|window| window == needle.as_bytes()));
    found.map(|needle| format!("it holds the path {needle:?} of the machine that built it")).collect()
}

#[cfg(test)]
mod tests {
    use object::{
        BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
        write::{Object, Symbol, SymbolSection},
    };

    use super::*;

    /// An object with one program, and what `change` does to it.
    fn object(change: impl FnOnce(&mut Object<'_>)) -> Vec<u8> {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        add_function(&mut object, "mark_victim");
        change(&mut object);
        object.write().unwrap()
    }

    fn add_function(object: &mut Object<'_>, name: &str) {
        let section = object.add_section(Vec::new(), b"raw_tp/mark_victim".to_vec(), SectionKind::Text);
        // exit
        object.append_section_data(section, &[0x95, 0, 0, 0, 0, 0, 0, 0], 8);
        add_symbol(object, name, SymbolSection::Section(section));
    }

    fn add_symbol(object: &mut Object<'_>, name: &str, section: SymbolSection) {
        object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: 8,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section,
            flags: SymbolFlags::None,
        });
    }

    #[track_caller]
    fn assert_fault(bytes: &[u8], fault: &str) {
        let error = check(bytes).unwrap_err().to_string();
        assert!(error.contains(fault), "{error}");
    }

    #[test]
    fn a_clean_object_passes() {
        check(&object(|_| ())).unwrap();
    }

    #[test]
    fn a_reachable_panic_is_named() {
        let name = "_ZN4core9panicking18panic_bounds_check17h0123456789abcdefE";
        assert_fault(&object(|object| add_function(object, name)), name);
    }

    #[test]
    fn an_undefined_symbol_is_named() {
        assert_fault(&object(|object| add_symbol(object, "__multi3", SymbolSection::Undefined)), "__multi3");
    }

    #[test]
    fn debug_information_and_btf_are_named() {
        for name in [".debug_info", ".BTF", ".BTF.ext"] {
            let bytes = object(|object| {
                let section = object.add_section(Vec::new(), name.as_bytes().to_vec(), SectionKind::Debug);
                object.append_section_data(section, &[1], 1);
            });
            assert_fault(&bytes, name);
        }
    }

    #[test]
    fn a_path_of_the_host_is_named() {
        let path = format!("{}/oom-watcher-ebpf/src/main.rs\0", paths::workspace().display());
        let bytes = object(|object| {
            let section = object.add_section(Vec::new(), b".rodata".to_vec(), SectionKind::ReadOnlyData);
            object.append_section_data(section, path.as_bytes(), 1);
        });
        assert_fault(&bytes, &paths::workspace().display().to_string());
    }

    #[test]
    fn another_machine_is_refused() {
        let bytes = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little).write().unwrap();
        assert_fault(&bytes, "not for BPF");
    }

    #[test]
    fn garbage_is_refused() {
        assert_fault(b"no ELF", "not an ELF file");
    }
}
