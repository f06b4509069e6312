#!/usr/bin/env bash
# QP_TEST: labels=slow
# Writes of a rank that fail, once or for ever, wherever a checkpoint is: all ranks end with code 3 and a
# message, what was good stays good, and the next start gives the bits of an undisturbed run.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/../train/e2e.sh"

inject=$(dirname "$QUIPU_BIN")/tests/libquipu_inject.so
if [ ! -e "$inject" ]; then
    echo "no $inject: a build with sanitizers takes no preloaded library"
    exit 77
fi
make_base base.h5
make_data data
make_deck
quipu_on 1 whole
check "the undisturbed run" test "$code" -eq 0

# faulty RANKS "CALL SUFFIX RANK FIRST LAST ERROR": a run in which that happens, and the next one.
number=0
faulty() {
    local ranks=$1 fault=$2 name
    number=$((number + 1))
    name=run$number
    code=0
    timeout 300 mpirun --oversubscribe --bind-to none -x "QUIPU_INJECT=$fault" -x "LD_PRELOAD=$inject" \
        -n "$ranks" quipu --set "job.name=$name" deck.cfg >log 2>&1 || code=$?
    check "$fault on $ranks ranks: it happened" logged "injected: "
    check "$fault on $ranks ranks: exit code 3 (got $code)" test "$code" -eq 3
    check "$fault on $ranks ranks: says where" grep -qE "error.*runs/$name/" log
    check "$fault on $ranks ranks: no temporary file is left" not compgen -G "runs/$name/checkpoints/*.part"
    cp log log.$number
    quipu_on 2 "$name"
    check "$fault: the next start ends well (got $code)" test "$code" -eq 0
    check "$fault: the same adapter" same_adapter "$name" whole
    check "$fault: the same metrics" same_results "$name" whole
}

part=checkpoints/step-000004.h5.part
for first in 1 4 6 7 8 9 11 13 14 16 18; do # structure, rows of rank 0, checksums, the mark
    faulty 2 "write $part 0 $first 0 EIO"
done
faulty 2 "write $part 0 9 9 ENOSPC"
faulty 2 "write $part 1 1 0 EDQUOT"
faulty 2 "write $part 1 2 2 EIO"
faulty 4 "write $part 0 8 0 EIO"
faulty 4 "write $part 3 1 0 ENOSPC"
faulty 1 "write $part 0 8 0 EIO"
for first in 1 2 3; do
    faulty 2 "sync $part 0 $first 0 EIO"
done
faulty 2 "sync $part 1 1 0 EIO"
faulty 2 "truncate $part 0 1 0 ENOSPC"
faulty 2 "rename checkpoints/step-000004.h5 0 1 0 EIO"
end_test
