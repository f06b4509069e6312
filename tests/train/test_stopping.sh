#!/usr/bin/env bash
# QP_TEST: labels=slow
# Every way to stop early: exit code 10 on all ranks, a checkpoint of the step, an adapter, and the
# continued run ends as if nothing had happened.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5
make_data data
make_deck

# in_background NAME: a run on 2 ranks that would take long; returns after its third step.
in_background() {
    code=0
    mpirun --oversubscribe --bind-to none -n 2 quipu --set "job.name=$1" --set optim.steps=100000 \
        deck.cfg >log 2>&1 &
    run=$!
    while kill -0 "$run" 2>/dev/null; do
        if grep -q '^3,' "runs/$1/metrics.csv" 2>/dev/null; then return; fi
        sleep 0.05
    done
    echo "the run did not start"
    failures=$((failures + 1))
}
wait_for_run() {
    code=0
    wait "$run" || code=$?
}
# One of the ranks of the run: quipu processes are the children of mpirun.
a_rank() { pgrep -P "$run" -x quipu | head -n 1; }

check_stopped() { # check_stopped NAME REASON
    local step
    check "$2: exit code 10" test "$code" -eq 10
    check "$2: says why" logged "($2)"
    check "$2: writes the adapter" test -s "runs/$1/adapter/adapter_model.safetensors"
    step=$(tail -n 1 "runs/$1/metrics.csv" | cut -d, -f1)
    check "$2: a checkpoint of the last step" test -s "runs/$1/checkpoints/step-$(printf %06d "$step").h5"
    quipu_on 1 "$1" --set "optim.steps=$((step + 2))"
    check "$2: continues" logged "continuing after step $step"
    check "$2: and ends" test "$code" -eq 0
    quipu_on 1 "$1-whole" --set "optim.steps=$((step + 2))"
    check "$2: as if never stopped" same_adapter "$1" "$1-whole"
}

in_background term
kill -TERM "$(a_rank)"
wait_for_run
check_stopped term "a signal"

# SIGTERM does not wait for the end of a step of seconds: it is given up behind a micro-batch, on all ranks.
make_base slow.h5 tiny,d_model=256,n_layer=6,d_ff=1024
slow=(--set base.file=slow.h5 --set batch.global_sequences=96 --set data.packing=none --set optim.steps=2
    --set checkpoint.every_steps=100 --set eval.at_start=false)
code=0
mpirun --oversubscribe --bind-to none -n 2 quipu --set job.name=cut "${slow[@]}" deck.cfg >log 2>&1 &
run=$!
until grep -q '^1,' runs/cut/metrics.csv 2>/dev/null || ! kill -0 "$run"; do sleep 0.05; done
kill -TERM "$(a_rank)"
wait_for_run
check "cut short: exit code 10 (got $code)" test "$code" -eq 10
check "cut short: says why" logged "stopped after step 1 of 2 (a signal)"
check "cut short: a checkpoint of the last whole step" test -s runs/cut/checkpoints/step-000001.h5
quipu_on 2 cut "${slow[@]}"
check "cut short: continues" logged "continuing after step 1"
quipu_on 1 cut-whole "${slow[@]}"
check "cut short: as if never stopped" same_adapter cut cut-whole
check "cut short: the same metrics" same_results cut cut-whole

# What a checkpoint took is remembered: a limit too short for a guess does for it.
quipu_on 2 margin --set checkpoint.walltime=1:00
check "a guess stops at the first step (got $code)" test "$code" -eq 10
check "a guess stops at the first step: says so" logged "stopped after step 1 of 6 (the wall time runs out)"
quipu_on 2 margin --set checkpoint.walltime=1:00
check "what was measured does not (got $code)" test "$code" -eq 0

in_background usr1
kill -USR1 "$run" # mpirun passes it on to all
wait_for_run
check_stopped usr1 "a signal"

in_background file
touch runs/file/stop
wait_for_run
check_stopped file "the stop file"
check "the stop file is removed" not test -e runs/file/stop

quipu_on 2 walltime --set optim.steps=100000 --set checkpoint.walltime=0:15 --set checkpoint.walltime_margin=1
check_stopped walltime "the wall time runs out"

# The batch system's clock: Slurm tells when the job ends.
end=$(($(date +%s) + 15))
SLURM_JOB_END_TIME=$end quipu_on 2 slurm --set optim.steps=100000 --set checkpoint.walltime_margin=1
check_stopped slurm "the wall time runs out"
end_test
