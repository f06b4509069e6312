#!/usr/bin/env bash
# QP_TEST: labels=slow
# Some of the faults of tests/faults/run, of which hundreds are run by hand.
set -euo pipefail
if [ ! -e "$(dirname "$QUIPU_BIN")/tests/libquipu_inject.so" ]; then
    echo "a build with sanitizers takes no preloaded library"
    exit 77
fi
exec "$QUIPU_SOURCE/tests/faults/run" -n 16 --seed 4
