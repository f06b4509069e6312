#!/usr/bin/env bash
# Does PPO earn what can be earned? The reward is how near an answer's length is to a target: 1 at
# best; PPO takes 1 from it where the answer was cut. Prints, for each seed: the mean reward of the first
# step and of the last five; the mean score, which has the penalty in it, of these; the KL of the answers,
# the largest and the smallest of any step; and whether the bars are met: 90% of what can be earned, at a
# KL below 10 in every step, and no step with a negative KL. Each run's folder keeps metrics.csv,
# samples.jsonl, the log and what curves there are. Some eight minutes a seed.
#   tests/real/ppo_length.sh BUILD_FOLDER Posts.xml.gz      a Stack Exchange dump: its titles are asked
#   QUIPU_SEEDS="1 2 3"    QUIPU_STEPS=50    QUIPU_TARGET=80 (bytes)    QUIPU_WORK=FOLDER
#   QUIPU_SETS="--set device.threads=1" is added to every start
# Exit code 1: a bar is missed.
set -euo pipefail
usage="usage: tests/real/ppo_length.sh BUILD_FOLDER Posts.xml.gz"
[ $# -eq 2 ] || { echo "$usage" >&2; exit 2; }
build=$(realpath "$1")
dump=$(realpath "$2")
cd "$(dirname "$0")/../.."
. tools/common.sh
PATH=$build/bin:$PATH
steps=${QUIPU_STEPS:-50}
target=${QUIPU_TARGET:-80}
read -ra seeds <<<"${QUIPU_SEEDS:-1 2 3}"
work=${QUIPU_WORK:-$build/ppo_length}
mkdir -p "$work"
work=$(realpath "$work")

[ -f "$work/base.h5" ] || quipu-import "$QUIPU_REAL/SmolLM2-135M-Instruct.Q4_1.gguf" "$work/base.h5"
if [ ! "$work/data-prompt-train.h5" -nt "$work/base.h5" ]; then
    python3 tests/real/short_prompts.py "$dump" >"$work/prompts.jsonl"
    quipu-prep jsonl "$work/prompts.jsonl" --base "$work/base.h5" --out "$work/data" --kinds prompt \
        --eval-fraction 0
fi
command="[ \"python3\", \"$PWD/tests/real/length_reward.py\", \"$target\" ]"
for seed in "${seeds[@]}"; do
    # shellcheck disable=SC2086  # a list of arguments
    quipu --set "job.name=seed-$seed" --set "job.seed=$seed" --set "job.output=$work/runs" \
        --set "base.file=$work/base.h5" --set "data.train=$work/data-prompt-train.h5" \
        --set "optim.steps=$steps" --set "reward_model.command=$command" ${QUIPU_SETS:-} \
        tests/real/ppo_length.cfg </dev/null
done

missed=0
echo "seed  reward: first    last  of what can be earned  score: first    last  KL: last  largest  smallest  stopped  s a step"
for seed in "${seeds[@]}"; do
    awk -F, -v seed="$seed" '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        {
            n++
            reward[n] = $at["env/reward_mean"]; score[n] = $at["ppo/mean_scores"]; kl[n] = $at["objective/kl"]
            stopped[n] = $at["rollout/stopped"]; seconds += $at["time/ppo/total"]
            if (n == 1 || kl[n] > largest) largest = kl[n]
            if (n == 1 || kl[n] < smallest) smallest = kl[n]
        }
        END {
            for (i = n > 5 ? n - 4 : 1; i <= n; i++) { m++; r += reward[i]; c += score[i]; k += kl[i]; s += stopped[i] }
            printf "%4d %14.3f %7.3f %21.1f%% %14.3f %7.3f %9.2f %8.2f %9.3f %7.0f%% %9.1f  %s\n",
                   seed, reward[1], r / m, 100 * r / m, score[1], c / m, k / m, largest, smallest, 100 * s / m,
                   seconds / n, (missed = r / m < 0.9 || largest >= 10 || smallest < 0) ? "MISSED" : "ok"
            exit missed
        }' "$work/runs/seed-$seed/metrics.csv" || missed=1
done
exit $missed
