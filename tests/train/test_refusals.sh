#!/usr/bin/env bash
# QP_TEST: labels=slow
# Wrong decks, data and checkpoints: one clear message, exit code 2, nothing written over.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5
make_base other.h5 tiny --seed 2
make_data data
make_deck

# refused NAME MESSAGE --set ...: a run on 2 ranks must end with 2 and say so.
refused() {
    local name=$1 message=$2
    shift 2
    quipu_on 2 wrong "$@"
    check "$name: exit code 2 (got $code)" test "$code" -eq 2
    check "$name: says \"$message\"" logged "$message"
    check "$name: says it once" test "$(grep -cF -- "$message" log)" -le 1
    check "$name: no step was made" not test -e runs/wrong/checkpoints/step-000002.h5
}
refused "unknown key" 'lora.rank' --set lora.rank=8
refused "wrong type" 'lora.r' --set lora.r=many
refused "out of range" 'lora.dropout' --set lora.dropout=1.5
refused "unknown choice" 'optim.schedule' --set optim.schedule=square
refused "missing base" 'absent.h5' --set base.file=absent.h5
refused "not a base" 'data-sft-train.h5' --set base.file=data-sft-train.h5
refused "missing shards" 'absent-*.h5' --set 'data.train=absent-*.h5'
refused "not a shard" 'base.h5: is a base, expected a shard' --set data.train=base.h5
refused "too few samples" 'fewer than batch.global_sequences = 4096' --set batch.global_sequences=4096
refused "nothing but samples that are too long" 'none fits data.seq_length = 8' \
    --set data.overlong=drop --set data.seq_length=8
refused "too few samples that fit" '(data.overlong leaves out ' \
    --set data.overlong=drop --set data.packing=none --set data.seq_length=110 --set batch.global_sequences=128
refused "too many ranks" '2 ranks, but a step has only 1 micro-batches' --set batch.micro_sequences=8
refused "micro does not divide" 'does not divide global_sequences = 8' --set batch.micro_sequences=3
refused "rows too long" 'data.seq_length' --set data.seq_length=8192 --set data.packing=none
refused "nothing to continue" 'job.restart = "require"' --set job.restart=require
refused "no such device" 'cuda' --set device.backend=cuda
make_base wide.h5 tiny,d_ff=131072
refused "too much memory" 'MB on a node, but only' --set base.file=wide.h5 --set data.packing=none \
    --set data.seq_length=4096 --set batch.global_sequences=128 --set batch.micro_sequences=64
QUIPU_CHECK_MEMORY=1000000 refused "too small a device" 'MB on a device, but only 1.0 MB are available' \
    --set device.backend=check
check "too small a device: the plan names places" logged "MB per device, 1.0 MB available"

sed 's/seed = 3;/seed = 3; seed = 4;/' deck.cfg >twice.cfg
deck=twice.cfg refused "duplicate key" 'twice.cfg:1'
sed 's/^lora .*/lora = { r = 4; alpha = ; };/' deck.cfg >syntax.cfg
deck=syntax.cfg refused "syntax" 'syntax.cfg:3'
deck=absent.cfg refused "no deck" 'absent.cfg'
sed -e 's/lora  = { r = 4;/lora  = { rank = 4;/' -e 's/steps = 6;/steps = "six";/' deck.cfg >two.cfg
deck=two.cfg refused "two mistakes: the first" 'two.cfg:3'
deck=two.cfg refused "two mistakes: the second" 'two.cfg:6'
check "two mistakes: a line each" test "$(grep -c '^\[error' log)" -eq 2

# A checkpoint belongs to its base and to what the deck says of the numbers.
quipu_on 1 good --set checkpoint.stop_after_steps=3
cp -r runs/good runs/before
continued() { # continued NAME MESSAGE --set ...
    local name=$1 message=$2
    shift 2
    quipu_on 2 good "$@"
    check "$name: exit code 2 (got $code)" test "$code" -eq 2
    check "$name: says \"$message\"" logged "$message"
    check "$name: the checkpoints stay" diff -r runs/good/checkpoints runs/before/checkpoints
}
continued "other base" base --set base.file=other.h5
continued "other learning rate" optim.lr --set optim.lr=0.5
continued "other batch" batch.global_sequences --set batch.global_sequences=16
continued "never continue" 'job.restart = "never"' --set job.restart=never
quipu_on 2 good --set optim.steps=8 --set log.every_steps=4
check "what may change is no hindrance" test "$code" -eq 0
end_test
