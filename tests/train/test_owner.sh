#!/usr/bin/env bash
# QP_TEST: labels=slow
# A run's folder has one owner: a second start is refused in one sentence on all ranks, a dead owner's
# lock is taken over, at once on its own machine and after a while from another, and none is left behind.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5
make_data data
make_deck
long=(--set optim.steps=100000 --set checkpoint.every_steps=1000000 --set eval.at_start=false)

start() { # start NAME: a long run on 2 ranks in the background, once it has made a step
    mpirun --oversubscribe --bind-to none -n 2 quipu --set "job.name=$1" "${long[@]}" deck.cfg >first 2>&1 &
    run=$!
    until [ -e "runs/$1/metrics.csv" ] && grep -q '^1,' "runs/$1/metrics.csv"; do
        kill -0 "$run" || break
        sleep 0.1
    done
}
end() { # end SIGNAL: of all its ranks
    local ranks
    mapfile -t ranks < <(pgrep -P "$run" -x quipu)
    kill "-$1" "${ranks[@]}"
    wait "$run" || true
}

SLURM_JOB_ID=4711 start one
lock=runs/one/lock
check "a lock stands in the folder" test -s "$lock"
check "it names the process" grep -qx "pid $(pgrep -P "$run" -x quipu | head -n 1)" "$lock"
before=$(cat runs/one/quipu.log)
began=$(date +%s)
quipu_on 2 one
check "a second start: exit code 2 (got $code)" test "$code" -eq 2
check "a second start: at once" test $(($(date +%s) - began)) -le 20
check "a second start: names the owner" logged "runs/one is in use by host $(uname -n), process"
check "a second start: names the job" logged "Slurm job 4711"
check "a second start: one sentence" test "$(grep -c '\[error' log)" -eq 1
check "a second start: the first one's log stays its own" test "${before:0:200}" = "$(head -c 200 runs/one/quipu.log)"
quipu_on 2 one --dry-run
check "a dry run is allowed" test "$code" -eq 0
check "a dry run says who owns the folder" logged "runs/one is in use by host $(uname -n), process"
cat >eval.cfg <<'DECK'
job  = { method = "eval"; name = "one"; };
base = { file = "base.h5"; };
data = { eval = [ "data-sft-eval.h5" ]; seq_length = 128; };
DECK
deck=eval.cfg quipu_on 1 one
check "an evaluation into the same folder is refused" test "$code" -eq 2
quipu_on 1 other --set optim.steps=2
check "another folder is another's" test "$code" -eq 0

# Killed: no process, no owner.
end KILL
check "after a kill the lock is still there" test -s "$lock"
quipu_on 2 one --dry-run
check "a dry run tells that its owner is gone" logged "runs/one is left behind by host"
began=$(date +%s)
quipu_on 2 one --set optim.steps=3
check "after a kill: starts" test "$code" -eq 0
check "after a kill: at once" test $(($(date +%s) - began)) -le 20
check "after a kill: says so" logged "which is gone: taken over"
check "after a kill: its own log says so" grep -q "which is gone: taken over" runs/one/quipu.log
check "after the end there is no lock" not test -e "$lock"

# Stopped: nothing is left.
start stopped
end TERM
check "after a stop there is no lock" not test -e runs/stopped/lock
quipu_on 1 refused --set optim.steps=3 --set data.seq_length=8192 --set data.packing=none
check "a refused run leaves no lock" test "$code" -eq 2 -a ! -e runs/refused/lock

