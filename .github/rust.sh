#!/bin/sh
# Makes the oldest Rust that Cargo.toml allows the one in use, on a runner of either architecture: what its image has changes
# from week to week, and a release is to be built by the compiler that its tests ran with.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^rust-version = "\(.*\)"$/\1.0/p' Cargo.toml)
rustup toolchain install "$version" --profile minimal --component clippy,rustfmt --no-self-update
rustup default "$version"
