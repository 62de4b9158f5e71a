#!/bin/sh
# Proves the image of `cargo xtask image`: `run.sh [pytest arguments]`. Needs root, runc and crun; Python comes from the
# chart's environment.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
exec "$here/../chart/run.sh" test --rootdir="$here" "$here" "$@"
