#!/usr/bin/env bash
# The same training on one core and on two, as two ranks of a thread and as one rank of two threads:
# 8 rows of 512 tokens a step. See tests/bench/run.
set -euo pipefail
# shellcheck source=tests/bench/common.sh
. "$(dirname "$0")/common.sh"
make_base
make_training train "$base"
cores=$(taskset -cp $$ | sed 's/.*: //')
[ "$(nproc)" -ge 2 ] || quit "two cores are wanted"
first=${cores%%[-,]*}

train_on() { # name, threads, launcher...
    local name=$1 threads=$2
    shift 2
    rm -rf "$work/runs/train"
    "$@" quipu --set data.seq_length=512 --set batch.global_sequences=8 --set "device.threads=$threads" \
        "$work/train.cfg" >"$work/scaling.log" 2>&1 </dev/null || quit "$(reason "$work/scaling.log")"
    printf '%s\t%s\n' "$name" "$(best train tokens_per_second)"
}

# In turns, so that what else the machine does meets all alike.
for ((i = 1; i <= repeat; i++)); do
    train_on "1 core" 1 taskset -c "$first" mpirun -n 1 --bind-to none
    train_on "2 ranks x 1 thread" 1 on_ranks 2
    train_on "1 rank x 2 threads" 2 on_ranks 1
done >"$work/rows"
awk -F'\t' '
    { if (!($1 in best)) name[++n] = $1; if ($2 > best[$1]) best[$1] = $2 }
    END {
        for (i = 1; i <= n; i++)
            printf "%s\t%.0f\t%s\t%s\n", name[i], best[name[i]],
                   i == 1 ? "" : sprintf("%.2f (bar: 1.80)", best[name[i]] / best[name[1]]),
                   i < 3 ? "" : sprintf("%.2f (bar: 0.90 to 1.10)", best[name[3]] / best[name[2]])
    }' "$work/rows" |
    table "Two cores, SmolLM2-135M, 8 rows of 512 tokens" "" "tokens/s" "times one core" "threads / ranks"
