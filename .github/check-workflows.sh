#!/bin/sh
# Checks workflows, given as files: `check-workflows.sh BIN FILE…`, with the environment's programs in the folder BIN. GitHub's own
# schema; names that are not there (a job, a key of a matrix, an output, a property of `github`); what makes them unsafe; and the
# rules of this project. All of them run, so that all faults are said at once.
set -u
bin=$1
here=$(dirname "$0")
shift
passed=true
"$bin/check-jsonschema" --builtin-schema vendor.github-workflows "$@" || passed=false
# The shell in them is looked at later, all of it at once.
"$bin/jactionlint" --no-online --strict-exit --shellcheck= "$@" || passed=false
"$bin/zizmor" --offline --quiet "$@" || passed=false
"$bin/python" "$here/rules.py" "$@" || passed=false
$passed
