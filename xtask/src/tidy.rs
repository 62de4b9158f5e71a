//! `cargo xtask tidy`: the rules of the house that no other tool holds, or not in the kernel program, which clippy does not see.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::paths;

const FILE_LINES: usize = 450;
const FUNCTION_LINES: usize = 70;
/// A safety argument may be longer than a line, and one may cover an `unsafe` inside a statement of a few lines.
const SAFETY_LINES: usize = 8;
/// Written in two parts, so that this file does not hold them.
const NOTES: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// Checks every Rust file of the repository.
pub(crate) fn run() -> Result<()> {
    let mut files = Vec::new();
    collect(paths::workspace(), &mut files)?;
    files.sort();
    let mut faults = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(paths::workspace()).unwrap_or(file).display();
        faults.extend(
            check(&text, is_test_file(file)).into_iter().map(|(line, fault)| format!("{name}:{line}: {fault}")),
        );
    }
    if !faults.is_empty() {
        bail!("{} faults\n{}", faults.len(), faults.join("\n"));
    }
    println!("{} files are tidy", files.len());
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_symlink() || hidden || path.ends_with("target") {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn is_test_file(file: &Path) -> bool {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    name == "tests" || name.ends_with("_tests") || file.components().any(|part| part.as_os_str() == "tests")
}

/// The faults of one file with their lines.
fn check(text: &str, is_test: bool) -> Vec<(usize, String)> {
    let lines: Vec<_> = text.lines().collect();
    let code = if is_test { 0 } else { lines.iter().position(|line| *line == "#[cfg(test)]").unwrap_or(lines.len()) };
    let mut faults = Vec::new();
    // The tests of a file say what they own by their name.
    if !is_test && !lines.first().is_some_and(|line| line.starts_with("//!")) {
        faults.push((1, "the file does not begin with what it owns (`//!`)".to_owned()));
    }
    if code > FILE_LINES {
        faults.push((code, format!("the file has {code} lines before its tests, of {FILE_LINES}: split it")));
    }
    let mut fenced = false;
    for (index, line) in lines.iter().enumerate() {
        let fault = |text: String| (index + 1, text);
        if let Some(language) = fence(line) {
            fenced = !fenced;
            if fenced && (language.is_empty() || language.starts_with("rust")) {
                faults.push(fault(
                    "an example of Rust in the documentation, which is not run (`doctest = false`)".to_owned(),
                ));
            }
        }
        if let Some(note) = NOTES.into_iter().find(|note| line.contains(note)) {
            faults.push(fault(format!("{note}: do it, or write an issue")));
        }
        if needs_safety(line) && !has_safety(&lines[index.saturating_sub(SAFETY_LINES)..=index]) {
            faults.push(fault("`unsafe` without a `SAFETY:` argument".to_owned()));
        }
        let length = function_length(&lines[index..]);
        if length > FUNCTION_LINES {
            faults.push(fault(format!("the function has {length} lines, of {FUNCTION_LINES}")));
        }
    }
    faults
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// What stands behind the fence of a block in a doc comment.
fn fence(line: &str) -> Option<&str> {
    let text = line.trim_start();
    text.strip_prefix("///").or_else(|| text.strip_prefix("//!"))?.trim_start().strip_prefix("```")
}

fn needs_safety(line: &str) -> bool {
    !is_comment(line) && [concat!("unsafe", " {"), concat!("unsafe", " impl")].iter().any(|word| line.contains(word))
}

fn has_safety(lines: &[&str]) -> bool {
    lines.iter().any(|line| line.contains("SAFETY:"))
}

/// Lines of the function that the first line begins, to the brace at its own indent; 0 when it begins none.
fn function_length(lines: &[&str]) -> usize {
    let first = lines[0];
    let words = first.trim_start();
    let indent = &first[..first.len() - words.len()];
    let is_function = words.split(['(', '<']).next().is_some_and(|head| head.split(' ').rev().nth(1) == Some("fn"));
    if !is_function || is_comment(first) {
        return 0;
    }
    if first.ends_with('}') {
        return 1;
    }
    let end = lines.iter().position(|line| {
        let closes = line.strip_prefix(indent).is_some_and(|rest| rest == "}" || rest.starts_with("} //"));
        closes || line.starts_with(indent) && line.ends_with(';') && line.trim_start() == &line[indent.len()..]
    });
    end.map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_faults(text: &str, expected: &[(usize, &str)]) {
        let faults = check(text, false);
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        for ((line, fault), (expected_line, word)) in faults.iter().zip(expected) {
            assert!(line == expected_line && fault.contains(word), "{faults:?}");
        }
    }

    fn function(lines: usize) -> String {
        format!("//! A file.\npub fn long(\n{}}}\n", "    let a = 1;\n".repeat(lines - 2))
    }

    #[test]
    fn a_tidy_file_has_no_faults() {
        assert_faults("//! A file.\nfn main() {\n    let a = 1;\n}\n#[cfg(test)]\nmod tests { a.unwrap() }\n", &[]);
    }

    #[test]
    fn the_purpose_of_a_file_comes_first() {
        assert_faults("use std::fs;\n", &[(1, "`//!`")]);
        assert_faults("", &[(1, "`//!`")]);
        assert_eq!(check("use super::*;\n", true), []);
    }

    #[test]
    fn limits_are_where_they_are_said_to_be() {
        assert_faults(&function(FUNCTION_LINES), &[]);
        assert_faults(&function(FUNCTION_LINES + 1), &[(2, "71 lines")]);
        let file = |lines| format!("//! A file.\n{}#[cfg(test)]\n{}", "//\n".repeat(lines - 1), "//\n".repeat(500));
        assert_faults(&file(FILE_LINES), &[]);
        assert_faults(&file(FILE_LINES + 1), &[(451, "split it")]);
    }

    #[test]
    fn a_declaration_without_body_is_not_a_long_function() {
        let text = format!("//! A trait.\ntrait A {{\n    fn a(&self);\n{}}}\n", "    // more\n".repeat(100));
        assert_faults(&text, &[]);
    }

    #[test]
    fn unsafe_is_argued() {
        let block = concat!("unsafe", " { a() }");
        assert_faults(&format!("//! A file.\n{block}\n"), &[(2, "SAFETY")]);
        assert_faults(&format!("//! A file.\n// SAFETY: `a` has no precondition.\n{block}\n"), &[]);
    }

    #[test]
    fn examples_that_nobody_runs_are_faults() {
        assert_faults("//! A file.\n//! ```text\n//! a\n//! ```\n", &[]);
        for fence in ["```", "```rust", "```rust,no_run"] {
            assert_faults(&format!("//! A file.\n/// {fence}\n/// a();\n/// ```\n"), &[(2, "not run")]);
        }
    }

    #[test]
    fn notes_to_oneself_are_faults() {
        assert_faults(&format!("//! A file.\n// {}: more\n", NOTES[0]), &[(2, NOTES[0])]);
    }
}
