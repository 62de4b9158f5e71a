#!/bin/sh
# Installs what developing and testing oom-watcher needs beyond stable Rust, and says what it does. Safe to run again.
set -eu
cd "$(dirname "$0")/.."
command -v cargo >/dev/null || { echo "cargo is not on the search path: install Rust from https://rustup.rs" >&2; exit 1; }
cargo xtask deps
cargo xtask toolchain
