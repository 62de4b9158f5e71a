#!/bin/sh
# Runs the chart's tooling in a virtual environment of its own: `run.sh [test|render|readme|golden|metrics|live|proof] …`; without
# arguments, the tests. The environment is made once (needs PyPI) and then used offline.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
venv=${OOM_WATCHER_CHART_VENV:-${CARGO_TARGET_DIR:-$here/../../target}/chart-venv}
wanted=$(cksum <"$here/requirements.txt")

if [ "$(cat "$venv/requirements.cksum" 2>/dev/null)" != "$wanted" ]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$here/requirements.txt"
    printf '%s\n' "$wanted" >"$venv/requirements.cksum"
fi

cd "$here"
PYTHONDONTWRITEBYTECODE=1 exec "$venv/bin/python" -m charttool "$@"
