//! Values of the results, as a page needs them: one that is missing is an error, never a blank.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::bench::statistics::Spread;

pub(super) fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("not a list")
}

pub(super) fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} is no number"))
}

pub(super) fn string(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

/// KiB in millions of bytes.
pub(super) const MB: f64 = 1024.0 / 1e6;

/// Every sample of one figure.
pub(super) fn samples(value: &Value) -> Result<Vec<f64>> {
    list(value)?.iter().map(number).collect()
}

/// Of one figure, which has a list of samples.
pub(super) fn spread(value: &Value) -> Result<Spread> {
    Spread::of(&samples(value)?)
}

/// The median, and behind it between what it lies.
pub(super) fn ranged(spread: Spread, unit: &str, decimals: usize) -> String {
    let Spread { median, min, max } = spread;
    format!("{median:.decimals$} {unit} ({min:.decimals$}–{max:.decimals$})")
}

/// With two digits that say something.
pub(super) fn significant(value: f64) -> String {
    let decimals = if value == 0.0 { 0 } else { (1.0 - value.abs().log10().floor()).max(0.0) as usize };
    format!("{value:.decimals$}")
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

    #[test]
    fn a_small_figure_keeps_two_digits() {
        assert_eq!(
            [0.0, 0.0238, 0.5, 1.25, 33.2, 1234.0, -0.0638].map(significant),
            ["0", "0.024", "0.50", "1.2", "33", "1234", "-0.064"]
        );
    }
}
