//! `cargo xtask docs`: the files that a machine writes, so that they cannot say what the code does not.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::paths;

/// A file below the root of the workspace, and what it must hold.
type Page = (&'static str, fn() -> Result<String>);

const PAGES: &[Page] = &[];

/// Whether the files are written or compared.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fail when a file is not what would be written, instead of writing it
    #[arg(long)]
    check: bool,
}

/// `cargo xtask docs`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut stale = Vec::new();
    for (path, generate) in PAGES {
        let text = generate().with_context(|| format!("cannot generate {path}"))?;
        let file = paths::workspace().join(path);
        // A file that is not there differs from every text.
        if fs::read_to_string(&file).is_ok_and(|known| known == text) {
            continue;
        }
        if options.check {
            stale.push(*path);
        } else {
            fs::write(&file, text).with_context(|| format!("cannot write {path}"))?;
            println!("wrote {path}");
        }
    }
    if !stale.is_empty() {
        bail!("not what the code says: {}; run `cargo xtask docs` and commit the result", stale.join(", "));
    }
    Ok(())
}
