//! Results → docs/performance.md and docs/scale.md. Pure but for reading and writing: no measured figure of the pages is typed by
//! hand.
//!
//! A page is a template with marks: `<!-- name -->` on a line of its own is a table, `{{name}}` a figure. This file knows the marks;
//! what stands in their places is in its modules.

mod latency;
mod peers;
mod scale;
mod stages;
mod standing;
mod tables;
mod targets;
mod value;

use std::fs;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::paths;

/// The text of a table.
type Table = fn(&Value) -> Result<String>;
/// What stands in for marks in the prose.
type Figures = Vec<(&'static str, String)>;

/// A page, its template, and what is put into it.
struct Page {
    file: &'static str,
    template: &'static str,
    tables: &'static [(&'static str, Table)],
    figures: fn(&Value) -> Result<Figures>,
}

const PAGES: [Page; 2] = [
    Page {
        file: "docs/performance.md",
        template: include_str!("../../../benches/performance.md"),
        tables: &[
            ("machine", tables::machine),
            ("targets", targets::table),
            ("latency", latency::table),
            ("latency-plot", latency::plot),
            ("peers", peers::latency),
            ("peers-sooner", peers::sooner),
            ("peers-cost", peers::cost),
            ("peers-versions", peers::versions),
            ("kernel", latency::kernel),
            ("verified", latency::verified),
            ("memory", standing::memory),
            ("mappings", standing::by_mapping),
            ("idle", standing::idle),
            ("threads", standing::threads),
            ("start", standing::start),
            ("stages", stages::table),
            ("containers", stages::by_containers),
            ("kills", stages::by_kills),
            ("growth", tables::growth),
            ("scrape", tables::scrape),
            ("api", tables::api),
            ("sizes", tables::sizes),
        ],
        figures: tables::figures,
    },
    Page {
        file: "docs/scale.md",
        template: include_str!("../../../benches/scale.md"),
        tables: &[("rates", scale::rates), ("fleet", scale::table)],
        figures: scale::figures,
    },
];

/// Renders the pages.
pub(super) fn write(results: &Value) -> Result<()> {
    for page in &PAGES {
        let file = paths::workspace().join(page.file);
        fs::write(&file, page.render(results)?).with_context(|| format!("cannot write {}", file.display()))?;
        println!("{} is written", page.file);
    }
    Ok(())
}

impl Page {
    /// The template with its marks replaced.
    fn render(&self, results: &Value) -> Result<String> {
        let mut page = self.template.to_owned();
        for (mark, table) in self.tables {
            let text = table(results).with_context(|| format!("the results do not give {mark}"))?;
            self.replace(&mut page, &format!("<!-- {mark} -->\n"), &text)?;
        }
        for (mark, figure) in (self.figures)(results)? {
            self.replace(&mut page, &format!("{{{{{mark}}}}}"), &figure)?;
        }
        if let Some((_, rest)) = page.split_once("{{") {
            bail!("the template of {} has a mark that nothing replaces: {:.30}", self.file, rest);
        }
        Ok(page)
    }

    fn replace(&self, page: &mut String, mark: &str, text: &str) -> Result<()> {
        if !page.contains(mark) {
            bail!("the template of {} has no place for {}", self.file, mark.trim());
        }
        *page = page.replace(mark, text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results;

    #[test]
    fn the_pages_are_what_the_kept_results_give() {
        for page in &PAGES {
            let committed = fs::read_to_string(paths::workspace().join(page.file)).unwrap();
            let rendered = page.render(&results::read(&results::published()).unwrap()).unwrap();
            let file = page.file;
            assert!(
                committed == rendered,
                "{file} is not that of its template and results: cargo xtask bench --render"
            );
        }
    }

    #[test]
    fn a_mark_that_nobody_fills_and_a_figure_without_a_place_are_errors() {
        let page = |template, figures| Page { file: "a page", template, tables: &[], figures };
        let error = page("{{unknown}}", |_| Ok(vec![])).render(&Value::Null).unwrap_err().to_string();
        assert!(error.contains("unknown"), "{error}");
        let error = page("", |_| Ok(vec![("figure", String::new())])).render(&Value::Null).unwrap_err().to_string();
        assert!(error.contains("{{figure}}"), "{error}");
        assert_eq!(page("a {{b}}", |_| Ok(vec![("b", "c".to_owned())])).render(&Value::Null).unwrap(), "a c");
    }
}
