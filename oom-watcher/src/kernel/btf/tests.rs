//! Hand-made BTF for what no kernel at hand has, excerpts of real kernels for the rest.

use proptest::prelude::*;

use super::builder::{Builder, fixture, without};
use super::*;

const FIXTURES: [&str; 11] = [
    "5.10.223-amd64",
    "5.10.223-arm64",
    "5.10.262-amd64",
    "6.1.176-amd64",
    "6.1.176-arm64",
    "6.12.107-amd64",
    "6.12.107-arm64",
    "6.18.44-amd64",
    "7.2.13-amd64",
    "7.2.13-arm64",
    "7.3-rc7-amd64",
];

#[track_caller]
fn parse(builder: Builder) -> Btf {
    Btf::parse(builder.finish()).unwrap()
}

#[track_caller]
fn assert_offset(btf: &Btf, path: &str, expected: u32) {
    assert_eq!(btf.member(path).map(|place| place.offset), Ok(expected), "{path}");
}

/// Every question that the plan asks, and some that it does not.
fn ask_everything(btf: &Btf) {
    for path in
        ["task_struct.comm", "mem_cgroup.memory.usage", "mm_struct.rss_stat", "pid.numbers", "a.b.c", "a", ".", ""]
    {
        if let Ok(place) = btf.member(path) {
            let _ = btf.shape(place.ty);
        }
    }
    for name in ["upid", "page_counter", "nothing"] {
        let _ = (btf.size_of_struct(name), btf.function(name), btf.raw_tracepoint_args(name));
    }
    let _ = (btf.raw_tracepoint_args("mark_victim"), btf.function("out_of_memory"));
    let _ = (btf.enumerator(Some("node_stat_item"), "NR_SHMEM"), btf.enumerator(None, "MM_SWAPENTS"));
    for id in 0..btf.type_count() as u32 + 2 {
        let _ = (btf.shape(TypeId(id)), btf.size_of(TypeId(id)));
    }
}

#[test]
fn members_are_where_pahole_says() {
    let table =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/btf/offsets.tsv")).unwrap();
    let mut lines =
        table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    assert_eq!(header[1..], FIXTURES);
    let kernels: Vec<Btf> = FIXTURES.iter().map(|name| Btf::parse(fixture(name)).unwrap()).collect();
    let mut compared = 0;
    for line in lines {
        for ((name, btf), expected) in FIXTURES.iter().zip(&kernels).zip(&line[1..]) {
            let found = btf.member(line[0]).map_or("-".to_owned(), |place| place.offset.to_string());
            assert_eq!(found, **expected, "{} in {name}", line[0]);
            compared += 1;
        }
    }
    assert!(compared > 400, "the table has shrunk: {compared}");
}

#[test]
#[cfg_attr(miri, ignore = "the whole of a kernel's types is an hour of an interpreter's time")]
fn running_kernel_is_understood() {
    // Not every kernel has BTF; where this one does, the whole of it has to be readable.
    let Ok(data) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
    let btf = Btf::parse(data).unwrap();
    assert!(btf.type_count() > 10_000, "{btf:?}");
    assert!(btf.member("task_struct.pid").is_ok());
}

#[test]
fn members_of_anonymous_structures_are_found_as_in_c() {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    let inner = b.structure("", 8, &[("x", int, 0), ("deep", int, 4)]);
    let middle = b.union("", 16, &[("", inner, 0), ("other", int, 0)]);
    let qualified = b.raw("", 10 << 24, middle, &[]);
    let named = b.structure("named", 16, &[("y", int, 12)]);
    b.structure("outer", 64, &[("a", int, 0), ("", qualified, 8), ("b", named, 32)]);
    let btf = parse(b);
    assert_offset(&btf, "outer.a", 0);
    assert_offset(&btf, "outer.x", 8);
    assert_offset(&btf, "outer.deep", 12);
    assert_offset(&btf, "outer.other", 8);
    assert_offset(&btf, "outer.b.y", 44);
    let missing = BtfError::NoMember { structure: "outer".to_owned(), member: "y".to_owned() };
    assert_eq!(btf.member("outer.y"), Err(missing), "members of a named structure are not the outer one's");
    let missing = BtfError::NoMember { structure: "outer.b".to_owned(), member: "x".to_owned() };
    assert_eq!(btf.member("outer.b.x"), Err(missing));
    assert!(matches!(btf.member("outer.a.x"), Err(BtfError::NotA { .. })), "a number has no members");
    assert!(matches!(btf.member("outer"), Err(BtfError::NoMember { .. })), "a path needs a member");
    assert!(matches!(btf.member("outer."), Err(BtfError::NoMember { .. })), "no name is no member's name");
}

