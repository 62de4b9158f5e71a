//! The agent's own cgroup, asked of the kernel by a program that is run once and never attached.

use aya::{
    EbpfError,
    maps::{MapError, RingBuf},
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};

use super::{Global, LoadError, OBJECT, take, unparsed};
use crate::kernel::plan::Plan;

/// Bytes of its ring buffer: one record, of 12 KiB at most, and a power of two in pages of any size.
const RING_BUFFER_BYTES: u32 = 64 * 1024;
const PROGRAM: &str = "own_cgroup";

/// Why the kernel did not say.
#[derive(Debug, thiserror::Error)]
pub enum OwnCgroupError {
    /// The object, as in [`super::load`].
    #[error("cannot load the program's maps")]
    Maps(#[source] Box<EbpfError>),
    /// A part of it.
    #[error("cannot use the program's maps")]
    Map(#[source] MapError),
    /// The object is another one.
    #[error("cannot use the embedded kernel program")]
    Object(#[source] LoadError),
    /// Loading it or running it.
    #[error("cannot {operation} the program {PROGRAM}")]
    Program {
        /// What was tried.
        operation: &'static str,
        /// The kernel's words.
        #[source]
        source: ProgramError,
    },
    /// It ran and gave nothing.
    #[error("the program {PROGRAM} gave no record")]
    NoRecord,
}

/// The record that says in which cgroup this process is: a kill of nobody, with the levels of this process's memory cgroup.
///
/// It takes the same capabilities as watching, and one thread, as [`unparsed::loader`] does. Linux 5.10 and later can run a
/// program so (`bpf_prog_test_run_raw_tp`).
pub fn own_cgroup(plan: &Plan) -> Result<Vec<u8>, OwnCgroupError> {
    let global = Global(plan.layout);
    let mut object = unparsed::loader()
        .map_err(|error| OwnCgroupError::Object(LoadError::FileLimit(error)))?
        .override_global("LAYOUT", &global, true)
        .map_max_entries("EVENTS", RING_BUFFER_BYTES)
        .load(OBJECT)
        .map_err(|error| OwnCgroupError::Maps(Box::new(error)))?;
    let map = take(&mut object, "EVENTS").map_err(OwnCgroupError::Object)?;
    let mut events = RingBuf::try_from(map).map_err(OwnCgroupError::Map)?;
    let failed = |operation| move |source| OwnCgroupError::Program { operation, source };
    let program =
        object.program_mut(PROGRAM).ok_or(OwnCgroupError::Object(LoadError::Incomplete("program own_cgroup")))?;
    let program: &mut RawTracePoint = program.try_into().map_err(failed("use"))?;
    program.load().map_err(failed("load"))?;
    program.test_run(RawTracePointRunOptions::new()).map_err(failed("run"))?;
    let record = events.next().ok_or(OwnCgroupError::NoRecord)?;
    Ok(record.to_vec())
}
