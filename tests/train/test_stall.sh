#!/usr/bin/env bash
# QP_TEST: labels=slow
# A rank that stands still for longer than job.stall_timeout ends the job: exit code 3, one message that
# names it, and the next start goes on as if nothing had happened. A job that is suspended as a whole
# goes on.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"
inject=$(dirname "$QUIPU_BIN")/tests/libquipu_inject.so

make_base base.h5
make_data data
make_deck
sed -i 's/seed = 3;/seed = 3; stall_timeout = 4;/' deck.cfg
quipu_on 1 whole
check "a healthy run is left alone" test "$code" -eq 0

# start RANKS NAME OPTIONS OF MPIRUN...: in the background, until its first step.
start() {
    code=0
    mpirun --oversubscribe --bind-to none -n "$1" "${@:3}" quipu --set "job.name=$2" deck.cfg >log 2>&1 &
    run=$!
    while kill -0 "$run" 2>/dev/null && ! grep -q '^1,' "runs/$2/metrics.csv" 2>/dev/null; do sleep 0.02; done
}
rank_of() { tr '\0' '\n' <"/proc/$1/environ" | sed -n 's/^OMPI_COMM_WORLD_RANK=//p'; }
process_of() { # process_of RANK
    local pid
    for pid in $(pgrep -P "$run" -x quipu); do
        if [ "$(rank_of "$pid")" = "$1" ]; then echo "$pid"; fi
    done
}
check_ended() { # check_ended NAME WHAT MESSAGE
    code=0
    wait "$run" || code=$?
    check "$2: exit code 3" test "$code" -eq 3
    check "$2: says which one" grep -q "$3" log
    check "$2: one message" test "$(grep -c 'job.stall_timeout' log)" -eq 1
    check "$2: nobody is left" not pgrep -P "$run" -x quipu
    check_next "$1" "$2"
}
check_next() { # check_next NAME WHAT
    quipu_on 2 "$1"
    check "$2: the next start ends" test "$code" -eq 0
    check "$2: with the same bits" same_adapter "$1" whole
}

# Stopped: rank 0 sees that the others are silent, rank 1 that rank 0 is.
for case in "0 2" "1 2" "3 4"; do
    read -r rank ranks <<<"$case"
    start "$ranks" "stopped$rank"
    kill -STOP "$(process_of "$rank")"
    check_ended "stopped$rank" "rank $rank is stopped" \
        "rank $rank (process [0-9]* on .*) has not been heard of for 4 s (job.stall_timeout)"
done
check "the log of the run says it, too" grep -q "rank 3 .*job.stall_timeout" runs/stopped3/quipu.log

# Suspended as a whole, for longer than the time-out.
start 2 suspended
mapfile -t all < <(pgrep -P "$run" -x quipu)
kill -STOP "${all[@]}"
sleep 9
kill -CONT "${all[@]}"
wait "$run" || code=$?
check "suspended: goes on" test "$code" -eq 0
check "suspended: with the same bits" same_adapter suspended whole

# A storage server that answers no more: each time the rank is alive, and says what it is at.
hang() { # hang NAME RANKS CALL FILE RANK FIRST MESSAGE
    start "$2" "$1" -x "QUIPU_INJECT=$3 $4 $5 $6 0 HANG" -x "LD_PRELOAD=$inject"
    check_ended "$1" "$3 of $4 hangs on rank $5 of $2" "$7"
}
if [ -e "$inject" ]; then
    hang alone 1 write step-000004.h5.part 0 2 "rank 0 (.*) has stood still for 4 s .* phase: checkpoint"
    hang rank0 2 write step-000004.h5.part 0 2 "rank 0 (.*) has stood still for 4 s .* phase: checkpoint"
    hang rank1 2 write step-000004.h5.part 1 1 "rank 1 (.*) has stood still for 4 s .* phase: checkpoint"
    hang sync 2 sync step-000004.h5.part 1 1 \
        "all 2 ranks have waited for each other for 4 s .*checkpoint; the network, .* or a file system stalls"
fi
end_test
