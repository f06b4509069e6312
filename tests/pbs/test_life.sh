#!/usr/bin/env bash
# QP_TEST: labels=slow
# The job script of PBS, as it is shipped, under a stand-in for OpenPBS (openpbs beside this file): a job is
# done; is put back with all that its user asked for; is deleted, started again by PBS, at its limit; a
# chain; an array; another MPI. Each run ends with the bits of one that nothing disturbed.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/../train/e2e.sh"
for tool in flock setsid pgrep realpath; do command -v "$tool" >/dev/null || exit 77; done
pbs=$work/pbs
standin() { bash "$QUIPU_SOURCE/tests/pbs/openpbs" "$@"; }
standin install "$pbs"
echo 60 >"$pbs/spool/kill_delay" # nothing needs as long, unless the machine is busy
trap 'standin stop "$pbs"; finish' EXIT

make_base base.h5
make_data data
make_deck
mkdir -p logs tools jobscripts
cp -r "$QUIPU_SOURCE/jobscripts" .

# quipu, and a note of the variables that each of its processes had.
cat >tools/quipu <<'END'
#!/usr/bin/env bash
if [ "$1" != --run-folder ]; then
    { for name in "${!TEST_@}"; do printf '%s=%q\n' "$name" "${!name}"; done
      echo "ranks=${OMPI_COMM_WORLD_SIZE:-} left=${PBS_WALLTIME:-}"; } >"$TEST_NOTES/$PBS_JOBID-${OMPI_COMM_WORLD_RANK:-0}"
fi
exec "$TEST_QUIPU" "$@"
END
# mpirun, and a note of its options; where TEST_OTHER_MPI is set it is that of another MPI, for one rank.
cat >"$pbs/bin/mpirun" <<END
#!/usr/bin/env bash
if [ "\$1" != --version ]; then echo "\$*" >"\$TEST_NOTES/\$PBS_JOBID-mpirun"; fi
if [ -z "\${TEST_OTHER_MPI:-}" ]; then exec "$(command -v mpirun)" "\$@"; fi
if [ "\$1" = --version ]; then echo "HYDRA build details"; else exec "\$@"; fi
END
cat >tools/launcher <<'END'
#!/usr/bin/env bash
echo "$*" >"$TEST_NOTES/$PBS_JOBID-launcher"
exec "${@:3}"
END
chmod +x tools/quipu tools/launcher "$pbs/bin/mpirun"
mkdir notes
export TEST_NOTES=$work/notes TEST_QUIPU=$QUIPU_BIN/quipu QUIPU=$work/tools/quipu
needed=TEST_NOTES,TEST_QUIPU,QUIPU,OMPI_ALLOW_RUN_AS_ROOT,OMPI_ALLOW_RUN_AS_ROOT_CONFIRM,OMPI_MCA_mpi_yield_when_idle,OMP_WAIT_POLICY
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 OMP_WAIT_POLICY=passive

deck_of() { sed "s/name = \"run\"/name = \"$1\"/; $2" deck.cfg >"$1.cfg"; } # deck_of NAME CHANGE
qsub() { "$pbs/bin/qsub" "$@" jobscripts/pbs/quipu.pbs 2>log || { cat log; return 1; }; }
# Attributes of a job as they are kept, not as qstat folds them.
of() { cat "$pbs/spool/jobs/${1%%.*}/attributes/$2" 2>/dev/null; }
state() { of "$1" job_state; }
output() { cat "$pbs/spool/jobs/${1%%.*}/out" 2>/dev/null; }
said() { output "$1" | grep -qF -- "$2"; }
# await ID COMMAND...: until it holds, or the job is over.
await() {
    local id=$1
    shift
    while ! "$@"; do
        if [ -z "$(state "$id")" ] || [ "$(state "$id")" = F ]; then # there is no such job, or it is over
            "$@" && return
            echo "job $id ended early: $*"
            output "$id" | tail -n 20
            failures=$((failures + 1))
            return
        fi
        sleep 0.1
    done
}
ended() { [ "$(state "$1")" = F ]; }
await_end() { await "$1" ended "$1"; }
# The job that was put back for another.
successor() { output "$1" | sed -n 's/^job: put back into the queue as //p'; }
steps_of() { awk -F, '$1 ~ /^[0-9]+$/ { n = $1 } END { print n + 0 }' "runs/$1/metrics.csv" 2>/dev/null || echo 0; }
newest() { find "runs/$1/checkpoints" -name 'step-*.h5' | sort | tail -n 1 | sed 's/.*step-0*//; s/[.]h5//'; }
# All that a user can ask for. The queue hands the job on to another one; its log goes into a folder.
export TEST_COMMAS='a,b,,c' TEST_QUOTES="it's \"so\"" TEST_BACKSLASH='\n C:\x,\' TEST_SPACES=' two  words '
export TEST_LINES=$'one\n\ttwo\n' TEST_EMPTY='' TEST_EQUALS='a=b,PATH=c' TEST_UNICODE='Hopfen & Käse; $HOME'
export TEST_LONG
TEST_LONG=$(seq -s : 60)
deck_of asked 's/keep = 2/keep = 2; stop_after_steps = 4/'
asked=$(DECK=asked.cfg qsub -V -q route -A acc-1 -P beer -N brew -l select=2:ncpus=1:mpiprocs=1:mem=1gb:scratch=5 \
    -l place=scatter:excl -l walltime=01:02:03 -l software=malt -m abe -M a@example.org,b@example.org -p 7 -j oe \
    -k n -W umask=027 -W group_list=brewers -o "$work/logs/" -S /bin/bash -r y)
