#!/usr/bin/env bash
# The job scripts with stand-ins for srun, mpirun, scontrol, qsub and quipu on PATH: what they start,
# when they put the job back into the queue, and when they do not.
# shellcheck disable=SC2016
set -euo pipefail
source=${QUIPU_SOURCE:?}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

check() { # check NAME CONDITION...
    local name=$1
    shift
    if ! "$@"; then
        echo "failed: $name"
        sed 's/^/    /' "$work/log"
        failures=$((failures + 1))
    fi
}
logged() { grep -qF -- "$1" "$work/log"; }
not() { ! "$@"; }

# A stand-in that notes how it was called; srun and mpirun also start their program.
mkdir "$work/bin"
stub() { # stub NAME BODY
    printf '#!/usr/bin/env bash\necho "%s $*" >>"%s/log"\n%s\n' "$1" "$work" "$2" >"$work/bin/$1"
    chmod +x "$work/bin/$1"
}
start_program='while [ "$1" != quipu ]; do shift; done; exec "$@"'
stub srun "$start_program"
stub mpirun "$start_program"
stub scontrol 'case $1 in show) echo "   StartTime=2030-01-01T00:00:00 EndTime=${END:-2030-01-02T00:00:00} x" ;; esac'
stub qsub ''
stub qstat 'echo "    Resource_List.walltime = 01:30:10"'
# The program: gains $GAIN steps, ends with $CODE.
stub quipu 'echo "env $SLURM_JOB_END_TIME $PBS_WALLTIME" >>"$LOG"
if [ "$1" = --run-folder ]; then echo run; exit 0; fi
mkdir -p run/checkpoints
[ "$GAIN" -eq 0 ] || touch "run/checkpoints/step-$(printf %06d "$((7 + GAIN))").h5"
exit "$CODE"'
PATH=$work/bin:$PATH
export PATH QUIPU_ROOT=$source LOG=$work/log
cd "$work"

code=0
submit() { # submit SCRIPT GAIN CODE [VARIABLE=VALUE...]
    local script=$1
    export GAIN=$2 CODE=$3
    shift 3
    rm -rf run
    mkdir -p run/checkpoints/step-000099.h5 # no checkpoint, nor is the next one
    touch run/checkpoints/step-000007.h5 run/checkpoints/step-old.h5
    : >"$work/log"
    code=0
    env "$@" bash -c 'exec bash "$0" "${WORK:-my.cfg}"' "$source/jobscripts/$script" >>"$work/log" 2>&1 ||
        code=$?
}
slurm=(slurm/quipu.sbatch)
slurm_env=(SLURM_JOB_ID=42 SLURM_SUBMIT_DIR="$source" SLURM_JOB_END_TIME=1893456000 PBS_WALLTIME=)
pbs=(pbs/quipu.pbs)
pbs_env=(PBS_JOBID=42.host PBS_O_WORKDIR="$work" PBS_WALLTIME=600 SLURM_JOB_END_TIME=)

submit "${slurm[@]}" 3 0 "${slurm_env[@]}"
check "slurm: starts the deck" logged "srun --cpu-bind=cores --kill-on-bad-exit=0 --wait=10 quipu my.cfg"
check "slurm: done ends with 0" test "$code" -eq 0
check "slurm: done is not put back" not logged "scontrol requeue"

submit "${slurm[@]}" 3 10 "${slurm_env[@]}"
check "slurm: stopped early is put back" logged "scontrol requeue 42"
check "slurm: put back ends with 0" test "$code" -eq 0

submit "${slurm[@]}" 0 10 "${slurm_env[@]}"
check "slurm: no step gained is not put back" not logged "scontrol requeue"
check "slurm: no step gained keeps the code" test "$code" -eq 10

submit "${slurm[@]}" 3 10 "${slurm_env[@]}" SLURM_RESTART_COUNT=4 QUIPU_MAX_REQUEUE=4
check "slurm: bounded" not logged "scontrol requeue"
check "slurm: bounded says so" logged "not again"

submit "${slurm[@]}" 3 2 "${slurm_env[@]}"
check "slurm: wrong input keeps the code" test "$code" -eq 2
check "slurm: wrong input is not put back" not logged "scontrol requeue"

