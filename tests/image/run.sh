#!/bin/sh
# Proves the image of `cargo xtask image`: `run.sh [--write-docs] [pytest arguments]`. Needs root, runc and crun; Python and Helm's SDK
# come from the chart's environment.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
exec "$here/../chart/run.sh" test --rootdir="$here" "$here" "$@"
