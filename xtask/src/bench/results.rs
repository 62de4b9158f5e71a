//! `benches/results.json`, or another file of its form: read and written, with raw samples on one line each.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::paths;

/// What the pages are rendered from.
pub(super) fn published() -> PathBuf {
    paths::workspace().join("benches/results.json")
}

pub(super) fn read(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot understand {}", file.display()))
}

/// The same, where there may be none yet.
pub(super) fn read_or_begin(file: &Path) -> Result<Value> {
    if file.exists() { read(file) } else { Ok(json!({})) }
}

pub(super) fn save(file: &Path, value: &Value) -> Result<()> {
    let mut text = String::new();
    lay_out(value, 0, &mut text)?;
    text.push('\n');
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// As `to_string_pretty`, but a list of numbers is one line: hundreds of samples would be hundreds of lines.
fn lay_out(value: &Value, depth: usize, text: &mut String) -> Result<()> {
    let (open, close, items): (_, _, Vec<(String, &Value)>) = match value {
        Value::Object(fields) if !fields.is_empty() => {
            ('{', '}', fields.iter().map(|(name, value)| (format!("{}: ", json!(name)), value)).collect())
        }
        Value::Array(items) if !items.iter().all(Value::is_number) => {
            ('[', ']', items.iter().map(|value| (String::new(), value)).collect())
        }
        scalar => return Ok(write!(text, "{scalar}")?),
    };
    text.push(open);
    for (place, (name, value)) in items.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        write!(text, "{comma}\n{}{name}", "  ".repeat(depth + 1))?;
        lay_out(value, depth + 1, text)?;
    }
    write!(text, "\n{}{close}", "  ".repeat(depth))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_one_line_and_nothing_is_lost() {
        let value = json!({ "a \"b\"": [1, 2.5], "c": [{ "d": null }, "e"], "f": {}, "g": [] });
        let mut text = String::new();
        lay_out(&value, 0, &mut text).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert!(
            text.contains("\n  \"a \\\"b\\\"\": [1,2.5],\n") && text.contains("\n    {\n      \"d\": null\n    },\n")
        );
    }
}
