#!/usr/bin/env bash
# Memory: a random 7B base trains on rows of 512 tokens, one a rank; SmolLM2 as in train.sh. Peaks are
# sums of PSS over the ranks, which count shared pages once, the base among them. See tests/bench/run.
# Then all of PPO (policy, reference, reward adapter, value head, cache of the answers) beside SFT, at
# as many tokens a pass; these peaks are the program's own.
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

# PPO: so many new tokens, and one more for the EOS that a reward model wants.
new=64

# The program's own peak of a training, in MB.
logged_peak() { # quipu arguments...
    rm -rf "$work/runs"
    quipu "$@" >"$work/memory.log" 2>&1 </dev/null || quit "$(reason "$work/memory.log")"
    sed -n 's/.*peak memory: rank \([0-9.]*\) MB.*/\1/p' "$work/memory.log"
}

# A reward adapter of a base, of one step on one pair: $work/NAME-reward.
make_reward_adapter() { # name, base
    echo '{"prompt": "Which?", "chosen": " This one.", "rejected": " That one."}' >"$work/pair.jsonl"
    quipu-prep jsonl "$work/pair.jsonl" --base "$2" --out "$work/$1" --eval-fraction 0 \
        2>"$work/prep.log" || quit "$(reason "$work/prep.log")"
    cat >"$work/reward.cfg" <<DECK
job   = { method = "reward"; name = "reward"; restart = "never"; output = "$work/runs"; };
base  = { file = "$2"; };
lora  = { r = 8; alpha = 32.0; targets = [ "q_proj", "v_proj" ]; };
data  = { train = [ "$work/$1-reward-train.h5" ]; seq_length = 64; };
batch = { global_sequences = 1; micro_sequences = 1; };
optim = { steps = 1; };
checkpoint = { every_steps = 0; };
DECK
    logged_peak "$work/reward.cfg" >"$work/peak"
    rm -rf "$work/$1-reward"
    mv "$work/runs/reward/adapter" "$work/$1-reward"
}

# Peaks of SFT and of PPO whose passes have as many tokens. The queries are as long as they may be.
compare_ppo() { # row's name, name of the training, base, rows, tokens of a row, quipu arguments...
    local what=$1 name=$2 on=$3 rows=$4 tokens=$5 sft ppo
    local query=$((tokens - new - 1))
    shift 5
    case "$name" in
    random) python3 tests/bench/material.py letters "$rows" "$query" ;;
    *) python3 tests/bench/material.py prompts "$gguf" "$rows" "$query" ;;
    esac >"$work/queries.jsonl"
    quipu-prep jsonl "$work/queries.jsonl" --base "$on" --out "$work/$name-ppo" --eval-fraction 0 \
        2>"$work/prep.log" || quit "$(reason "$work/prep.log")"
    make_reward_adapter "$name" "$on"
    cat >"$work/ppo.cfg" <<DECK
job   = { method = "ppo"; name = "ppo"; restart = "never"; output = "$work/runs"; };
base  = { file = "$on"; };
lora  = { r = 16; alpha = 32.0; targets = [ "q_proj", "v_proj" ]; };
data  = { train = [ "$work/$name-ppo-prompt-train.h5" ]; seq_length = $query; };
batch = { global_sequences = $rows; micro_sequences = $rows; };
optim = { steps = 2; };
ppo   = { ppo_epochs = 1; stop_at_eos = false; };
generate     = { max_new_tokens = $new; };
reward_model = { adapter = "$work/$name-reward"; };
checkpoint   = { every_steps = 0; };
DECK
    sft=$(logged_peak "$@" --set "data.seq_length=$tokens" --set "batch.global_sequences=$rows" \
        --set "batch.micro_sequences=$rows" "$work/$name.cfg")
    ppo=$(logged_peak "$@" "$work/ppo.cfg")
    printf '%s, 1 rank, %s x %s tokens\t%s\t%s\t%s (bar: 1.10)\n' "$what" "$rows" "$tokens" \
        "$(calc "$sft / 1000")" "$(calc "$ppo / 1000")" "$(calc "$ppo / $sft")"
}
{
    compare_ppo SmolLM2-135M train "$base" 4 1024
    compare_ppo "$shape, recompute $recompute" random "$random" 1 512 --set "device.recompute=$recompute"
} >"$work/rows"
table "Memory of PPO, int8 base, LoRA r 16 on q and v" "" "SFT, GB" "PPO, GB" "PPO / SFT" <"$work/rows"