#[test]
fn every_qualifier_is_seen_through() {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    let mut ty = b.structure("", 4, &[("counter", int, 0)]);
    for kind in [9, 10, 11, 18] {
        ty = b.raw("", kind << 24, ty, &[]);
    }
    ty = b.typedef("atomic_t", ty);
    b.structure("s", 8, &[("m", ty, 4)]);
    let btf = parse(b);
    assert_eq!(btf.member("s.m").map(|place| (place.offset, place.size)), Ok((4, 4)));
    assert_offset(&btf, "s.m.counter", 4);
    assert_eq!(btf.shape(btf.member("s.m").unwrap().ty), Ok(Shape::Composite { name: "", size: 4 }));
}

#[test]
fn bit_fields_have_to_cover_whole_bytes() {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    let member = |b: &mut Builder, name, bits: u32, bit_offset: u32| [b.string(name), int, bits << 24 | bit_offset];
    let parts = [("plain", 0, 32), ("byte", 8, 64), ("bits", 3, 72), ("odd", 8, 75)]
        .map(|(n, w, o)| member(&mut b, n, w, o))
        .concat();
    b.raw("flags", 1 << 31 | 4 << 24 | 4, 16, &parts);
    let btf = parse(b);
    assert_eq!(btf.member("flags.plain").map(|place| (place.offset, place.size)), Ok((4, 4)));
    assert_eq!(btf.member("flags.byte").map(|place| (place.offset, place.size)), Ok((8, 1)));
    assert_eq!(btf.member("flags.bits"), Err(BtfError::BitField { path: "flags.bits".to_owned() }));
    assert_eq!(btf.member("flags.odd"), Err(BtfError::BitField { path: "flags.odd".to_owned() }));
}

#[test]
fn structures_of_one_name_have_to_agree() {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    b.structure("twin", 8, &[("same", int, 4), ("moved", int, 0)]);
    b.structure("twin", 8, &[("same", int, 4), ("moved", int, 4), ("only", int, 0)]);
    b.structure("odd", 8, &[]);
    b.structure("odd", 16, &[]);
    let btf = parse(b);
    assert_offset(&btf, "twin.same", 4);
    assert_offset(&btf, "twin.only", 0);
    assert_eq!(btf.member("twin.moved"), Err(BtfError::Ambiguous { path: "twin.moved".to_owned() }));
    assert_eq!(btf.size_of_struct("twin"), Ok(8));
    assert_eq!(btf.size_of_struct("odd"), Err(BtfError::Ambiguous { path: "odd".to_owned() }));
}

#[test]
fn sizes_of_arrays_multiply_and_may_not_overflow() {
    let mut b = Builder::new();
    let long = b.int("long", 8);
    let row = b.array(long, 3);
    let table = b.array(row, 5);
    let flexible = b.array(long, 0);
    let huge = b.array(table, 1 << 30);
    b.structure("s", 0, &[("table", table, 0), ("tail", flexible, 120), ("huge", huge, 128)]);
    let btf = parse(b);
    assert_eq!(btf.size_of(TypeId(table)), Ok(120));
    assert_eq!(btf.member("s.tail").map(|place| place.size), Ok(0));
    assert!(matches!(btf.member("s.huge"), Err(BtfError::NotA { .. })));
}

#[test]
fn enumerators_of_all_kinds() {
    let mut b = Builder::new();
    b.enumeration("plain", &[("ZERO", 0), ("BIG", u32::MAX)]);
    b.enumeration("", &[("NAMELESS", 7)]);
    let negative = [b.string("NEGATIVE"), -5_i32 as u32];
    b.raw("signed", 1 << 31 | 6 << 24 | 1, 4, &negative);
    let wide = [b.string("WIDE"), 1, 2];
    b.raw("wide", 19 << 24 | 1, 8, &wide);
    let btf = parse(b);
    assert_eq!(btf.enumerator(Some("plain"), "BIG"), Ok(i64::from(u32::MAX)));
    assert_eq!(btf.enumerator(Some("signed"), "NEGATIVE"), Ok(-5));
    assert_eq!(btf.enumerator(Some("wide"), "WIDE"), Ok(0x2_0000_0001));
    assert_eq!(btf.enumerator(None, "NAMELESS"), Ok(7));
    let missing = |enumeration: &str, name: &str| BtfError::NoEnumerator {
        enumeration: enumeration.to_owned(),
        name: name.to_owned(),
    };
    assert_eq!(btf.enumerator(Some("plain"), "NAMELESS"), Err(missing("plain", "NAMELESS")));
    assert_eq!(btf.enumerator(None, "ZERO"), Err(missing("", "ZERO")), "it belongs to an enumeration with a name");
    assert_eq!(btf.enumerator(Some("gone"), "ZERO"), Err(BtfError::NoType { kind: "enum", name: "gone".to_owned() }));
}

