//! The lines for a machine, each one JSON object: a report (`docs/event.schema.json`) or an enrichment
//! (`docs/enrichment.schema.json`).
//!
//! A terminal may show it as well: characters that a terminal could act on are written as `\uXXXX`, which any JSON
//! parser turns back into the same value.

use std::io;

use serde::Serialize;
use serde_json::{Serializer, ser::Formatter};

use crate::escape::is_unsafe;

/// A report or an enrichment on one line, without a line end.
pub fn line(report: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::with_capacity(2048);
    report.serialize(&mut Serializer::with_formatter(&mut bytes, PlainFormatter))?;
    String::from_utf8(bytes).map_err(|error| serde::ser::Error::custom(error.utf8_error()))
}

/// Compact JSON that also escapes what JSON itself lets pass: DEL, C1 and the characters that reorder text.
struct PlainFormatter;

impl Formatter for PlainFormatter {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // What nearly every name is: looked at as bytes, this is most of the time of a line saved.
        if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unsafe(*c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests;
