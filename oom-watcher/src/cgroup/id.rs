//! The id of a container, whole by construction.

use std::fmt;

/// Hexadecimal digits of a container id, in every runtime that Kubernetes, docker and podman use.
const DIGITS: usize = 64;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Id of a container: 64 lower-case hexadecimal digits, kept as the 32 bytes that they stand for.
///
/// There is no way to make one from fewer digits, so an id that was cut somewhere (a file name of 255 bytes, a tool that
/// prints 12 digits) can never be taken for a whole one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId([u8; DIGITS / 2]);

impl ContainerId {
    /// Reads exactly 64 lower-case hexadecimal digits; anything else is no id.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: &[u8; DIGITS] = text.as_bytes().try_into().ok()?;
        let mut id = [0; DIGITS / 2];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(id))
    }

    /// Splits `text` into what stands before an id that ends it, and that id.
    pub(crate) fn split_end(text: &str) -> Option<(&str, Self)> {
        let (before, id) = text.split_at_checked(text.len().checked_sub(DIGITS)?)?;
        Some((before, Self::parse(id)?))
    }

    /// Whether the id, written out, begins with these digits.
    pub fn starts_with(&self, digits: &str) -> bool {
        self.to_string().starts_with(digits)
    }
}

/// The value of a lower-case hexadecimal digit. (Runtimes write no others; two spellings of one id would be two keys.)
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; DIGITS];
        for (byte, pair) in self.0.iter().zip(digits.chunks_exact_mut(2)) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
        }
        f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContainerId({self})")
    }
}