submit "${slurm[@]}" 3 0 "${slurm_env[@]}" SLURM_JOB_END_TIME= TZ=UTC
check "slurm: old versions are asked for the end" logged "env 1893542400 "

submit "${slurm[@]}" 3 0 "${slurm_env[@]}" SLURM_JOB_END_TIME= END=Unknown
check "slurm: a job without an end has none" logged "env  "
check "slurm: a job without an end runs" test "$code" -eq 0

submit "${pbs[@]}" 3 0 "${pbs_env[@]}"
check "pbs: starts the deck" logged "mpirun --map-by socket --bind-to socket quipu my.cfg"
check "pbs: done ends with 0" test "$code" -eq 0
check "pbs: done is not put back" not logged "qsub"

submit "${pbs[@]}" 3 10 "${pbs_env[@]}"
check "pbs: stopped early is put back" logged "QUIPU_REQUEUED=1"
check "pbs: put back with its deck" logged "DECK=my.cfg"

submit "${pbs[@]}" 3 10 "${pbs_env[@]}" QUIPU_REQUEUED=4 QUIPU_MAX_REQUEUE=4
check "pbs: bounded" not logged "qsub"

submit "${pbs[@]}" 0 10 "${pbs_env[@]}"
check "pbs: no step gained is not put back" not logged "qsub"
check "pbs: no step gained keeps the code" test "$code" -eq 10

submit "${pbs[@]}" 3 0 "${pbs_env[@]}" PBS_WALLTIME=
check "pbs: the limit is asked for" logged "env  01:30:10"

# A chain: deck after deck with merges in between; it ends where a deck does not.
printf 'deck a.cfg\nmerge base.h5 run/adapter new.h5 --no-logits\ndeck b.cfg\n' >my.chain.sh
stub quipu-merge 'touch "${@: -1}"'
declare -A put_back=([slurm]="scontrol requeue 42" [pbs]="DECK=my.chain.sh")
for system in slurm pbs; do
    declare -n script=$system variables=${system}_env
    rm -f new.h5
    submit "${script[@]}" 3 0 "${variables[@]}" WORK=my.chain.sh
    check "$system: a chain starts its first deck" logged "quipu a.cfg"
    check "$system: a chain merges" logged "quipu-merge --no-logits base.h5 run/adapter new.h5"
    check "$system: a chain starts its last deck" logged "quipu b.cfg"
    check "$system: a chain ends with 0" test "$code" -eq 0
    submit "${script[@]}" 3 0 "${variables[@]}" WORK=my.chain.sh
    check "$system: what is merged is not merged again" not logged "quipu-merge"
    submit "${script[@]}" 3 10 "${variables[@]}" WORK=my.chain.sh
    check "$system: a chain that stopped early is put back" logged "${put_back[$system]}"
    check "$system: a chain that was put back goes no further" not logged "quipu b.cfg"
    check "$system: a chain that was put back ends with 0" test "$code" -eq 0
    submit "${script[@]}" 3 2 "${variables[@]}" WORK=my.chain.sh
    check "$system: a chain ends with a wrong deck" not logged "quipu b.cfg"
    check "$system: a chain keeps the code" test "$code" -eq 2
done

# qdel: SIGTERM to the script reaches mpirun as SIGUSR1, and the script waits for its end.

stub mpirun 'trap "echo got USR1 >>$LOG; touch run/checkpoints/step-000009.h5; exit 10" USR1
touch run/ready
while :; do sleep 0.05; done'
rm -rf run
mkdir -p run/checkpoints
: >"$work/log"
env "${pbs_env[@]}" bash "$source/jobscripts/pbs/quipu.pbs" my.cfg >>"$work/log" 2>&1 &
script=$!
until [ -e run/ready ] || ! kill -0 "$script"; do sleep 0.05; done
kill -TERM "$script"
code=0
wait "$script" || code=$?
check "pbs: SIGTERM is passed on" logged "got USR1"
check "pbs: after SIGTERM put back" logged "qsub"
check "pbs: after SIGTERM ends with 0" test "$code" -eq 0

if command -v shellcheck >/dev/null; then
    (cd "$source" && shellcheck -x jobscripts/*/quipu.* jobscripts/common.sh) || failures=$((failures + 1))
fi
echo "$failures failures"
[ "$failures" -eq 0 ]
