//! The generated tables of docs/security.md: what is said when a privilege is missing, what each mount gives that is off by
//! default, and what each kernel gives.
//!
//! A run knows one machine. It checks or replaces what is its own (the reasons, or the column of a kernel) and leaves the rest: a
//! column says itself whether CI compares it, or when it was measured.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::revision_date;
use crate::{
    paths,
    test::COMPARED_IN_CI,
    vm::kernels::{Arch, Kernel},
};

const PAGE: &str = "docs/security.md";
const REASONS: [&str; 2] = ["<!-- least-privilege:begin -->", "<!-- least-privilege:end -->"];
const MOUNTS: [&str; 2] = ["<!-- mounts:begin -->", "<!-- mounts:end -->"];
const KERNELS: [&str; 2] = ["<!-- privileges-by-kernel:begin -->", "<!-- privileges-by-kernel:end -->"];
const ADDED: &str = "nothing; ";
/// The row that says how a column is kept.
const KEPT: &str = "*how this column is kept*";
const EVERY_RUN: &str = "*compared by each run of CI (step `image-guest`)*";

/// The page, and whether it is written or compared.
pub(super) struct Page {
    pub(super) write: bool,
}

type Table = Vec<Vec<String>>;

impl Page {
    /// The tables of reasons and of mounts, from the results of this machine.
    pub(super) fn settle_machine(&self, results: &Path) -> Result<()> {
        let results = read(results)?;
        self.settle_reasons(&results)?;
        self.settle_mounts(&results)
    }

    fn settle_reasons(&self, results: &[Value]) -> Result<()> {
        let mut table = vec![row(["taken away", "`oom-watcher check` in the container", "a kill in a pod"])];
        for result in results.iter().filter(|result| !result["taken"].is_null()) {
            let taken = text(result, "taken")?;
            // What a capability more gives is the kernel's matter, and some machines have none to give.
            if taken.starts_with(ADDED) {
                continue;
            }
            table.push(match result["error"].as_str() {
                Some(error) => {
                    let ended = format!("not seen: the agent ends with status {} and the reason", result["status"]);
                    row([taken, &format!("cannot run: {error}"), &ended])
                }
                None => row([taken, "can run", &format!("reported with {}", names(result))]),
            });
        }
        self.settle(REASONS, |_| table)
    }

    fn settle_mounts(&self, results: &[Value]) -> Result<()> {
        let mut table = vec![row(["value", "what happens", "without it", "with it"])];
        for result in results.iter().filter(|result| !result["value"].is_null()) {
            let cell = |key| text(result, key);
            table.push(row([cell("value")?, cell("case")?, cell("without")?, cell("given")?]));
        }
        self.settle(MOUNTS, |_| table)
    }

    /// The column of a kernel.
    pub(super) fn settle_kernel(&self, kernel: &Kernel, results: &[Value]) -> Result<()> {
        let column = results.iter().filter_map(|result| Some((result["taken"].as_str()?.to_owned(), cell(result))));
        let column: Vec<_> = column.collect();
        ensure!(!column.is_empty(), "the guest said nothing about privileges");
        let head = format!("{} {}", kernel.key, kernel.arch);
        let kept = if in_ci(kernel) {
            EVERY_RUN.to_owned()
        } else {
            format!("*measured with the sources of {}; compared when somebody runs it*", revision_date()?)
        };
        self.settle(KERNELS, |known| {
            // A run that only compares measures nothing anew.
            let old = known.iter().find(|row| row[0] == KEPT).zip(known[0].iter().position(|one| *one == head));
            let kept = match old {
                Some((row, place)) if !self.write && !in_ci(kernel) => row[place].clone(),
                _ => kept,
            };
            let column: Vec<_> = [(KEPT.to_owned(), kept)].into_iter().chain(column).collect();
            with_column(&known, &head, &column)
        })
    }

    fn settle(&self, [begin, end]: [&str; 2], change: impl FnOnce(Table) -> Table) -> Result<()> {
        let path = paths::workspace().join(PAGE);
        let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
        let (head, rest) = page.split_once(begin).with_context(|| format!("{PAGE} has no {begin}"))?;
        let (table, tail) = rest.split_once(end).with_context(|| format!("{PAGE} has no {end}"))?;
        let wanted = format!("{head}{begin}\n\n{}\n{end}{tail}", markdown(&change(parse(table))));
        if self.write && page != wanted {
            fs::write(&path, &wanted).with_context(|| format!("cannot write {PAGE}"))?;
            println!("{PAGE} was written");
        }
        ensure!(self.write || page == wanted, "{PAGE} is not what this run says: give --write-docs and look at it");
        Ok(())
    }
}

/// Whether each run of CI compares the column of this kernel.
fn in_ci(kernel: &Kernel) -> bool {
    kernel.key == COMPARED_IN_CI && kernel.arch == Arch::Amd64
}

