//! buildah with a store of its own, below the build output: the machine's images are neither seen nor changed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{paths, process};

/// A store of images.
pub(super) struct Buildah {
    folder: PathBuf,
}

impl Buildah {
    /// The store in `folder`.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        paths::make(&folder.join("tmp"))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// buildah on that store.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("buildah");
        // Its caches and half-written layers are in the temporary folder.
        command.env("TMPDIR", self.folder.join("tmp"));
        command.arg("--root").arg(self.folder.join("storage")).arg("--runroot").arg(self.folder.join("run"));
        command
    }

    /// Whether the store has this image.
    pub(super) fn has(&self, image: &str) -> Result<bool> {
        Ok(!process::output(self.command().args(["images", "--quiet", "--filter", &format!("reference={image}")]))?
            .is_empty())
    }
}
