//! The reference pages that a machine writes.
