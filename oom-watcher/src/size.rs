//! Sizes for a person.

use std::fmt::{self, Display, Formatter};

/// A size as a person reads it: a binary unit, and one decimal below 100.
pub(crate) struct Size(pub(crate) u64);

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let (mut tenths, mut unit) = (self.0 as f64 / 102.4, UNITS[0]);
        for larger in &UNITS[1..] {
            // What would be shown as 1024 is 1 of the next unit.
            if tenths < 10_235.0 {
                break;
            }
            (tenths, unit) = (tenths / 1024.0, larger);
        }
        match tenths.round() as u64 {
            tenths if tenths < 1000 && tenths % 10 != 0 => write!(f, "{}.{} {unit}", tenths / 10, tenths % 10),
            _ => write!(f, "{:.0} {unit}", tenths / 10.0),
        }
    }
}
