#!/bin/sh
# Builds and tests everything; sets the machine up first where something is missing.
#   --quick   only what needs neither root nor guests
set -eu
cd "$(dirname "$0")/.."
case "${1-}" in
--quick) ;;
*) ./scripts/setup-dev.sh || echo "the set-up is incomplete; the summary says what could not run" >&2 ;;
esac
exec cargo xtask test "$@"
