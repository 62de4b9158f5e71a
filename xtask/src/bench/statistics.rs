//! Samples → figures. Pure.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The value at `share` (0 to 1) of what was measured, by nearest rank: the smallest that so many are not above.
pub(super) fn quantile(samples: &[f64], share: f64) -> Result<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    // A product that is a hair above a whole number, as products of binary fractions are, is that number.
    let rank = (sorted.len() as f64 * share - 1e-9).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().context("nothing was measured")
}

/// The median of what was measured, and between what it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    pub(super) fn of(samples: &[f64]) -> Result<Self> {
        let [min, median, max] = [0.0, 0.5, 1.0].map(|share| quantile(samples, share));
        Ok(Self { median: median?, min: min?, max: max? })
    }

    /// In another unit.
    pub(super) fn times(self, factor: f64) -> Self {
        Self { median: self.median * factor, min: self.min * factor, max: self.max * factor }
    }
}

impl From<f64> for Spread {
    /// A single figure, which has no range.
    fn from(value: f64) -> Self {
        Self { median: value, min: value, max: value }
    }
}

/// Rounds of the same figures, made into one object with a list for each figure.
pub(super) fn gather(rounds: &[Value]) -> Value {
    let Some(Value::Object(first)) = rounds.first() else { return Value::from(rounds.to_vec()) };
    let of = |name: &String| rounds.iter().map(|round| round[name].clone()).collect::<Vec<_>>();
    Value::Object(first.keys().map(|name| (name.clone(), gather(&of(name)))).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let upto = |count: u32| (1..=count).rev().map(f64::from).collect::<Vec<_>>();
        for (count, share, expected) in [
            (1, 0.99, 1.0),
            (2, 0.5, 1.0),
            (4, 0.5, 2.0),
            (5, 0.5, 3.0),
            (60, 0.99, 60.0),
            (100, 0.99, 99.0),
            (100, 0.07, 7.0),
            (300, 0.99, 297.0),
            (300, 0.0, 1.0),
            (300, 1.0, 300.0),
        ] {
            let value = quantile(&upto(count), share).unwrap();
            assert!((value - expected).abs() < 1e-9, "{share} of {count}: {value}");
        }
        quantile(&[], 0.5).unwrap_err();
    }

    #[test]
    fn rounds_become_a_list_for_each_figure() {
        let rounds = [json!({ "a": 1, "b": { "c": 2 } }), json!({ "a": 3, "b": { "c": 4 } })];
        assert_eq!(gather(&rounds), json!({ "a": [1, 3], "b": { "c": [2, 4] } }));
    }
}
