#!/usr/bin/env bash
# QP_TEST: labels=slow
# The programs of a build without QUIPU_NATIVE run on any CPU of x86-64-v3, whatever that of the building machine
# has: a step of training on an emulated Haswell, which knows nothing newer than AVX2, gives the loss that it
# gives here. Skips without qemu-user, on other machines, and for a build that is for this CPU alone.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/../train/e2e.sh"
emulator=(qemu-x86_64 -cpu Haswell)
[ "$(uname -m)" = x86_64 ] && command -v qemu-x86_64 >/dev/null || exit 77
if grep -q '^QUIPU_NATIVE:BOOL=ON' "${QUIPU_BIN%/bin}/CMakeCache.txt"; then exit 77; fi

on_haswell() { # PROGRAM ARGUMENTS...
    code=0
    "${emulator[@]}" "$QUIPU_BIN/$1" "${@:2}" >log 2>&1 || code=$?
}
on_haswell quipu-import --synthetic tiny base.h5
check "a base is made" test "$code" -eq 0
make_data data
make_deck
sed -i '/^data/s/eval = [^;]*; //' deck.cfg
small=(--set optim.steps=1 --set optim.warmup_steps=0 --set batch.global_sequences=1 --set data.seq_length=32)
quipu_on 1 here "${small[@]}"
check "a step here" test "$code" -eq 0
on_haswell quipu --set job.name=haswell "${small[@]}" deck.cfg
check "a step on a Haswell" test "$code" -eq 0
loss() { awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "loss") c = i } $1 == 1 { print $c }' "runs/$1/metrics.csv"; }
check "with the same loss" awk -v a="$(loss haswell)" -v b="$(loss here)" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 < (1e-3 * b) ^ 2) }'
end_test
