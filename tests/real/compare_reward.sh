#!/usr/bin/env bash
# Does a reward model rank held-out pairs as often right as one of PEFT on the same pairs? Runs both
# with several seeds on Stack Exchange dumps that quipu-prep splits by question, by the same settings;
# prints the shares with 95% confidence intervals: of the held-out pairs (binomial) and of the seeds
# (Student's t). About 35 minutes for two dumps on two cores.
#   tests/real/compare_reward.sh BUILD_FOLDER Posts.xml.gz...
#   QUIPU_SEEDS="1 2 3"    QUIPU_STEPS=32    QUIPU_LENGTH=320 (longest side)    QUIPU_LR=2.0e-4
#   QUIPU_EVAL_FRACTION=0.3 of the questions    QUIPU_DTYPE=fp32 or bf16: of the peer
#   QUIPU_WORK=FOLDER where files go; results in it are not made again
# Pairs of a question share answers: the binomial interval is rather too narrow.
set -euo pipefail
usage="usage: tests/real/compare_reward.sh BUILD_FOLDER Posts.xml.gz..."
[ $# -ge 2 ] || { echo "$usage" >&2; exit 2; }
build=$(realpath "$1")
shift
dumps=()
for dump in "$@"; do dumps+=("$(realpath "$dump")"); done
cd "$(dirname "$0")/../.."
. tools/common.sh
PATH=$build/bin:$PATH
steps=${QUIPU_STEPS:-32}
length=${QUIPU_LENGTH:-320}
lr=${QUIPU_LR:-2.0e-4}
dtype=${QUIPU_DTYPE:-fp32}
fraction=${QUIPU_EVAL_FRACTION:-0.3}
read -ra seeds <<<"${QUIPU_SEEDS:-1 2 3}"
work=${QUIPU_WORK:-$build/compare_reward}
runs=$work/steps-$steps-length-$length-lr-$lr-held-out-$fraction
mkdir -p "$runs"
work=$(realpath "$work")
runs=$(realpath "$runs")

[ -f "$work/base.h5" ] || quipu-import "$QUIPU_REAL/SmolLM2-135M-Instruct.Q4_1.gguf" "$work/base.h5"

# Last value of a column of metrics.csv.
last() { # file, column
    awk -F, -v want="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == want) c = i; next }
                          $c != "" { v = $c } END { print v }' "$1"
}

# Files RUN-quipu.result and RUN-peer.result: accuracy, pairs, loss, tokens/s, seconds.
run_both() { # dump's name, seed
    local name=$1-$2 begin pairs
    if [ ! -f "$runs/$name-quipu.result" ]; then
        begin=$(date +%s)
        quipu --set "job.name=$name" --set "job.seed=$2" --set "job.output=$runs" \
            --set "base.file=$work/base.h5" --set "data.seq_length=$length" \
            --set "data.train=$work/$1-reward-train.h5" --set "data.eval=$work/$1-reward-eval.h5" \
            --set "optim.lr=$lr" --set "optim.steps=$steps" tests/real/compare_reward.cfg </dev/null >&2
        pairs=$(sed -n 's/.*data\.eval: .* tokens, \([0-9]*\) rows$/\1/p' "$runs/$name/quipu.log" | tail -n 1)
        printf '%s\t%s\t%s\t%.0f\t%s\n' "$(last "$runs/$name/metrics.csv" eval_accuracy)" "$pairs" \
            "$(last "$runs/$name/metrics.csv" eval_loss)" \
            "$(last "$runs/$name/metrics.csv" tokens_per_second)" "$(($(date +%s) - begin))" \
            >"$runs/$name-quipu.result"
    fi
    if [ ! -f "$runs/$name-peer.result" ]; then
        "$QUIPU_PEERS/bin/python" tests/real/peer_reward.py "$runs/$name/used.cfg" --dtype "$dtype" \
            2>"$runs/$name-peer.log" >"$runs/$name-peer.part" ||
            { tail -n 5 "$runs/$name-peer.log" >&2; exit 1; }
        mv "$runs/$name-peer.part" "$runs/$name-peer.result"
    fi
}

names=()
for dump in "${dumps[@]}"; do
    name=$(basename "$dump")
    name=${name%%.*}
    names+=("$name")
    [ "$work/$name-reward-eval.h5" -nt "$work/base.h5" ] ||
        quipu-prep stackexchange "$dump" --base "$work/base.h5" --out "$work/$name" --kinds reward \
            --eval-fraction "$fraction"
    for seed in "${seeds[@]}"; do run_both "$name" "$seed"; done
done

for name in "${names[@]}"; do
    for who in quipu peer; do
        for seed in "${seeds[@]}"; do
            printf '%s\t%s\t%s\t' "$name" "$who" "$seed"
            cat "$runs/$name-$seed-$who.result"
        done
    done
done | tee "$runs/results.tsv" | awk -F'\t' '
    function half_of_pairs(p, n) { return 1.96 * sqrt(p * (1 - p) / n) }
    function half_of_seeds(k, variance) {
        split("12.706 4.303 3.182 2.776 2.571 2.447 2.365 2.306 2.262", t, " ")
        variance = (squares[k] - sum[k] ^ 2 / seeds[k]) / (seeds[k] > 1 ? seeds[k] - 1 : 1)
        return seeds[k] > 1 ? t[seeds[k] > 10 ? 9 : seeds[k] - 1] * sqrt((variance > 0 ? variance : 0) / seeds[k]) : 0
    }
    function verdict(ours, theirs, n) {
        return (ours >= theirs) ? "at or above" : \
               (ours >= theirs - half_of_pairs(theirs, n)) ? "below, within the interval" : "BELOW"
    }
    function row(what, who, p, n, seed_half, loss, speed, seconds) {
        printf "%-16s %-6s %7.1f%% +- %4.1f (%d pairs) +- %4.1f (seeds)  loss %.4f  %4.0f tokens/s  %4.0f s a run\n",
               what, who, 100 * p, 100 * half_of_pairs(p, n), n, 100 * seed_half, loss, speed, seconds
    }
    {
        k = $1 SUBSEP $2
        if (!($1 in n)) dump[++n_dump] = $1
        if (($1 in n) && n[$1] != $5) { print "held-out pairs differ: " $1 > "/dev/stderr"; exit bad = 1 }
        n[$1] = $5; seeds[k]++; sum[k] += $4; squares[k] += $4 ^ 2
        loss[k] += $6; speed[k] += $7; seconds[k] += $8
    }
    END {
        if (bad) exit 1
        for (i = 1; i <= n_dump; i++) {
            d = dump[i]
            for (j = 1; j <= 2; j++) {
                who = j == 1 ? "quipu" : "peer"; k = d SUBSEP who; m = seeds[k]
                mean[j] = sum[k] / m; right[j] += mean[j] * n[d]
                row(d, who, mean[j], n[d], half_of_seeds(k), loss[k] / m, speed[k] / m, seconds[k] / m)
            }
            all += n[d]
            printf "%-16s Quipu minus peer %+.1f%%: %s\n", d, 100 * (mean[1] - mean[2]),
                   verdict(mean[1], mean[2], n[d])
        }
        for (j = 1; j <= 2; j++) mean[j] = right[j] / all
        printf "all %d pairs: quipu %.1f%%, peer %.1f%%, +- %.1f: %s\n", all, 100 * mean[1], 100 * mean[2],
               100 * half_of_pairs(mean[2], all), verdict(mean[1], mean[2], all)
    }'
