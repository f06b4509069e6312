#!/usr/bin/env bash
# Memory: a random 7B base trains on rows of 512 tokens, one a rank; SmolLM2 as in train.sh. Peaks are
# sums of PSS over the ranks, which count shared pages once, the base among them. See tests/bench/run.
set -euo pipefail
# shellcheck source=tests/bench/common.sh
. "$(dirname "$0")/common.sh"
shape=${QUIPU_SHAPE:-7b}
recompute=${QUIPU_RECOMPUTE:-auto}
steps=2
make_base
make_training train "$base"
make_random_base "$shape"
make_training random "$random"

# One training -> $peak, and $plan that --dry-run prints, in MB.
watch_training() { # ranks, deck, quipu arguments...
    local ranks=$1 deck=$work/$2.cfg
    shift 2
    on_ranks "$ranks" quipu --dry-run "$@" "$deck" >"$work/dry.log" 2>&1 || quit "$(reason "$work/dry.log")"
    plan=$(sed -n 's/.* together *\([0-9.]*\) MB.*/\1/p' "$work/dry.log")
    rm -rf "$work/runs"
    python3 tests/bench/watch.py "$work/memory.log" mpirun -n "$ranks" --oversubscribe --bind-to none \
        quipu "$@" "$deck" >"$work/peak" || quit "$(reason "$work/memory.log")"
    peak=$(cut -f 1 "$work/peak")
}

billions=$(quipu-inspect "$random" | python3 tests/bench/material.py parameters | awk '{ print $1 / 1e9 }')
row() { # name, per billion parameters [bar], added per billion [bar]
    printf '%s\t%s\t%s\t%s\t%s (bar: 0.90 to 1.10)\n' "$1" "$(calc "$peak / 1000")" "${2:-}" "${3:-}" \
        "$(calc "$plan / $peak")"
}
{
    size=(--set "device.recompute=$recompute" --set data.seq_length=512 --set batch.micro_sequences=1)
    watch_training 1 random "${size[@]}" --set batch.global_sequences=1
    one=$peak
    row "$shape, 1 rank, 1 x 512 tokens, recompute $recompute" "$(calc "$peak / 1000 / $billions") (bar: 1.2)"
    watch_training 2 random "${size[@]}" --set batch.global_sequences=2
    row "$shape, 2 ranks, 1 x 512 tokens each, recompute $recompute" "$(calc "$peak / 1000 / $billions")" \
        "$(calc "($peak - $one) / 1000 / $billions") (bar: 0.2)"
    watch_training 1 train
    row "SmolLM2-135M, 1 rank, 4 x 1024 tokens"
} >"$work/rows"
table "Memory, int8 base, LoRA r 16 on q and v" "" "peak, GB" "GB per billion parameters" \
    "GB the second rank adds, per billion" "plan / peak" <"$work/rows"
