# The part that the Slurm and the PBS script share; sourced, never run.
# The sourcing script defines launch (starts quipu with its arguments on all ranks) and requeue.
# Settings of the environment:
#   QUIPU              the program (default: quipu on PATH)
#   QUIPU_MAX_REQUEUE  how often a job is put back into the queue at most (default 100)
# shellcheck shell=bash

# Step of the newest checkpoint in a run's folder, by name; -1 without any. Completeness is the
# program's business; this only tells whether a start got anywhere.
newest_step() {
    local newest=-1 file step
    for file in "$1"/checkpoints/step-*.h5; do
        [ -e "$file" ] || continue
        step=${file##*/step-}
        step=$((10#${step%.h5}))
        if [ "$step" -gt "$newest" ]; then newest=$step; fi
    done
    echo "$newest"
}

# run_deck DECK COUNT: runs the deck; on exit code 10 (stopped early with a good checkpoint) puts the
# job back into the queue, unless that was done COUNT >= QUIPU_MAX_REQUEUE times already or this start
# completed no step.
run_deck() {
    local deck=$1 count=$2 program=${QUIPU:-quipu} folder before after code=0
    folder=$("$program" --run-folder "$deck")
    before=$(newest_step "$folder")
    launch "$program" "$deck" || code=$?
    after=$(newest_step "$folder")
    echo "job: exit code $code; newest checkpoint after step $after, before this start $before"
    if [ "$code" -ne 10 ]; then
        return "$code"
    fi
    if [ "$after" -le "$before" ]; then
        echo "job: no step was gained: not put back into the queue" >&2
        return 10
    fi
    if [ "$count" -ge "${QUIPU_MAX_REQUEUE:-100}" ]; then
        echo "job: put back into the queue $count times already: not again" >&2
        return 10
    fi
    requeue
}
