#!/bin/sh
# Checks the workflows, that the checks see what they are there for, and the shell in the workflows and elsewhere; then runs the
# hooks of pre-commit as a user does. The environment is made once (needs PyPI).
set -eu
cd "$(dirname "$0")/.."
venv=${CARGO_TARGET_DIR:-target}/workflow-venv
wanted=$(cksum <.github/requirements.txt)
if [ "$(cat "$venv/requirements.cksum" 2>/dev/null)" != "$wanted" ]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement .github/requirements.txt
    printf '%s\n' "$wanted" >"$venv/requirements.cksum"
fi
./.github/check-workflows.sh "$venv/bin" .github/workflows/*.yml
"$venv/bin/check-jsonschema" --builtin-schema vendor.dependabot .github/dependabot.yml
"$venv/bin/jactionlint" --no-online --strict-exit .github/dependabot.yml
"$venv/bin/zizmor" --offline --quiet .github
runs=$venv/runs
rm -rf "$runs"
mkdir "$runs"
"$venv/bin/python" .github/runs.py "$runs" .github/workflows/*.yml
git ls-files -z '*.sh' .ci/run | xargs -0 "$venv/bin/shellcheck" "$runs"/*.sh
PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" .github/test_workflows.py
PRE_COMMIT_HOME=$venv/pre-commit "$venv/bin/pre-commit" run --all-files
