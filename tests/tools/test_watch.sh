#!/usr/bin/env bash
# quipu-inspect --watch: what it shows of a run that is on its way, of one that has ended, of one that is none.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/../train/e2e.sh"

make_base base.h5
make_data data
make_deck
quipu --set optim.steps=1000000 --set eval.every_steps=3 deck.cfg >run.log 2>&1 &
run=$!
until grep -q '^9,' runs/run/metrics.csv 2>/dev/null || ! kill -0 "$run"; do sleep 0.05; done
quipu-inspect --watch runs/run >log
check "on its way: says so" logged "runs/run: sft, running"
check "on its way: how far, how long" grep -qE '^\[\.+\] step [0-9]+ of 1000000, [0-9]+:[0-9]{2}:[0-9]{2} left, [0-9]+ tokens/s$' log
check "on its way: memory" grep -qE '^memory: [0-9.]+ MB per node, [0-9.]+ MB available$' log
check "on its way: ranks" grep -qE '^slowest rank: 0 works [0-9.e-]+ s of a step, the mean of all [0-9.e-]+ s$' log
check "on its way: curves" grep -qE '^loss +[0-9.]+ +[▁▂▃▄▅▆▇█]{9}' log
check "on its way: held-out curves" grep -qE '^eval_loss +[0-9.]+ +[▁▂▃▄▅▆▇█]{3}' log
if command -v script >/dev/null; then # in a terminal it stays until the run has ended
    script -qec "quipu-inspect --watch runs/run" /dev/null >watched </dev/null &
    watcher=$!
    until grep -q running watched; do sleep 0.05; done
    kill -TERM "$run"
    code=0
    wait "$watcher" || code=$?
    check "in a terminal: ends with the run" test "$code" -eq 0
    check "in a terminal: the last look" grep -q "nobody works in it" watched
else
    kill -TERM "$run"
fi
wait "$run" || true
quipu-inspect --watch runs/run >log
check "ended: says so" logged "nobody works in it"
check "ended: the end of its log" logged "start again to continue"
quipu_on 2 whole
quipu-inspect --watch runs/whole >log
check "whole: all of it" grep -qE '^\[#+\] step 6 of 6' log
check "whole: memory" grep -qE '^memory: rank [0-9.]+ MB, node [0-9.]+ MB \(planned' log
check "whole: ranks" grep -qE '^slowest rank: [01] works [0-9.e-]+ s of a step' log
code=0
quipu-inspect --watch . >log 2>&1 || code=$?
check "no run: exit code 2 (got $code)" test "$code" -eq 2
check "no run: says so" logged "is no folder of a run"
end_test
