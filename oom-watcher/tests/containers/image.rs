//! The one image that every container runs: busybox, made on the spot in the form that `docker save` writes.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

/// Its name, with a domain that no registry has: it must never be asked for.
pub(crate) const NAME: &str = "oom-watcher.invalid/busybox:1";
/// Debian's busybox-static, and where guests have theirs.
const BUSYBOX: [&str; 3] = ["/usr/bin/busybox", "/bin/busybox", "/bin/busybox.static"];

/// This machine's busybox; the reason why there can be no image.
pub(crate) fn busybox() -> Result<PathBuf, String> {
    let found = BUSYBOX.iter().map(PathBuf::from).find(|path| path.exists());
    found.ok_or_else(|| "busybox is not installed (package busybox-static)".to_owned())
}

/// Makes the image in `folder`, and gives the archive.
#[track_caller]
pub(crate) fn make(folder: &Path) -> PathBuf {
    let root = folder.join("layer");
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).expect("the layer is ours");
    }
    fs::copy(busybox().expect("it was looked for before"), root.join("bin/busybox")).expect("busybox can be read");
    for applet in ["sh", "sleep", "tail", "dd"] {
        symlink("busybox", root.join("bin").join(applet)).expect("the layer is ours");
    }
    let layer = folder.join("layer.tar");
    tar(&layer, &root, &["bin", "dev", "proc", "sys", "tmp"]);
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        // What pause does: nothing, for longer than any scenario.
        "config": { "Cmd": ["/bin/sleep", "100000"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
    });
    write_json(&folder.join("config.json"), &config);
    let manifest = json!([{ "Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"] }]);
    write_json(&folder.join("manifest.json"), &manifest);
    let archive = folder.join("image.tar");
    tar(&archive, folder, &["manifest.json", "config.json", "layer.tar"]);
    archive
}

fn write_json(file: &Path, value: &serde_json::Value) {
    fs::write(file, value.to_string()).expect("the folder is ours");
}

fn tar(archive: &Path, folder: &Path, names: &[&str]) {
    let status = Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(folder).args(names).status();
    assert!(status.expect("tar is there").success(), "tar failed");
}

fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().expect("sha256sum is there");
    let text = String::from_utf8(output.stdout).expect("digits");
    text.split_whitespace().next().expect("a digest").to_owned()
}
