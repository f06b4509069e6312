#!/usr/bin/env bash
# Training as in train.sh, but as on a machine with AVX2 and no more, for Quipu and for the peers:
# oneDNN, ATen, TorchInductor and MKL are capped; our own loops, which choose their instructions when
# the program is loaded, are compiled for AVX2. See tests/bench/run.
set -euo pipefail
# shellcheck source=tests/bench/common.sh
. "$(dirname "$0")/common.sh"
[ "$(uname -m)" = x86_64 ] || quit "no x86-64"
make_base
make_training train "$base"

folder=$work/build-avx2
flags="-march=x86-64-v3 -DQP_CPU_NO_CLONES"
configure "$folder" -DCMAKE_BUILD_TYPE=Release -DQUIPU_TESTS=OFF -DCMAKE_C_FLAGS="$flags"
cmake --build "$folder" --target quipu >"$folder.log" || quit "$(tail -n 1 "$folder.log")"
program=$folder/bin/quipu
train_capped() {
    ONEDNN_MAX_CPU_ISA=AVX2 train_quipu "$program"
    grep -q ', AVX2, ' "$work/train.log" || quit "the cap does not hold: $(grep 'cpu: ' "$work/train.log")"
}

before=$(train_capped)
: >"$work/peers"
run_peers tests/bench/peer_train.py --avx2 --limit 600 \
    --modes "${QUIPU_MODES:-fp32,compile32,bf16,compile,bnb}"
after=$(train_capped)
training_table "Training capped at AVX2, SmolLM2-135M, 4 x 1024 tokens" "$before" "$after" 1.5 <"$work/peers"