/// What a kill was worth.
fn cell(result: &Value) -> String {
    if !result["error"].is_null() {
        return "not seen".to_owned();
    }
    let named = names(result).contains("namespace");
    let scope = if result["scope"] == "kernel" { "read" } else { "deduced" };
    let sizes = if result["rss_error_bytes"].is_null() { "exact" } else { "bounded" };
    let breakdown = if result["breakdown"] == true { "with" } else { "no" };
    let who = if named { "named" } else { "identifiers only" };
    format!("{who}, scope {scope}, RSS {sizes}, {breakdown} breakdown")
}

fn names(result: &Value) -> String {
    let names = result["names"].as_array().map(Vec::as_slice).unwrap_or_default();
    names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// The table with this column, which replaces one of the same head, and with the rows of this column in its order.
fn with_column(known: &Table, head: &str, column: &[(String, String)]) -> Table {
    let mut heads = known.first().cloned().unwrap_or_else(|| row(["taken away"]));
    let place = heads.iter().position(|one| one == head).unwrap_or_else(|| {
        heads.push(head.to_owned());
        heads.len() - 1
    });
    let mut table = vec![heads];
    for (taken, cell) in column {
        let old = known.iter().find(|old| old.first() == Some(taken));
        let mut row = old.cloned().unwrap_or_else(|| row([taken.as_str()]));
        row.resize(table[0].len(), String::new());
        cell.clone_into(&mut row[place]);
        table.push(row);
    }
    table
}

fn parse(text: &str) -> Table {
    let lines = text.lines().filter(|line| line.starts_with("| "));
    lines.map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn markdown(table: &Table) -> String {
    let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
    let mut lines: Vec<_> = table.iter().map(line).collect();
    let rule = format!("|{}\n", "---|".repeat(table.first().map_or(0, Vec::len)));
    lines.insert(1.min(lines.len()), rule);
    lines.concat()
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect()
}

fn read(file: &Path) -> Result<Vec<Value>> {
    let lines = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let results: Result<Vec<Value>, _> = lines.lines().map(serde_json::from_str).collect();
    let results = results.with_context(|| format!("cannot understand {}", file.display()))?;
    ensure!(!results.is_empty(), "{} is empty", file.display());
    Ok(results)
}

fn text<'a>(result: &'a Value, key: &str) -> Result<&'a str> {
    result[key].as_str().with_context(|| format!("a result without {key:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(cells: &[(&str, &str)]) -> Vec<(String, String)> {
        cells.iter().map(|(taken, cell)| ((*taken).to_owned(), (*cell).to_owned())).collect()
    }

    #[test]
    fn a_column_is_added_and_replaced_and_the_others_stay() {
        let one = with_column(&Vec::new(), "6.1", &column(&[("nothing", "a"), ("both", "b")]));
        let two = with_column(&one, "6.12", &column(&[("nothing", "c"), ("both", "d")]));
        let three = with_column(&parse(&markdown(&two)), "6.1", &column(&[("nothing", "e"), ("both", "f")]));
        assert_eq!(three, [row(["taken away", "6.1", "6.12"]), row(["nothing", "e", "c"]), row(["both", "f", "d"])]);
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let table = vec![row(["taken away", "6.1"]), row(["a | b", "x"])];
        assert_eq!(markdown(&table), "| taken away | 6.1 |\n|---|---|\n| a \\| b | x |\n");
    }

    #[test]
    fn the_tables_of_the_page_are_in_this_form() {
        let page = fs::read_to_string(paths::workspace().join(PAGE)).unwrap();
        for [begin, end] in [REASONS, MOUNTS, KERNELS] {
            let (_, rest) = page.split_once(begin).unwrap();
            let (table, _) = rest.split_once(end).unwrap();
            assert_eq!(table, format!("\n\n{}\n", markdown(&parse(table))));
        }
    }

    #[test]
    fn each_column_says_how_it_is_kept_and_only_one_that_ci_compares_it() {
        let page = fs::read_to_string(paths::workspace().join(PAGE)).unwrap();
        let (_, rest) = page.split_once(KERNELS[0]).unwrap();
        let table = parse(rest.split_once(KERNELS[1]).unwrap().0);
        let kept = table.iter().find(|row| row[0] == KEPT).unwrap();
        for (head, kept) in table[0].iter().zip(kept).skip(1) {
            if *head == format!("{COMPARED_IN_CI} amd64") {
                assert_eq!(kept, EVERY_RUN);
            } else {
                assert!(kept.starts_with("*measured with the sources of 20"), "{head}: {kept}");
            }
        }
        assert!(table[0].contains(&format!("{COMPARED_IN_CI} amd64")));
    }

    #[test]
    fn a_cell_says_what_is_missing() {
        let full = serde_json::json!({"error": null, "names": ["namespace"], "scope": "kernel", "rss_error_bytes": null, "breakdown": true});
        assert_eq!(cell(&full), "named, scope read, RSS exact, with breakdown");
        let less = serde_json::json!({"error": null, "names": ["pod_uid"], "scope": "deduced", "rss_error_bytes": 1, "breakdown": false});
        assert_eq!(cell(&less), "identifiers only, scope deduced, RSS bounded, no breakdown");
        assert_eq!(cell(&serde_json::json!({"error": "refused"})), "not seen");
    }
}
