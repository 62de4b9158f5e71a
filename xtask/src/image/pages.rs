//! What agents in a guest showed on `/metrics`, and the copies of it on which alerts and dashboard are tested.
//!
//! Values, addresses and hooks are those of one run and one kernel. What a copy must share with every run is the rest: which families
//! there are, of which type, with which help, and by which labels their series are.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::paths;

const FOLDER: &str = "tests/chart/fixtures";

/// Keeps the pages among the results, each by its name, or compares them with those that are kept.
pub(super) fn settle(results: &[Value], write: bool) -> Result<()> {
    let pages: Vec<_> =
        results.iter().filter_map(|result| result["page"].as_str().zip(result["text"].as_str())).collect();
    ensure!(!write || !pages.is_empty(), "the guest kept no page");
    let mut stale = Vec::new();
    for (name, text) in pages {
        let place = format!("{FOLDER}/agent-{name}.txt");
        let file = paths::workspace().join(&place);
        if write {
            fs::write(&file, text).with_context(|| format!("cannot write {place}"))?;
            println!("{place} was written");
        } else {
            let kept = fs::read_to_string(&file).with_context(|| format!("cannot read {place}"))?;
            stale.extend(difference(&kept, text).map(|line| format!("{place} {line}\n  {}", refresh(name))));
        }
    }
    ensure!(stale.is_empty(), "alerts and dashboard are tested on a page that no agent shows:\n{}", stale.join("\n"));
    Ok(())
}

/// The command that writes a page anew. An agent in trouble lacks hooks as well, which that architecture brings about.
fn refresh(name: &str) -> &'static str {
    if name.starts_with("trouble") {
        "cargo xtask image --arch arm64 --guest 6.1 --filter trouble --write-pages"
    } else {
        "cargo xtask image --guest 6.1 --filter pages --write-pages"
    }
}

/// The first line in which a kept page differs from a fresh one, but for values, and for what its kernel does not give: a family may
/// be without series.
fn difference(kept: &str, fresh: &str) -> Option<String> {
    let (kept, fresh) = (shape(kept), shape(fresh));
    let lacks = fresh.difference(&kept).next().map(|line| format!("lacks what an agent shows: {line}"));
    let mut further = kept.difference(&fresh).filter(|line| line.starts_with('#'));
    lacks.or_else(|| further.next().map(|line| format!("has what no agent shows: {line}")))
}

/// The lines that declare families, and of each series the name with the names of its labels.
fn shape(page: &str) -> BTreeSet<String> {
    page.lines().map(|line| if line.starts_with('#') { line.to_owned() } else { without_values(line) }).collect()
}

fn without_values(series: &str) -> String {
    let mut shape = String::new();
    let mut quoted = false;
    let mut escaped = false;
    for character in series.chars() {
        if quoted {
            quoted = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if character == ' ' {
            break;
        } else if character == '"' {
            quoted = true;
        } else {
            shape.push(character);
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "# HELP oom_kills Killed.\n# TYPE oom_kills counter\noom_kills_total{node=\"n\",pod=\"a \\\"}\"} 1\n# EOF\n";

    #[test]
    fn values_and_the_number_of_series_are_no_difference() {
        let fresh = PAGE.replace(" 1\n", " 7\noom_kills_total{node=\"m\",pod=\"\"} 2\n");
        assert_eq!(difference(PAGE, &fresh), None);
        let none = PAGE.replace("oom_kills_total{node=\"n\",pod=\"a \\\"}\"} 1\n", "");
        assert_eq!((none.lines().count(), difference(PAGE, &none)), (3, None));
    }

    #[test]
    fn help_type_labels_and_families_are() {
        for (from, to, told) in [
            ("Killed.", "Ended.", "lacks what an agent shows: # HELP oom_kills Ended."),
            ("counter", "gauge", "lacks what an agent shows: # TYPE oom_kills gauge"),
            ("pod=", "name=", "lacks what an agent shows: oom_kills_total{node=,name=}"),
            ("# EOF", "# HELP more More.\n# EOF", "lacks what an agent shows: # HELP more More."),
        ] {
            assert_eq!(difference(PAGE, &PAGE.replace(from, to)).as_deref(), Some(told));
        }
        let less = PAGE.replace("# TYPE oom_kills counter\n", "");
        assert_eq!(difference(PAGE, &less).as_deref(), Some("has what no agent shows: # TYPE oom_kills counter"));
    }

    #[test]
    fn a_fresh_page_is_compared_with_the_kept_one() {
        let kept = fs::read_to_string(paths::workspace().join(FOLDER).join("agent-after.txt")).unwrap();
        let result = |text: &str| vec![serde_json::json!({"page": "after", "text": text})];
        settle(&result(&kept), false).unwrap();
        settle(&[], false).unwrap();
        let error = settle(&result(&kept.replace("Processes that", "Whom")), false).unwrap_err().to_string();
        assert!(error.contains("agent-after.txt lacks what an agent shows: # HELP"), "{error}");
        assert!(error.ends_with("cargo xtask image --guest 6.1 --filter pages --write-pages"), "{error}");
    }
}
