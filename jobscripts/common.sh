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
        step=${file##*/step-}
        step=${step%.h5}
        if [ ! -f "$file" ] || [[ ! $step =~ ^[0-9]+$ ]]; then continue; fi
        step=$((10#$step))
        if [ "$step" -gt "$newest" ]; then newest=$step; fi
    done
    echo "$newest"
}

# run_job DECK|CHAIN COUNT [OPTION...]: runs a deck or, if the name ends in .chain.sh, a script of the
# functions deck and merge below. What is done already passes at once, so a chain that was put back
# into the queue goes on where it stopped. The options are those of quipu, for each deck.
run_job() {
    n_requeued=$2
    deck_options=("${@:3}")
    case $1 in
    *.chain.sh)
        # shellcheck source=input/ppo-stackexchange/rlhf.chain.sh
        . "$1"
        ;;
    *) deck "$1" ;;
    esac
}

# deck DECK: the job ends here unless all steps of the deck are done.
deck() {
    was_requeued=false
    run_deck "$1" "$n_requeued"
    if "$was_requeued"; then exit 0; fi
}

# merge BASE ADAPTER OUT [OPTION...]: quipu-merge, unless OUT is there already.
merge() {
    local program=${QUIPU:-quipu}
    if [ ! -e "$3" ]; then "${program%quipu}quipu-merge" "${@:4}" "$1" "$2" "$3"; fi
}

# run_deck DECK COUNT: runs the deck; if there is more to do (see goes_on) puts the job back into the
# queue, unless that was done COUNT >= QUIPU_MAX_REQUEUE times already or this start completed no step.
run_deck() {
    local program=${QUIPU:-quipu} folder before after code=0
    local arguments=("${deck_options[@]}" "$1")
    folder=$("$program" --run-folder "${arguments[@]}")
    before=$(newest_step "$folder")
    launch "$program" "${arguments[@]}" || code=$?
    if [ "$code" -eq 0 ] && [ -e "$folder/lock" ]; then
        echo "job: the launcher says that all is well, but the run has not ended by itself: a node was lost" >&2
        code=137
    fi
    after=$(newest_step "$folder")
    echo "job: exit code $code; newest checkpoint after step $after, before this start $before"
    if ! goes_on "$code"; then
        return "$code"
    fi
    if [ "$after" -le "$before" ]; then
        echo "job: no step was gained: not put back into the queue" >&2
        return "$code"
    fi
    if [ "$2" -ge "${QUIPU_MAX_REQUEUE:-100}" ]; then
        echo "job: put back into the queue $2 times already: not again" >&2
        return "$code"
    fi
    requeue
    was_requeued=true
}

# goes_on CODE: whether another start may get further: the run stopped early with a good checkpoint, or
# a signal ended a rank (128 and its number; SIGKILL where a node was lost or had no memory left) and not
# the program itself, which has said why.
goes_on() { [ "$1" -eq 10 ] || [ "$1" -gt 128 ]; }
