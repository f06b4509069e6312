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
all=$(awk -v RS=, -F- '{ for (i = $1; i <= ($2 == "" ? $1 : $2); i++) printf "%s%d", n++ ? "," : "", i }' <<<"$cores")
first=${all%%,*}
: >"$work/overlap"

train_on() { # name, threads, launcher...
    local name=$1 threads=$2
    shift 2
    rm -rf "$work/runs/train"
    "$@" quipu --set data.seq_length=512 --set batch.global_sequences=8 --set "device.threads=$threads" \
        "$work/train.cfg" >"$work/scaling.log" 2>&1 </dev/null || quit "$(reason "$work/scaling.log")"
    printf '%s\t%s\n' "$name" "$(best train tokens_per_second)"
}

# The same rows for each core, by two runs that know nothing of each other, and by the two ranks of one:
# what ranks wait for each other does not hide behind backward.
apart_and_together() {
    local rank core pids=()
    for rank in 0 1; do
        rm -rf "$work/runs/apart$rank"
        core=$(cut -d, -f$((rank + 1)) <<<"$all")
        taskset -c "$core" mpirun -n 1 --bind-to none quipu --set data.seq_length=512 --set batch.global_sequences=8 \
            --set device.threads=1 --set "job.name=apart$rank" "$work/train.cfg" >"$work/apart$rank.log" 2>&1 </dev/null &
        pids+=($!)
    done
    wait "${pids[@]}" || quit "$(reason "$work/apart0.log")"
    rm -rf "$work/runs/train"
    on_ranks 2 quipu --set data.seq_length=512 --set batch.global_sequences=16 --set device.threads=1 \
        "$work/train.cfg" >"$work/scaling.log" 2>&1 </dev/null || quit "$(reason "$work/scaling.log")"
    printf '%s\t%s\t%s\n' "$(best apart0 tokens_per_second)" "$(best apart1 tokens_per_second)" \
        "$(best train tokens_per_second)"
}

# In turns, so that what else the machine does meets all alike.
for ((i = 1; i <= repeat; i++)); do
    train_on "1 core" 1 taskset -c "$first" mpirun -n 1 --bind-to none
    train_on "2 ranks x 1 thread" 1 on_ranks 2
    train_on "1 rank x 2 threads" 2 on_ranks 1
    apart_and_together >>"$work/overlap"
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
awk -F'\t' '
    { apart = $1 < $2 ? $1 : $2; if (apart > a) a = apart; if ($3 > b) b = $3 }
    END {
        printf "two runs of a rank, at the same time\t%.2f\t\n", 4096 / a
        printf "one run of two ranks, twice the rows\t%.2f\t%.3f (bar: 1.05)\n", 8192 / b, 2 * a / b
    }' "$work/overlap" |
    table "Two cores, 8 rows of 512 tokens for each" "" "s a step" "times as long"
