#!/bin/sh
# Checks the workflows against GitHub's own schema and for what makes them unsafe. The environment is made once (needs PyPI).
set -eu
cd "$(dirname "$0")/.."
venv=${CARGO_TARGET_DIR:-target}/workflow-venv
wanted=$(cksum <.github/requirements.txt)
if [ "$(cat "$venv/requirements.cksum" 2>/dev/null)" != "$wanted" ]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement .github/requirements.txt
    printf '%s\n' "$wanted" >"$venv/requirements.cksum"
fi
"$venv/bin/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/*.yml
"$venv/bin/check-jsonschema" --builtin-schema vendor.dependabot .github/dependabot.yml
"$venv/bin/zizmor" --offline --quiet .github
