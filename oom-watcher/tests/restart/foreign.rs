//! An agent of another version: a copy of the binary, in which the kernel program writes another version into its records.
//!
//! No build of another version is at hand, and a switch for it would be in the product. The version is a constant in the
//! object that the binary holds, beside the kind of record, so it is found in its instructions and replaced.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use oom_watcher_common::{
    ABI_VERSION,
    record::{KIND_INCIDENT_END, KIND_KILL},
};

use crate::{agent, world};

static OBJECT: &[u8] = include_bytes!("../../bpf/oom-watcher.bpf.o");
/// The version that it writes.
pub(crate) const VERSION: u16 = ABI_VERSION + 1;
/// Bytes of an instruction: operation, registers, offset, constant.
const INSTRUCTION: usize = 8;
/// `BPF_ALU64 | BPF_MOV | BPF_K` and `BPF_LD | BPF_IMM | BPF_DW`: a register is loaded with a constant.
const LOADS: [u8; 2] = [0xb7, 0x18];

/// The other agent's binary.
pub(crate) fn agent() -> PathBuf {
    let mut program = fs::read(agent::binary()).expect("the agent can be read");
    // The object lies in the binary at a multiple of an instruction, for the program reads it as such.
    let mut places = (0..program.len().saturating_sub(OBJECT.len())).step_by(INSTRUCTION);
    let place = places.find(|&place| program[place..].starts_with(OBJECT)).expect("the agent holds the object");
    let other = with_other_version(OBJECT);
    program[place..place + OBJECT.len()].copy_from_slice(&other);
    let file = world::directory("another-version").join("oom-watcher");
    fs::write(&file, program).expect("it can be written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it can be made a program");
    file
}

fn with_other_version(object: &[u8]) -> Vec<u8> {
    let mut other = object.to_vec();
    let mut kills = 0;
    for instruction in other.chunks_exact_mut(INSTRUCTION) {
        let (operation, constant) = instruction.split_at_mut(4);
        let is_load = LOADS.contains(&operation[0]) && operation[2..] == [0, 0];
        // A header begins with the version and the kind, which the compiler writes as one word.
        let Some(kind) = [KIND_KILL, KIND_INCIDENT_END].into_iter().find(|kind| *constant == head(ABI_VERSION, *kind))
        else {
            continue;
        };
        if is_load {
            constant.copy_from_slice(&head(VERSION, kind));
            kills += u32::from(kind == KIND_KILL);
        }
    }
    assert!(kills > 0, "the object writes the head of a kill in another way than as one constant");
    other
}

fn head(version: u16, kind: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (version.to_le_bytes(), kind.to_le_bytes());
    [a, b, c, d]
}
