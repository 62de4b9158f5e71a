//! Writes BTF for tests: what no kernel at hand has.

/// BTF under construction. Types are numbered from 1 in the order of the calls.
pub(crate) struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0], count: 0 }
    }

    /// Any type at all.
    pub(crate) fn raw(&mut self, name: &str, info: u32, size_or_ref: u32, parts: &[u32]) -> u32 {
        let name = self.string(name);
        for word in [name, info, size_or_ref].iter().chain(parts) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    /// Bytes that are no whole type.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.types.extend(bytes);
    }

    pub(crate) fn string(&mut self, string: &str) -> u32 {
        if string.is_empty() {
            return 0;
        }
        let offset = self.strings.len() as u32;
        self.strings.extend(string.as_bytes());
        self.strings.push(0);
        offset
    }

    pub(crate) fn int(&mut self, name: &str, size: u32) -> u32 {
        self.raw(name, 1 << 24, size, &[size * 8])
    }

    pub(crate) fn pointer(&mut self, to: u32) -> u32 {
        self.raw("", 2 << 24, to, &[])
    }

    pub(crate) fn array(&mut self, element: u32, length: u32) -> u32 {
        self.raw("", 3 << 24, 0, &[element, element, length])
    }

    /// Members are name, type, offset in bytes.
    pub(crate) fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let parts =
            members.iter().flat_map(|&(name, ty, offset)| [self.string(name), ty, 8 * offset]).collect::<Vec<_>>();
        self.raw(name, 4 << 24 | members.len() as u32, size, &parts)
    }

    pub(crate) fn union(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let parts =
            members.iter().flat_map(|&(name, ty, offset)| [self.string(name), ty, 8 * offset]).collect::<Vec<_>>();
        self.raw(name, 5 << 24 | members.len() as u32, size, &parts)
    }

    pub(crate) fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) -> u32 {
        let parts = values.iter().flat_map(|&(name, value)| [self.string(name), value]).collect::<Vec<_>>();
        self.raw(name, 6 << 24 | values.len() as u32, 4, &parts)
    }

    pub(crate) fn forward(&mut self, name: &str) -> u32 {
        self.raw(name, 7 << 24, 0, &[])
    }

    pub(crate) fn typedef(&mut self, name: &str, to: u32) -> u32 {
        self.raw(name, 8 << 24, to, &[])
    }

    /// A function that gives nothing.
    pub(crate) fn prototype(&mut self, arguments: &[u32]) -> u32 {
        let parts = arguments.iter().flat_map(|&argument| [0, argument]).collect::<Vec<_>>();
        self.raw("", 13 << 24 | arguments.len() as u32, 0, &parts)
    }

    pub(crate) fn function(&mut self, name: &str, arguments: &[u32]) -> u32 {
        let prototype = self.prototype(arguments);
        self.raw(name, 12 << 24, prototype, &[])
    }

    /// The typedef that describes a tracepoint, with these arguments after the program's own.
    pub(crate) fn tracepoint(&mut self, name: &str, arguments: &[u32]) -> u32 {
        let own = self.pointer(0);
        let prototype = self.prototype(&[&[own], arguments].concat());
        let pointer = self.pointer(prototype);
        self.typedef(&format!("btf_trace_{name}"), pointer)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut data = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, self.types.len() as u32, self.types.len() as u32, self.strings.len() as u32] {
            data.extend(word.to_le_bytes());
        }
        data.extend(self.types);
        data.extend(self.strings);
        data
    }
}

/// The excerpt of a kernel's BTF.
#[track_caller]
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/btf/{name}.btf", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The same BTF without a name: whatever had it, a type, a member or an enumerator, is called something else.
#[track_caller]
pub(crate) fn without(mut data: Vec<u8>, name: &str) -> Vec<u8> {
    let wanted = format!("\0{name}\0");
    let at = data.windows(wanted.len()).rposition(|window| window == wanted.as_bytes());
    data[at.unwrap_or_else(|| panic!("no {name} to take away")) + 1] = b'?';
    data
}
