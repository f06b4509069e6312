#!/usr/bin/env bash
# QP_TEST: labels=slow
# Writes of a rank that fail, once or for ever, anywhere in a checkpoint and in the other files of a run: all
# ranks end with code 3 and a message, what was good stays good, nothing half written is left, and the next
# start gives the bits of an undisturbed run. Log and curves are no reason to end.
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
echo 'samples = { every_steps = 2; prompts = [ "Question: x?" ]; };' >>deck.cfg
quipu_on 1 whole
check "the undisturbed run" test "$code" -eq 0

# with_fault RANKS NAME "CALL SUFFIX RANK FIRST LAST ERROR": a run in which that happens.
with_fault() {
    local ranks=$1 name=$2 fault=$3
    code=0
    timeout 300 mpirun --oversubscribe --bind-to none -x "QUIPU_INJECT=$fault" -x "LD_PRELOAD=$inject" \
        -n "$ranks" quipu --set "job.name=$name" deck.cfg >log 2>&1 || code=$?
    check "$fault on $ranks ranks: nothing half written is left" not compgen -G "runs/$name/*.part"
    check "$fault on $ranks ranks: nor of checkpoints" not compgen -G "runs/$name/checkpoints/*.part"
}
whole_again() { # whole_again NAME WHAT
    check "$2: the same adapter" same_adapter "$1" whole
    check "$2: the same metrics" same_results "$1" whole
}
# ends RANKS FAULT: the fault ends the run; the next start continues.
number=0
ends() {
    local ranks=$1 fault=$2 name
    number=$((number + 1))
    name=run$number
    with_fault "$ranks" "$name" "$fault"
    check "$fault on $ranks ranks: it happened" logged "injected: "
    check "$fault on $ranks ranks: exit code 3 (got $code)" test "$code" -eq 3
    check "$fault on $ranks ranks: says where" grep -qE "error.*runs/${name}[/:]" log
    quipu_on 2 "$name"
    check "$fault: the next start ends well (got $code)" test "$code" -eq 0
    whole_again "$name" "$fault"
}
# goes_on FAULT MESSAGE: what is not needed for the result is a warning.
goes_on() {
    number=$((number + 1))
    with_fault 2 "run$number" "$1"
    check "$1: exit code 0 (got $code)" test "$code" -eq 0
    check "$1: a warning" grep -qE "\[warn.*$2" log
    whole_again "run$number" "$1"
}

part=checkpoints/step-000004.h5.part
for first in 1 6 7 8 11 13 14 18; do # structure, rows of rank 0, checksums, the mark
    ends 2 "write $part 0 $first 0 EIO"
done
ends 2 "write $part 0 9 9 ENOSPC"
ends 2 "write $part 1 1 0 EDQUOT"
ends 4 "write $part 0 8 0 EIO"
ends 4 "write $part 3 2 2 ENOSPC"
ends 1 "write $part 0 8 0 EIO"
ends 2 "sync $part 0 2 0 EIO"
ends 2 "sync $part 1 1 0 EIO"
ends 2 "truncate $part 0 1 0 ENOSPC"
ends 2 "rename checkpoints/step-000004.h5 0 1 0 EIO"
for file in metrics.csv samples.jsonl used.cfg.part adapter_model.safetensors.part; do
    ends 2 "stream $file 0 1 0 ENOSPC"
done
ends 2 "rename used.cfg 0 1 0 EIO"
goes_on "stream quipu.log 0 1 0 ENOSPC" "the log file cannot be written: No space left on device"
if command -v gnuplot >/dev/null; then
    goes_on "stream curves.svg.part 0 1 0 ENOSPC" "curves.svg: gnuplot could not write all of it"
    goes_on "rename curves.svg 0 1 0 EIO" "curves.svg: Input/output error"
fi
end_test
