#!/usr/bin/env bash
# QP_TEST: labels=slow check=1
# Memory of a device is what the plan says, byte for byte and row by row, in every method; where it does
# not fit, every rank says so before anything is loaded.
# shellcheck source=tests/train/rlhf.sh
. "$(dirname "$0")/rlhf.sh"
export QUIPU_CHECK_MEMORY=1000000000

make_base base.h5 tiny,n_layer=1
make_base other.h5 tiny,n_layer=2,d_ff=512
make_data data
make_pairs data
make_deck
make_decks
small=(--set optim.steps=1 --set optim.warmup_steps=0 --set data.seq_length=96 --set batch.global_sequences=2)

# as_planned NAME RANKS DECK [--set ...]
as_planned() {
    local name=$1 ranks=$2 deck=$3 used planned
    shift 3
    quipu_on "$ranks" "$name" "$@"
    check "$name: exit code 0 (got $code)" test "$code" -eq 0
    if [ -z "${QUIPU_BACKEND:-}" ]; then # the host's memory is the device's
        check "$name: no device is told of" not logged "peak memory: device"
        return
    fi
    read -r used planned < <(sed -n 's/.*peak memory: device .*(\([0-9]*\) of \([0-9]*\) bytes).*/\1 \2/p' log) || true
    check "$name: $used bytes of $planned" test "${used:-0}" -gt 0 -a "$used" = "$planned"
    check "$name: every row is as planned" not logged "bytes at most, planned"
}
as_planned sft 1 deck.cfg "${small[@]}"
check "nothing stands beside the plan" test "$(grep -c 'beside it' log)" -eq \
    "$(grep -c -e ', 0.0 MB beside it' -e 'cuda: GPU.* NVIDIA' log)"
as_planned reward 1 reward.cfg "${small[@]}"

# A base without weights plans and does no more.
make_base head.h5 tiny,n_layer=1 --no-weights
quipu --dry-run "${small[@]}" --set base.file=head.h5 deck.cfg >log 2>&1 || code=$?
check "a base without weights: a dry run" test "$code" -eq 0
check "says that it has none" logged "head.h5: has no weights, it is for dry runs alone"
rows() { sed -n '/memory plan/,$ { s/^[^]]*\] //; / MB per /p; }' "$1" | grep -v -e program -e together -e outside; }
cp log head.log
quipu --dry-run "${small[@]}" deck.cfg >log 2>&1 || code=$?
check "plans as the base does" diff <(rows head.log) <(rows log)
quipu_on 2 head "${small[@]}" --set base.file=head.h5
check "no run is made with it (got $code)" test "$code" = 2
check "says why" logged "head.h5: has no weights, it is for dry runs alone"
code=0
quipu-merge head.h5 runs/sft/adapter merged >log 2>&1 || code=$?
check "nothing is merged into it (got $code)" test "$code" = 2
check "merge says why" logged "head.h5: has no weights, it is for dry runs alone"
if [ -z "${QUIPU_BACKEND:-}" ]; then
    end_test
    exit
fi

# Methods, and models beside the policy: a rival, a reward model on the same base, on another, merged.
cat >eval.cfg <<'DECK'
job   = { method = "eval"; name = "eval"; seed = 3; };
base  = { file = "base.h5"; };
data  = { seq_length = 96; };
batch = { micro_sequences = 1; };
device = { threads = 1; };
DECK
sed '/^data/d; /^batch/d; s/"eval"/"generate"/g' eval.cfg >generate.cfg
head -n 2 data-prompts.jsonl >prompts.jsonl
echo 'prompts = { input = "prompts.jsonl"; };' >>generate.cfg
sed '/^reward_model/d' ppo.cfg >none.cfg
ppo=("${small[@]}" --set generate.max_new_tokens=3 --set ppo.mini_batch_sequences=2 --set ppo.ppo_epochs=1)