# A process number that another process has by now; one of a machine that cannot be seen.
other_lock() { # other_lock NAME HOST PLACE PID BEGAN AGE: as another start left it, AGE seconds ago
    mkdir -p "runs/$1"
    printf 'host %s\npid %s\nbegan %s\nplace %s\njob PBS job 9\nsince then\n' "$2" "$4" "$5" "$3" >"runs/$1/lock"
    touch -d "-$6 seconds" "runs/$1/lock"
}
place="$(cat /proc/sys/kernel/random/boot_id) $(readlink /proc/self/ns/pid)"
other_lock reused "$(uname -n)" "$place" $$ 1 0
quipu_on 1 reused --set optim.steps=2
check "another process has its number: taken over" test "$code" -eq 0
other_lock away faraway "its-own space" 1 1 120
quipu_on 2 away --set optim.steps=2
check "from another machine, long silent: taken over" test "$code" -eq 0
check "from another machine, long silent: says so" logged "runs/away/lock was left by host faraway, process 1, PBS job 9"
check "nothing but the run's own files is left" not compgen -G 'runs/away/lock*'
other_lock away2 faraway "its-own space" 1 1 55
quipu_on 2 away2 --set optim.steps=2
check "from another machine, silent for a while: waits, then takes over" test "$code" -eq 0
check "from another machine, silent for a while: says that it waits" logged "whether it still moves"
other_lock alive faraway "its-own space" 1 1 5
(sleep 2; touch runs/alive/lock) &
quipu_on 2 alive --set optim.steps=2
wait $!
check "from another machine, alive: refused" test "$code" -eq 2
check "from another machine, alive: named" logged "runs/alive is in use by host faraway, process 1, PBS job 9"
mkdir -p runs/empty
: >runs/empty/lock
touch -d '-2 minutes' runs/empty/lock
quipu_on 1 empty --set optim.steps=2
check "an empty lock is nobody's" test "$code" -eq 0

# What is no lock of a run is named, not removed, and at once.
no_lock() { # no_lock NAME WHAT: runs/NAME/lock is WHAT
    for dry in --dry-run ""; do
        quipu_on 2 "$1" ${dry:+"$dry"}
        check "$2 $dry: exit code 2 (got $code)" test "$code" -eq 2
        check "$2 $dry: says what to do" logged "runs/$1/lock: is $2, not the lock of a run: remove it, if no run"
        check "$2 $dry: does not wait" not logged "whether it still moves"
    done
    check "$2: is left alone" test -e "runs/$1/lock" -o -L "runs/$1/lock"
}
mkdir -p runs/as-folder/lock runs/as-pipe runs/as-link runs/garbage runs/half runs/control
mkfifo runs/as-pipe/lock
ln -s nowhere runs/as-link/lock
head -c 300 /dev/urandom >runs/garbage/lock
printf 'host faraway\npid 1\n' >runs/half/lock
printf 'host far\033[31maway\npid 1\njob no job\nsince then\n' >runs/control/lock
no_lock as-folder "a folder"
no_lock as-pipe "a pipe"
no_lock as-link "a link"
for name in garbage half control; do no_lock "$name" "a file of something else"; done

# Two starts at once on what a dead run has left: one of them runs.
other_lock race "$(uname -n)" "$place" 999999999 5 0
for i in 1 2 3; do
    quipu --set job.name=race --set optim.steps=2000 --set checkpoint.stop_after_steps=20 deck.cfg >"race$i" 2>&1 &
    pids[i]=$!
done
n_run=0 n_refused=0
for i in 1 2 3; do
    code=0
    wait "${pids[i]}" || code=$?
    if [ "$code" -eq 10 ]; then n_run=$((n_run + 1)); fi
    if [ "$code" -eq 2 ] && grep -qF 'is in use by' "race$i"; then n_refused=$((n_refused + 1)); fi
done
check "three starts at once: one runs ($n_run), the others are refused ($n_refused)" \
    test "$n_run" -eq 1 -a "$n_refused" -eq 2

# An owner that was taken for dead finds out, and writes nothing more.
start frozen
mapfile -t ranks < <(pgrep -P "$run" -x quipu)
kill -STOP "${ranks[@]}"
other_lock frozen faraway "its-own space" 7 7 0
kill -CONT "${ranks[@]}"
code=0
wait "$run" || code=$?
cp first log
check "an owner that lost its lock ends with 3 (got $code)" test "$code" -eq 3
check "an owner that lost its lock says who has it" logged "runs/frozen/lock is now of host faraway, process 7"
check "an owner that lost its lock leaves the other's" grep -q faraway runs/frozen/lock
end_test