#[test]
fn arguments_of_functions_and_tracepoints() {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    let task = b.forward("task_struct");
    let task = b.raw("", 10 << 24, task, &[]);
    let task = b.pointer(task);
    let text = b.pointer(int);
    let by_value = b.structure("s", 4, &[("x", int, 0)]);
    let f = b.function("f", &[task, text, int, by_value]);
    b.function("f", &[task, text, int, by_value]);
    b.tracepoint("t", &[task, int]);
    b.typedef("btf_trace_number", int);
    b.function("twice", &[int]);
    b.function("twice", &[task]);
    let btf = parse(b);
    let pointer = |to: &str| ArgKind::Pointer(to.to_owned());
    let args = vec![pointer("task_struct"), pointer(""), ArgKind::Int { size: 4 }, ArgKind::Other];
    assert_eq!(btf.function("f"), Ok((TypeId(f), args)));
    assert_eq!(btf.raw_tracepoint_args("t"), Ok(vec![pointer("task_struct"), ArgKind::Int { size: 4 }]));
    assert!(matches!(btf.raw_tracepoint_args("number"), Err(BtfError::NotA { .. })));
    assert_eq!(btf.function("twice"), Err(BtfError::Ambiguous { path: "twice".to_owned() }));
    let missing = |kind, name: &str| BtfError::NoType { kind, name: name.to_owned() };
    assert_eq!(btf.function("gone"), Err(missing("function", "gone")));
    assert_eq!(btf.raw_tracepoint_args("gone"), Err(missing("typedef", "btf_trace_gone")));
}

#[test]
fn tracepoint_has_both_forms_under_one_kernel_version() {
    let args = |name| Btf::parse(fixture(name)).unwrap().raw_tracepoint_args("mark_victim").unwrap();
    assert_eq!(args("5.10.223-amd64"), [ArgKind::Int { size: 4 }]);
    assert_eq!(args("5.10.262-amd64"), [ArgKind::Pointer("task_struct".to_owned()), ArgKind::Int { size: 4 }]);
}

#[test]
fn every_kind_is_skipped_to_the_next_type() {
    for kind in 1..=19 {
        let mut b = Builder::new();
        let vlen = 2 * u32::from([4, 5, 6, 13, 15, 19].contains(&kind));
        let words = match kind {
            1 | 14 | 17 => 1,
            3 => 3,
            4 | 5 | 15 | 19 => 6,
            6 | 13 => 4,
            _ => 0,
        };
        b.raw("first", kind << 24 | vlen, 0, &vec![0; words]);
        let int = b.int("int", 4);
        b.structure("after", 8, &[("here", int, 4)]);
        assert_offset(&parse(b), "after.here", 4);
    }
}

#[test]
fn unknown_kind_is_named_with_its_type() {
    for kind in [0, 20, 31] {
        let mut b = Builder::new();
        b.int("int", 4);
        b.raw("new", kind << 24, 0, &[]);
        let error = Btf::parse(b.finish()).unwrap_err();
        assert_eq!(error, BtfError::UnknownKind { kind: kind as u8, type_id: 2 });
    }
    let text = BtfError::UnknownKind { kind: 20, type_id: 2 }.to_string();
    assert_eq!(text, "BTF type 2 is of kind 20, which is not known");
}

#[test]
fn header_is_checked() {
    let good = fixture("6.1.176-amd64");
    let with = |at: usize, bytes: &[u8]| {
        let mut data = good.clone();
        data[at..at + bytes.len()].copy_from_slice(bytes);
        Btf::parse(data).map(|_| ()).unwrap_err()
    };
    assert_eq!(with(0, &[0xeb, 0x9f]), BtfError::BigEndian);
    assert_eq!(with(0, b"\x7fE"), BtfError::Magic { magic: 0x457f });
    assert_eq!(with(2, &[2]), BtfError::Version { version: 2 });
    assert_eq!(with(4, &[23, 0, 0, 0]), BtfError::Header { size: good.len() });
    assert_eq!(with(4, &[0xff; 4]), BtfError::Header { size: good.len() });
    assert_eq!(with(8, &[0xff; 4]), BtfError::Section { section: "types" });
    assert_eq!(with(12, &[0xff; 4]), BtfError::Section { section: "types" });
    assert_eq!(with(16, &[0xff; 4]), BtfError::Section { section: "strings" });
    assert_eq!(with(20, &[0xff; 4]), BtfError::Section { section: "strings" });
    assert_eq!(with(good.len() - 1, b"x"), BtfError::Section { section: "strings" }, "no final NUL");
    assert_eq!(Btf::parse(Vec::new()).map(|_| ()), Err(BtfError::Header { size: 0 }));
}

