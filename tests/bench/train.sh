#!/usr/bin/env bash
# Training beside PEFT: SmolLM2-135M, LoRA on q and v, 4 x 1024 tokens a step. See tests/bench/run.
# Quipu runs before and after the peers, which shows how the machine changed meanwhile; ratios take
# the slower of the two.
set -euo pipefail
# shellcheck source=tests/bench/common.sh
. "$(dirname "$0")/common.sh"
make_base
make_training train "$base"

before=$(train_quipu quipu)
: >"$work/peers"
run_peers tests/bench/peer_train.py --modes "${QUIPU_MODES:-fp32,bf16,compile,bnb}"
after=$(train_quipu quipu)
training_table "Training, SmolLM2-135M, 4 x 1024 tokens" "$before" "$after" 3 <"$work/peers"
