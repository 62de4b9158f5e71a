//! `docs/kernel-support.md` from what the guests said: kernel × hook, field and scenario.
//!
//! One complete run of `cargo xtask vm --all` is kept as a small file beside the page, so that the page can be checked
//! without guests: that it says what the results say, and that the results are those of the suite as it is.

mod guest;
mod page;

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use self::guest::Guest;
use crate::{paths, vm};

const PAGE: &str = "docs/kernel-support.md";
/// The results, a line of JSON for each guest.
const DATA: &str = "docs/kernel-support.jsonl";
/// Where the suite's scenarios are listed.
const SUITE: &str = "oom-watcher/tests/kernel";
/// What a verifier may take more than it is kept to have taken: another build of the same kernel moves it a little.
const GROWTH_PERCENT: u64 = 5;

/// Whether the files are written or compared.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fail when the page is not what the kept results give, or these are not of this suite, instead of writing anything
    #[arg(long)]
    check: bool,
    /// Write the page from the results that are kept, without new ones
    #[arg(long, conflicts_with = "check")]
    page: bool,
}

/// `cargo xtask kernel-support`.
pub(crate) fn run(options: &Options) -> Result<()> {
    match options {
        Options { check: true, .. } => check(),
        Options { page: true, .. } => put(PAGE, &page::render(&kept()?)?),
        _ => write(),
    }
}

/// Keeps the results of the guests, and writes the page.
fn write() -> Result<()> {
    let mut guests = Vec::new();
    for name in vm::names() {
        let path = paths::target().join("vm").join(format!("{name}.jsonl"));
        let read = || format!("{name} has left no results in {}: run `cargo xtask vm --all` first", path.display());
        let text = fs::read_to_string(&path).with_context(read)?;
        guests.push(Guest::summarize(&name, &text).with_context(|| format!("cannot understand {}", path.display()))?);
    }
    guests.sort_by_key(Guest::order);
    complete(&guests, &suite()?)?;
    let data: String = guests.iter().flat_map(|guest| [guest.0.to_string(), "\n".to_owned()]).collect();
    put(DATA, &data)?;
    put(PAGE, &page::render(&guests)?)?;
    println!("{PAGE}: {} guests", guests.len());
    Ok(())
}

fn put(file: &str, text: &str) -> Result<()> {
    let path = paths::workspace().join(file);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn read(file: &str) -> Result<String> {
    let path = paths::workspace().join(file);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The results that are kept.
fn kept() -> Result<Vec<Guest>> {
    read(DATA)?.lines().map(Guest::parse).collect::<Result<_>>().context(DATA)
}

/// Holds what a guest said of the verifier against what is kept of it: the figures, as lines to show. More than
/// [`GROWTH_PERCENT`] above is an error, and so is a figure that is not told any more.
pub(crate) fn compare(name: &str, results: &str) -> Result<Vec<String>> {
    let now = Guest::summarize(name, results)?;
    let kept = kept()?;
    let Some(kept) = kept.iter().find(|guest| guest.name() == name) else {
        return Ok(vec![format!("nothing is kept of {name}: no figure to compare with")]);
    };
    compare_guests(kept, &now)
}

fn compare_guests(kept: &Guest, now: &Guest) -> Result<Vec<String>> {
    let (mut lines, mut over) = (Vec::new(), Vec::new());
    for hook in kept.hooks() {
        let Some(before) = kept.verified(hook) else { continue };
        match now.verified(hook) {
            Some(count) if count * 100 <= before * (100 + GROWTH_PERCENT) => {
                lines.push(format!("{hook}: {count} verified instructions, kept are {before}"));
            }
            Some(count) => over.push(format!("{hook}: {count} instead of {before}")),
            None => over.push(format!("{hook}: not told, instead of {before}")),
        }
    }
    ensure!(
        over.is_empty(),
        "the verifier takes more than {GROWTH_PERCENT}% above what {DATA} has: {}; if that is what it should be, `cargo xtask \
         kernel-support` after `cargo xtask vm --all` keeps it",
        over.join(", ")
    );
    Ok(lines)
}

/// Compares the page with the kept results, and these with the suite and the list of kernels.
fn check() -> Result<()> {
    let guests = kept()?;
    let kept: BTreeSet<String> = guests.iter().map(Guest::name).collect();
    let wanted: BTreeSet<String> = vm::names().into_iter().collect();
    ensure!(kept == wanted, "{DATA} has the guests {kept:?}, but there are {wanted:?}");
    complete(&guests, &suite()?)?;
    ensure!(page::render(&guests)? == read(PAGE)?, "{PAGE} is not what {DATA} gives: run `cargo xtask kernel-support`");
    Ok(())
}

/// Every guest ran the whole suite.
fn complete(guests: &[Guest], suite: &BTreeSet<String>) -> Result<()> {
    for guest in guests {
        let ran = guest.scenarios();
        let missing: Vec<&String> = suite.difference(&ran).collect();
        let unknown: Vec<&String> = ran.difference(suite).collect();
        if !missing.is_empty() || !unknown.is_empty() {
            let name = guest.name();
            bail!(
                "{name} did not run {missing:?}, and ran {unknown:?}, which are not in the suite: run it again, whole"
            );
        }
    }
    Ok(())
}

/// The names of the suite's scenarios.
fn suite() -> Result<BTreeSet<String>> {
    let folder = paths::workspace().join(SUITE);
    let listing = || format!("cannot list {}", folder.display());
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&folder).with_context(listing)? {
        let path = entry.with_context(listing)?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(listed(&path)?);
        }
    }
    Ok(names)
}

