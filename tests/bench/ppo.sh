#!/usr/bin/env bash
# A step of PPO beside TRL 0.11.4: SmolLM2-135M, LoRA r 16 on q and v, 16 queries of 128 tokens that
# have nothing in common, 64 new tokens each, 4 epochs of one update. See tests/bench/run.
#   QUIPU_PPO_MODES=fp32,bf16,autocast    of TRL
#   QUIPU_PPO_MINIS=4,8,16                answers of a pass, for both; an update always has all 16
# Rewards cost nothing in either: TRL is given scores, and Quipu's reward program, which always says
# the same, is not in its times. A step warms up, the best of some counts. Quipu runs before and after
# the peer; ratios take its slower run.
set -euo pipefail
# shellcheck source=tests/bench/common.sh
. "$(dirname "$0")/common.sh"
make_base
hf=$work/smollm2-hf
minis=${QUIPU_PPO_MINIS:-16}

python3 tests/bench/material.py prompts "$gguf" 32 128 >"$work/queries.jsonl"
quipu-prep jsonl "$work/queries.jsonl" --base "$base" --out "$work/queries" --eval-fraction 0 \
    2>"$work/prep.log" || quit "$(reason "$work/prep.log")"
cat >"$work/ppo.cfg" <<DECK
job   = { method = "ppo"; name = "ppo"; restart = "never"; output = "$work/runs"; };
base  = { file = "$base"; };
lora  = { r = 16; alpha = 32.0; dropout = 0.05; targets = [ "q_proj", "v_proj" ]; };
data  = { train = [ "$work/queries-prompt-train.h5" ]; seq_length = 128; };
batch = { global_sequences = 16; };
optim = { lr = 1.0e-5; schedule = "constant"; steps = $((repeat + 1)); };
ppo   = { ppo_epochs = 4; stop_at_eos = false; };
generate     = { max_new_tokens = 64; };
reward_model = { command = [ "sed", "-u", "s/.*/{\"reward\": 1.0}/" ]; };
checkpoint   = { every_steps = 0; };
DECK

# Lines "name, generate s, the rest s" of the best step but the first, without scoring.
ppo_quipu() { # when
    local mini
    for mini in ${minis//,/ }; do
        rm -rf "$work/runs/ppo"
        quipu --set "batch.micro_sequences=$mini" "$work/ppo.cfg" >"$work/ppo.log" 2>&1 </dev/null ||
            quit "$(reason "$work/ppo.log")"
        awk -F, -v OFS='\t' -v name="Quipu int8, passes of $mini, $1" '
            NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
            $at["tokens/queries_len_mean"] != 128 || $at["tokens/responses_len_mean"] != 64 { exit 1 }
            NR == 2 { next }
            { total = $at["time/ppo/total"] - $at["time/ppo/score"] }
            best == "" || total < best { best = total; generate = $at["time/ppo/generate"] }
            END { printf "%s\t%.2f\t%.2f\n", name, generate, best - generate }
            ' "$work/runs/ppo/metrics.csv" || quit "queries or answers of another length"
    done
}

ppo_quipu "before the peers" >"$work/peers"
if [ -x "$QUIPU_TRL/bin/python" ]; then
    [ -f "$hf/loss.json" ] || run_peers tests/bench/peer_ppo.py --convert "$hf"
    QUIPU_PEERS=$QUIPU_TRL run_peers tests/bench/peer_ppo.py "$hf" --repeat "$repeat" \
        --modes "${QUIPU_PPO_MODES:-fp32,bf16}" --minis "$minis"
else
    echo "ppo.sh: no TRL in $QUIPU_TRL: tools/setup --trl makes it" >&2
fi
ppo_quipu "after the peers" >>"$work/peers"

# Of several passes of Quipu the fastest counts, in each of its two runs.
awk -F'\t' '
    { name[NR] = $1; generate[NR] = $2; rest[NR] = $3; total[NR] = $2 + $3 }
    $1 ~ /^Quipu.*before/ && (!before || total[NR] < before) { before = total[NR] }
    $1 ~ /^Quipu.*after/ && (!after || total[NR] < after) { after = total[NR] }
    $1 !~ /^Quipu/ && (!peer || total[NR] < peer) { peer = total[NR] }
    END {
        quipu = before > after ? before : after
        for (i = 1; i <= NR; i++)
            printf "%s\t%.2f\t%.2f\t%.2f\t%.0f%%\t%s\n", name[i], generate[i], rest[i], total[i],
                   100 * generate[i] / total[i],
                   name[i] ~ /^Quipu/ ? "" : sprintf("%.2f", total[i] / quipu) \
                       (total[i] == peer ? " (the fastest peer)" : "")
    }' "$work/peers" |
    table "A PPO step, SmolLM2-135M, 16 answers of 128 + 64 tokens, 4 epochs" "" "generation, s" \
        "the rest, s" "together, s" "generation's share" "this / Quipu"
