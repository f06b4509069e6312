#!/usr/bin/env bash
# QP_TEST: labels=slow
# Many more ranks than cores, as a large job has: 64 ranks, then 128, then 1 go on with each other's
# run, and it has the bits of one that a single rank has done.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5
make_data data
make_deck
few=(--set batch.global_sequences=128 --set data.seq_length=64 --set data.packing=none --set optim.steps=4
    --set eval.at_start=false --set eval.at_end=false --set checkpoint.every_steps=0)

quipu_on 1 one "${few[@]}"
check "a run on 1 rank ends well" test "$code" -eq 0
quipu_on 64 many "${few[@]}" --set checkpoint.stop_after_steps=2
check "64 ranks stop after 2 steps (got $code)" test "$code" -eq 10
check "all 64 are there" logged "ranks: 64"
cp -r runs/many runs/fewer
quipu_on 128 many "${few[@]}"
check "128 ranks go on to the end (got $code)" test "$code" -eq 0
check "all 128 are there" logged "ranks: 128"
check "from where 64 have stopped" logged "continuing after step 2"
check "1 rank, and 64 and 128: same adapter bits" same_adapter one many
check "1 rank, and 64 and 128: same metrics" same_results one many
quipu_on 1 fewer "${few[@]}"
check "1 rank goes on where 64 have stopped (got $code)" test "$code" -eq 0
check "1 rank, and 64 and 1: same adapter bits" same_adapter one fewer
check "1 rank, and 64 and 1: same metrics" same_results one fewer
end_test
