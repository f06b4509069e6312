#!/usr/bin/env bash
# QP_TEST: labels=slow
# A rank is killed in a step or in a checkpoint, the disk is full: all ranks are gone with the
# right code, what was good stays good, and the continued run gives the bits of an undisturbed one.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5
make_data data
make_deck
steps=40
settings=(--set "optim.steps=$steps" --set checkpoint.every_steps=1)
quipu_on 1 whole "${settings[@]}"
check "the undisturbed run" test "$code" -eq 0

# kill_when NAME COMMAND...: starts a run, kills one rank as soon as the command succeeds; once more
# where the run was at its end before that.
kill_when() {
    local name=$1 victim
    shift
    code=0
    while [ "$code" -eq 0 ]; do
        rm -rf "runs/$name"
        mpirun --oversubscribe --bind-to none -n 2 quipu --set "job.name=$name" "${settings[@]}" \
            deck.cfg >log 2>&1 &
        run=$!
        until "$@" || ! kill -0 "$run" 2>/dev/null; do :; done
        victim=$(pgrep -P "$run" -x quipu | tail -n 1) || true
        [ -z "$victim" ] || kill -KILL "$victim" || true
        wait "$run" || code=$?
    done
    check "$name: says that a rank was killed" logged "signal 9"
    check "$name: no rank is left" not pgrep -P "$run"
}
has_row() { grep -q "^$1," "runs/$2/metrics.csv" 2>/dev/null; }
has_part() { compgen -G "$1/checkpoints/*.part" >/dev/null; }
writes_checkpoint() { has_row 3 "$1" && has_part "runs/$1"; }
continues() {
    quipu_on 1 "$1" "${settings[@]}"
    check "$1: continues" logged "continuing after step"
    check "$1: ends well" test "$code" -eq 0
    check "$1: same adapter as undisturbed" same_adapter "$1" whole
    check "$1: same metrics as undisturbed" same_results "$1" whole
    check "$1: no temporary file is left" not has_part "runs/$1"
}

kill_when in-step has_row 5 in-step
continues in-step
for i in 1 2 3; do
    kill_when "in-checkpoint-$i" writes_checkpoint "in-checkpoint-$i"
    continues "in-checkpoint-$i"
done

# A full disk, with checkpoints larger than all else that the run writes.
large=(--set lora.r=64 --set checkpoint.every_steps=1)
quipu_on 2 full --set checkpoint.stop_after_steps=3 "${large[@]}"
check "full disk: starts" test "$code" -eq 10
size=$(($(stat -c %s runs/full/checkpoints/step-000003.h5) / 1024))

newest_step() { # of the checkpoints in a run's folder
    local files=("$1"/checkpoints/step-*.h5)
    basename "${files[-1]}" .h5 | sed 's/step-0*//'
}
check_full() { # check_full NAME FOLDER MESSAGE SETTINGS...: what was good is good, and goes on
    local name=$1 folder=$2 message=$3 step
    shift 3
    check "$name: exit code 3" test "$code" -eq 3
    check "$name: says why" logged "$message"
    check "$name: no temporary file is left" not has_part "$folder"
    step=$(newest_step "$folder")
    [ "$folder" = runs/full ] || mount -o remount,size=64m small
    quipu_on 2 "$(basename "$folder")" "${large[@]}" --set "optim.steps=$((step + 2))" "$@"
    check "$name: continues" logged "continuing after step $step"
    check "$name: ends well" test "$code" -eq 0
}
# A file-size limit: the write fails as on a full disk, once the signal is ignored.
code=0
# shellcheck disable=SC2016
mpirun --mca btl self,tcp --oversubscribe --bind-to none -n 2 bash -c \
    'trap "" XFSZ; ulimit -f "$0"; exec "$@"' $((size - 100)) \
    quipu --set job.name=full "${large[@]}" deck.cfg >log 2>&1 || code=$?
check_full "file too large" runs/full "File too large"

# A file system that holds a few checkpoints but no more, where we may mount one.
if mkdir small && mount -t tmpfs -o size=$((size * 7 / 2))k tmpfs small 2>/dev/null; then
    trap 'umount small; finish' EXIT
    quipu_on 2 disk "${large[@]}" --set job.output=small --set checkpoint.keep=9
    check_full "full disk" small/disk "No space left on device" --set job.output=small
else
    echo "no permission to mount a small file system: that part is skipped"
fi

# A damaged checkpoint is passed over with a warning, never trusted.
quipu_on 1 flipped --set checkpoint.stop_after_steps=4 "${settings[@]}"
newest=runs/flipped/checkpoints/step-000004.h5
size=$(stat -c %s "$newest")
printf '\377' | dd of="$newest" bs=1 seek=$((size * 3 / 4)) conv=notrunc status=none
continues flipped
check "a flipped bit: said so" logged "step-000004.h5"
quipu_on 1 cut --set checkpoint.stop_after_steps=4 "${settings[@]}"
truncate -s $((size / 2)) runs/cut/checkpoints/step-000004.h5
continues cut
check "a cut file: said so" logged "step-000004.h5"
end_test
