#!/usr/bin/env bash
# QP_TEST: labels=slow
# TensorBoard itself reads what log.tensorboard writes: the numbers of metrics.csv, of a run that stopped
# early and of one that made steps again.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

export PYTHONPATH=${QUIPU_TENSORBOARD:-$HOME/.cache/quipu/tensorboard}
python3 -c 'import tensorboard' 2>/dev/null || {
    echo "there is no TensorBoard: tools/test fetches it"
    exit 77
}
make_base base.h5
make_data data
make_deck
same_numbers() { # same_numbers NAME: of the table and of TensorBoard, down to fp32
    python3 - "runs/$1" <<'PYTHON'
import csv, sys
import numpy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(f"{sys.argv[1]}/tensorboard", size_guidance={"scalars": 0})
events.Reload()
found = {(tag, e.step): numpy.float32(e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}
wanted = {}
with open(f"{sys.argv[1]}/metrics.csv", newline="") as file:
    for row in csv.DictReader(file):
        for name, value in row.items():
            if name != "step" and value != "":
                tag = "eval/" + name[5:] if name.startswith("eval_") else "train/" + name
                wanted[tag, int(row["step"])] = numpy.float32(value)
different = sorted(k for k in found.keys() | wanted.keys()
                   if k not in found or k not in wanted or abs(found[k] - wanted[k]) > 1e-6 * abs(wanted[k]))
print(f"{len(wanted)} numbers, {len(different)} differ: {different[:9]}")
sys.exit(different != [] or len(wanted) < 50)
PYTHON
}
settings=(--set log.tensorboard=true --set eval.every_steps=2)
quipu_on 2 plain "${settings[@]}"
check "a run" test "$code" -eq 0
check "a run: the same numbers" same_numbers plain
quipu_on 1 again "${settings[@]}" --set checkpoint.stop_after_steps=3
cp -r runs/again/checkpoints kept
quipu_on 1 again "${settings[@]}" --set checkpoint.stop_after_steps=2
rm -r runs/again/checkpoints
mv kept runs/again/checkpoints # as after a crash: steps 4 and 5 are made again
quipu_on 1 again "${settings[@]}"
check "steps made again" test "$code" -eq 0
check "steps made again: a file for each start" test "$(find runs/again/tensorboard -type f | wc -l)" -eq 3
check "steps made again: the same numbers" same_numbers again
quipu_on 1 without
check "without the key: no such folder" not test -e runs/without/tensorboard
end_test