# In the background, two that reach their limits twice. A deck that is done, then one that never is: its job
# has 30 seconds in all, and the chain takes three.
deck_of first 's/keep = 2/keep = 2; walltime_margin = "10"/'
deck_of second 's/keep = 2/keep = 2; walltime_margin = "10"/; s/steps = 6/steps = 100000/'
# shellcheck disable=SC2016
printf 'deck first.cfg\n[ "${QUIPU_REQUEUED:-0}" -gt 0 ] || sleep 3\ndeck second.cfg\n' >both.chain.sh
export QUIPU_MAX_REQUEUE=1
chain=$(qsub -v "DECK=both.chain.sh,QUIPU_MAX_REQUEUE,$needed" -l select=1:ncpus=1:mpiprocs=1 -l walltime=30)
# One that believes to have an hour, so that PBS ends it.
deck_of late 's/keep = 2/keep = 2; walltime = "1:00:00"/; s/steps = 6/steps = 100000/'
late=$(qsub -v "DECK=late.cfg,QUIPU_MAX_REQUEUE,$needed" -l select=1:ncpus=1:mpiprocs=1 -l walltime=20)

# asked: four steps, the rest in a second job.
await_end "$asked"
again=$(successor "$asked")
check "asked: put back" test -n "$again"
await_end "$again"
check "asked: done" test "$(of "$again" Exit_status)" = 0
check "asked: done is not put back" test -z "$(successor "$again")"
for name in "$pbs/spool/jobs/${asked%%.*}"/attributes/*; do
    name=${name##*/}
    case $name in ctime | stime | depend | Submit_arguments | Variable_List | Error_Path | exec_host) continue ;; esac
    check "asked: the same $name" test "$(of "$asked" "$name")" = "$(of "$again" "$name")"
done
check "asked: PBS folds what the script reads" grep -q "^$(printf '\t')" <("$pbs/bin/qstat" -xf "$asked")
check "asked: the next waits for the first" test "$(of "$again" depend)" = "afterany:$asked"
check "asked: the folder of the logs has both" test -s "logs/$asked.OU" -a -s "logs/$again.OU"
check "asked: variables of the first" test "$(grep -c '^TEST_' "notes/$asked-0")" -eq 11
check "asked: the same variables" diff <(grep '^TEST_' "notes/$asked-0") <(grep '^TEST_' "notes/$again-0")
check "asked: a rank for each line of the node file" grep -q ranks=2 "notes/$again-1"
if ompi_info | grep 'MCA ras: tm ' >/dev/null; then nodes=(not logged --hostfile); else nodes=(logged "--hostfile $pbs/spool"); fi
cp "notes/$asked-mpirun" log
check "asked: Open MPI is told the nodes where it does not know PBS" "${nodes[@]}"
check "asked: the wall time is given in seconds" grep -qE 'left=3[67][0-9][0-9]$' "notes/$asked-0"
quipu_on 1 asked-whole
check "asked: as if nothing had happened" same_adapter asked asked-whole

