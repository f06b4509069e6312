#!/usr/bin/env bash
# QP_TEST: labels=cuda
# A rank that stops in the middle of a sum of gradients, and a communicator that reports an error: the
# job ends within device.nccl_timeout with exit code 3 and a message, and goes on from its last
# checkpoint to the same bits. Faults are those of NCCL's stand-in (tests/cuda_on_cpu/nccl.cc).
# shellcheck source=tests/train/cuda.sh
. "$(dirname "$0")/cuda.sh"

make_base base.h5
make_data data
make_deck
settings=(--set optim.steps=3 --set checkpoint.every_steps=1 --set batch.global_sequences=2
    --set data.seq_length=64 --set data.eval_rows=1)
ends_well 2 whole "${settings[@]}"

# In the second step: a sum is two pieces of work in the tree's way, one in NCCL's own.
for way in tree nccl; do
    [ "$way" = tree ] && at=8 || at=4
    for fault in "stop 1 $at" "fail 0 $at"; do
        name=$way-${fault%% *}
        code=0 # of mpirun: the rank that stopped has none
        CUDA_ON_CPU_NCCL=$fault mpirun --oversubscribe --bind-to none -x CUDA_ON_CPU_NCCL -n 2 quipu \
            --set 'device.backend="cuda"' --set "job.name=$name" --set "device.allreduce=$way" "${settings[@]}" \
            --set device.nccl_timeout=2 deck.cfg >log 2>&1 || code=$?
        check "$name: exit code 3" test "$code" -eq 3
        case $fault in
        stop*) check "$name: says so" logged "the sum of the gradients is not there after 2 seconds (device.nccl_timeout)" ;;
        fail*) check "$name: says so" logged "NCCL: the sum of the gradients: remote process exited" ;;
        esac
        check "$name: a checkpoint stays" logged "checkpoint after step 1"
        ends_well 2 "$name" "${settings[@]}" --set "device.allreduce=$way"
        check "$name: continued" logged "continuing after step"
        [ "$way" = nccl ] || check "$name: the bits of the undisturbed run" same_run whole "$name"
    done
done
end_test