as_planned sft2 2 deck.cfg "${small[@]}" --set device.compute=fp32
as_planned dpo 1 dpo.cfg "${small[@]}"
as_planned ppo 1 ppo.cfg "${ppo[@]}"
deck=reward.cfg quipu_on 1 rating "${small[@]}" --set base.file=other.h5
quipu-merge --no-logits other.h5 runs/rating/adapter judge.h5 >log 2>&1
as_planned "ppo, a reward model on another base" 1 none.cfg "${ppo[@]}" --set reward_model.base=other.h5 \
    --set reward_model.adapter=runs/rating/adapter
as_planned "ppo, a merged reward model" 1 none.cfg "${ppo[@]}" --set reward_model.base=judge.h5
as_planned "eval of texts" 1 eval.cfg --set data.eval=data-sft-eval.h5 --set lora.init=runs/sft/adapter
as_planned "eval of pairs by a merged model" 1 eval.cfg --set data.eval=data-reward-eval.h5 \
    --set base.file=judge.h5
head -n 20 data-prompts.jsonl >few.jsonl
quipu-prep jsonl few.jsonl --base base.h5 --out few --eval-fraction 0.1 >log 2>&1
as_planned "eval against another" 1 eval.cfg --set data.eval=few-prompt-eval.h5 --set generate.max_new_tokens=3 \
    --set reward_model.adapter=runs/reward/adapter --set compare.against=runs/ppo/adapter
as_planned generate 1 generate.cfg --set generate.max_new_tokens=3

# refused NAME CODE MESSAGE --set ...: on every rank of two, once, before the base is read.
refused() {
    local name=$1 expected=$2 message=$3
    shift 3
    deck=deck.cfg quipu_on 2 "$name" "$@"
    check "$name: exit code $expected (got $code)" test "$code" = "$expected"
    check "$name: says \"$message\"" test "$(grep -cF -- "$message" log)" -eq 1
    check "$name: names the largest rows" grep -qE "[a-zA-Z ]+ [0-9.]+ MB per device, [a-z]+ [0-9.]+ MB per device" log
    check "$name: no base was loaded" not logged "base loaded"
}
if [ "$QUIPU_BACKEND" = check ]; then
    QUIPU_CHECK_MEMORY=1000000 refused "too small" 2 "MB on a device, but only 1.0 MB are available"
elif logged "CUDA on the CPU"; then
    CUDA_ON_CPU_MEMORY=300000000 refused "too small" 2 "MB on a device, but only 300.0 MB are available"
    refused "too small a part" 2 "MB on a device, but only 400.0 MB are available" --set device.memory=0.4
    CUDA_ON_CPU_MALLOC=30000000 refused "no room" 3 "the run's memory, in one piece: the GPU has no room for"
fi

# A dry run plans without a GPU, and for another one than there is.
if [ "$QUIPU_BACKEND" = cuda ]; then
    dry() {
        code=0
        quipu --dry-run "$@" deck.cfg >log 2>&1 || code=$?
    }
    plan() { sed -n '/memory plan/,$ { s/^[^]]*\] //; / MB per device$/p; }' log; }
    dry
    check "a dry run with a GPU fits" test "$code" -eq 0
    plan >with
    export CUDA_ON_CPU_DEVICES=-2 CUDA_VISIBLE_DEVICES=
    dry
    check "a dry run without a GPU: exit code 0 (got $code)" test "$code" -eq 0
    check "says that it looked at none" logged "a dry run without a GPU: device.backend = \"cuda\": this node has no"
    check "says what it does not know" logged "device.memory says how much memory"
    check "knows no limit" logged "MB per device, free memory unknown"
    plan >without
    check "plans the same" diff <(grep -v -e outside -e scratch with) <(grep -v -e outside -e scratch without)
    dry --set device.memory=40
    check "a GPU of 40 GB is large enough" test "$code" -eq 0
    check "says how large it is" logged "MB per device, 40000.0 MB available"
    dry --set device.memory=0.5
    check "one of 500 MB is not" test "$code" -eq 2
    quipu deck.cfg >log 2>&1 || code=$?
    check "a run wants a GPU" test "$code" -eq 2
fi
end_test