# signals: started again by an operator, put back by SIGUSR1, deleted.
deck_of signals 's/steps = 6/steps = 100000/'
signals=$(qsub -v "DECK=signals.cfg,$needed" -l select=1:ncpus=2:mpiprocs=2)
runs() { [ "$(steps_of signals)" -ge "$1" ]; }
await "$signals" runs 3
check "signals: users cannot requeue" not "$pbs/bin/qrerun" "$signals" 2>log
PBS_OPERATOR=1 "$pbs/bin/qrerun" "$signals"
again_runs() { [ "$(of "$signals" run_count)" -eq 2 ] && said "$signals" "continuing after step"; }
await "$signals" again_runs
check "signals: stopped by SIGTERM" grep -qF "(a signal)" runs/signals/quipu.log
check "signals: what PBS starts again is not put back" test -z "$(successor "$signals")"
await "$signals" runs "$(($(steps_of signals) + 1))"
"$pbs/bin/qsig" -s SIGUSR1 "$signals"
await_end "$signals"
again=$(successor "$signals")
check "signals: SIGUSR1 puts it back" test -n "$again"
await "$again" said "$again" "continuing after step"
await "$again" runs "$(($(steps_of signals) + 1))"
"$pbs/bin/qdel" "$again"
await_end "$again"
check "signals: deleted is not put back" test -z "$(successor "$again")"
check "signals: and says so" said "$again" "deleted"
steps=$(steps_of signals)
check "signals: a checkpoint of the last step" test "$(newest signals)" -eq "$steps"
quipu_on 2 signals --set "optim.steps=$((steps + 2))"
quipu_on 2 signals-whole --set "optim.steps=$((steps + 2))"
check "signals: as if nothing had happened" same_adapter signals signals-whole

# array: two runs, each stopped and put back by itself.
array=$(qsub -J 3-7:4 -l select=1:ncpus=1:mpiprocs=1 -o "$work/logs/^array_index^.log" \
    -v "DECK=deck.cfg,QUIPU_OPTIONS=--set checkpoint.stop_after_steps=4 --set job.name=array-%a,$needed")
for index in 3 7; do
    part="${array%%[*}[$index]"
    await_end "$part"
    again=$(successor "$part")
    check "array: put back as an array" test "${again#*[}" = "].$(hostname)"
    again="${again%%[*}[$index]"
    await_end "$again"
    for name in array_index Output_Path Job_Name Resource_List.select; do
        check "array: the same $name" test "$(of "$part" "$name")" = "$(of "$again" "$name")"
    done
    check "array: as if nothing had happened" same_adapter "array-$index" asked-whole
    check "array: a file of its own" grep -q "exit code 0" "logs/$index.log"
done

# Other ways to start ranks: no option of Open MPI's for what is not its mpirun.
export TEST_OTHER_MPI=1 QUIPU_MPIRUN="$work/tools/launcher -n 1"
other=$(qsub -v "DECK=first.cfg,TEST_OTHER_MPI,$needed")
named=$(qsub -v "DECK=deck.cfg,QUIPU_MPIRUN,$needed")
await_end "$other"
await_end "$named"
check "another MPI: runs" test "$(of "$other" Exit_status)" = 0
check "another MPI: without options" test "$(cat "notes/$other-mpirun")" = "$QUIPU first.cfg"
check "QUIPU_MPIRUN: runs" test "$(of "$named" Exit_status)" = 0
check "QUIPU_MPIRUN: with its options" test "$(cat "notes/$named-launcher")" = "-n 1 $QUIPU deck.cfg"

# In an interactive job nothing is submitted, and the user's shell is left alone.
code=0
deck_of interactive 's/keep = 2/keep = 2; stop_after_steps = 2/'
env PATH="$pbs/bin:$PATH" PBS_ENVIRONMENT=PBS_INTERACTIVE PBS_JOBID=9.here PBS_O_WORKDIR="$work" \
    PBS_NODEFILE=none bash jobscripts/pbs/quipu.pbs interactive.cfg >log 2>&1 || code=$?
check "interactive: keeps the code" test "$code" -eq 10
check "interactive: is not put back" logged "interactive: not put back"

# late: PBS ends it, which is no deletion.
await_end "$late"
again=$(successor "$late")
check "late: put back after its limit" test -n "$again"
check "late: with the bound" test "$(of "$again" Variable_List | grep -c QUIPU_MAX_REQUEUE=1)" -eq 1
await_end "$again"
check "late: went on" said "$again" "continuing after step"
check "late: with a checkpoint" test "$(newest late)" -eq "$(steps_of late)"
check "late: not again" test -z "$(successor "$again")"

# chain: stopped within its 30 seconds, and put back.
await_end "$chain"
again=$(successor "$chain")
check "chain: put back at its limit" test -n "$again"
check "chain: by the program, not by PBS" said "$chain" "the wall time runs out"
left() { output "$1" | sed -n 's/.*wall time: \([0-9]*\) s left.*/\1/p' | sed -n "$2p"; }
check "chain: the first deck has the job's time" test "$(left "$chain" 1)" -le 30
check "chain: the second deck has what is left" test "$(left "$chain" 2)" -le "$(($(left "$chain" 1) - 3))"
await_end "$again"
check "chain: what is done passes at once" said "$again" "all 6 steps are done already"
check "chain: went on" said "$again" "continuing after step"
check "chain: with a checkpoint" test "$(newest second)" -eq "$(steps_of second)"
check "chain: not again" test -z "$(successor "$again")"
end_test
