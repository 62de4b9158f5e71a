//! `cargo xtask chart`: the chart's own tooling (`tests/chart/run.sh`), which tests it and writes what is generated from it.

use std::process::Command;

use anyhow::Result;

use crate::{paths, process};

/// What is written, or compared; without it the tests run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write files that are generated from the chart, instead of testing it
    #[arg(value_enum)]
    generated: Option<Generated>,
    /// Fail when a file is not what would be written, instead of writing it
    #[arg(long, requires = "generated")]
    check: bool,
}

/// What run.sh writes, by its own words.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Generated {
    /// The manifests for kubectl, k8s/*.yaml
    Render,
    /// The tables of values in the chart's README
    Readme,
    /// The golden renderings that the tests compare
    Golden,
}

impl Options {
    fn words(&self) -> Vec<&'static str> {
        let word = match self.generated {
            None => return Vec::new(),
            Some(Generated::Render) => "render",
            Some(Generated::Readme) => "readme",
            Some(Generated::Golden) => "golden",
        };
        if self.check { vec![word, "--check"] } else { vec![word] }
    }
}

/// Runs it; its environment is made at the first run, which needs `PyPI`.
pub(crate) fn run(options: &Options) -> Result<()> {
    process::run(Command::new(paths::workspace().join("tests/chart/run.sh")).args(options.words()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn words(line: &[&str]) -> Option<Vec<&'static str>> {
        Line::try_parse_from([&["chart"], line].concat()).ok().map(|line| line.options.words())
    }

    #[test]
    fn what_is_written_is_said_in_the_words_of_the_script() {
        assert_eq!(words(&[]), Some(Vec::new()));
        for word in ["render", "readme", "golden"] {
            assert_eq!(words(&[word]), Some(vec![word]));
            assert_eq!(words(&[word, "--check"]), Some(vec![word, "--check"]));
        }
        assert_eq!(words(&["metrics"]), None);
        assert_eq!(words(&["--check"]), None);
    }
}