/// The names in a file's table of scenarios.
fn listed(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let Some((_, table)) = text.split_once("SCENARIOS: &[Scenario]") else { return Ok(Vec::new()) };
    let table = table.split_once("];").map_or(table, |(table, _)| table);
    let names = table.split("name: \"").skip(1).filter_map(|rest| rest.split('"').next());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_kept_results_give() {
        check().unwrap();
    }

    #[test]
    fn the_suite_lists_its_scenarios() {
        let suite = suite().unwrap();
        assert!(suite.contains("leaf-limit") && suite.contains("the-machine-runs-out-for-another"), "{suite:?}");
        assert!(suite.iter().all(|name| !name.is_empty() && !name.contains(' ')), "{suite:?}");
    }

    #[test]
    fn a_verifier_that_takes_more_is_told_from_one_that_takes_less() {
        let guest = |counts: [Option<u64>; 2]| {
            let hooks: Vec<serde_json::Value> = ["mark_victim", "signal_generate"]
                .into_iter()
                .zip(counts)
                .map(|(hook, count)| serde_json::json!({ "hook": hook, "verified_instructions": count }))
                .collect();
            Guest::parse(&serde_json::json!({ "guest": "6.1-amd64", "hooks": hooks }).to_string()).unwrap()
        };
        let kept = guest([Some(20_000), None]);
        let lines = compare_guests(&kept, &guest([Some(21_000), Some(9)])).unwrap();
        assert_eq!(lines, ["mark_victim: 21000 verified instructions, kept are 20000"]);
        compare_guests(&kept, &guest([Some(7_000), None])).unwrap();
        for (now, expected) in [(Some(21_001), "mark_victim: 21001 instead of 20000"), (None, "mark_victim: not told")]
        {
            let error = compare_guests(&kept, &guest([now, None])).err().unwrap().to_string();
            assert!(error.contains(expected) && error.contains("cargo xtask kernel-support"), "{error}");
        }
    }

    #[test]
    fn a_guest_that_left_a_scenario_out_is_named() {
        let results = r#"{"scenario":"leaf-limit","outcome":"passed","reason":null}"#;
        let guest = Guest::summarize("6.1-amd64", results).unwrap();
        let suite = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        complete(std::slice::from_ref(&guest), &suite(&["leaf-limit"])).unwrap();
        let error = complete(std::slice::from_ref(&guest), &suite(&["leaf-limit", "swap-on"])).unwrap_err().to_string();
        assert!(error.contains("6.1-amd64") && error.contains("swap-on"), "{error}");
        let error = complete(&[guest], &suite(&[])).unwrap_err().to_string();
        assert!(error.contains("leaf-limit"), "{error}");
    }
}
