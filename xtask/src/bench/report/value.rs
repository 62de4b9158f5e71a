//! Values of the results, as a page needs them: one that is missing is an error, never a blank.

use anyhow::{Context as _, Result};
use serde_json::Value;

pub(super) fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("not a list")
}

pub(super) fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} is no number"))
}

pub(super) fn string(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

/// KiB in MiB.
pub(super) fn mib(kib: &Value) -> Result<f64> {
    Ok(number(kib)? / 1024.0)
}

/// KiB in millions of bytes.
pub(super) fn mb(kib: &Value) -> Result<f64> {
    Ok(number(kib)? * 1024.0 / 1e6)
}

/// With spaces between thousands.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!([7.0, 1234.4, 1_650_000.0].map(grouped), ["7", "1 234", "1 650 000"]);
    }
}