#[test]
fn damaged_types_are_errors() {
    type Damage = fn(&mut Builder);
    let cases: [(Damage, BtfError); 3] = [
        (|b| _ = b.raw("s", 4 << 24 | 3, 8, &[0; 6]), BtfError::Truncated { type_id: 1 }),
        (|b| b.bytes(&[0; 7]), BtfError::Truncated { type_id: 1 }),
        (|b| b.bytes(&[0xff, 0xff, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]), BtfError::Name { type_id: 1 }),
    ];
    for (damage, expected) in cases {
        let mut b = Builder::new();
        damage(&mut b);
        assert_eq!(Btf::parse(b.finish()).map(|_| ()), Err(expected));
    }
}

#[test]
fn references_without_end_or_target_are_errors() {
    let mut b = Builder::new();
    b.structure("s", 8, &[("loop", 3, 0), ("dangling", 99, 0), ("void", 0, 0)]);
    b.structure("circle", 8, &[("", 4, 0)]);
    b.typedef("a", 3);
    b.structure("", 8, &[("", 4, 0)]);
    let btf = parse(b);
    assert_eq!(btf.member("s.loop"), Err(BtfError::TooDeep { type_id: 3 }));
    assert_eq!(btf.member("s.dangling"), Err(BtfError::Dangling { type_id: 99 }));
    assert!(matches!(btf.member("s.void"), Err(BtfError::NotA { type_id: 0, .. })));
    assert!(matches!(btf.member("circle.x"), Err(BtfError::TooDeep { .. })));
}

#[test]
#[cfg_attr(miri, ignore = "the limit that it runs into is minutes of an interpreter's time")]
fn anonymous_structures_that_multiply_are_given_up() {
    // Each of 20 levels has 64 members of the next one: 64^20 members to look at.
    let mut b = Builder::new();
    for level in 2..=21 {
        let members = [("", level, 0); 64];
        b.structure(if level == 2 { "top" } else { "" }, 8, &members);
    }
    b.structure("", 8, &[]);
    let btf = parse(b);
    assert!(matches!(btf.member("top.x"), Err(BtfError::TooDeep { .. })));
}

#[test]
fn missing_name_is_missing_only_by_that_name() {
    let btf = Btf::parse(without(fixture("6.1.176-amd64"), "nsproxy")).unwrap();
    let missing = BtfError::NoMember { structure: "task_struct".to_owned(), member: "nsproxy".to_owned() };
    assert_eq!(btf.member("task_struct.nsproxy"), Err(missing));
    assert!(btf.member("task_struct.pid").is_ok());
}

proptest! {
    #[test]
    fn truncated_input_never_panics(kernel in 0..FIXTURES.len(), keep in 0.0..1.0_f64) {
        let mut data = fixture(FIXTURES[kernel]);
        data.truncate((data.len() as f64 * keep) as usize);
        prop_assert!(Btf::parse(data).is_err(), "the strings come last, so any cut is seen");
    }

    /// As above, but with a header that agrees with what is left.
    #[test]
    fn consistently_truncated_types_never_panic(kernel in 0..FIXTURES.len(), keep in 0.0..1.0_f64) {
        let mut data = fixture(FIXTURES[kernel]);
        let types = u32::from_le_bytes(data[12..16].try_into().unwrap());
        let kept = (f64::from(types) * keep) as u32;
        data[12..16].copy_from_slice(&kept.to_le_bytes());
        if let Ok(btf) = Btf::parse(data) {
            ask_everything(&btf);
        }
    }

    #[test]
    fn damaged_input_never_panics(
        kernel in 0..FIXTURES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
    ) {
        let mut data = fixture(FIXTURES[kernel]);
        for (at, byte) in damage {
            let at = at.index(data.len());
            data[at] = byte;
        }
        if let Ok(btf) = Btf::parse(data) {
            ask_everything(&btf);
        }
    }

    #[test]
    fn garbage_never_panics(mut data in prop::collection::vec(any::<u8>(), 0..400)) {
        for (at, byte) in [0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0].into_iter().enumerate().take(data.len()) {
            data[at] = byte;
        }
        if let Ok(btf) = Btf::parse(data) {
            ask_everything(&btf);
        }
    }
}
