#!/usr/bin/env bash
# The job script of Slurm with stand-ins for srun, scontrol and quipu on PATH: what it starts, when it puts
# the job back into the queue, and when it does not. That of PBS has a test of its own, tests/pbs.
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

# A stand-in that notes how it was called; srun also starts its program.
mkdir "$work/bin"
stub() { # stub NAME BODY
    printf '#!/usr/bin/env bash\necho "%s $*" >>"%s/log"\n%s\n' "$1" "$work" "$2" >"$work/bin/$1"
    chmod +x "$work/bin/$1"
}
start_program='while [ "$1" != quipu ]; do shift; done; exec "$@"'
stub srun "case \$* in *SLURM_GPUS_ON_NODE*) echo 3; exit ;; esac; $start_program"
stub scontrol 'case "$*" in
*"show job"*) echo "   StartTime=2030-01-01T00:00:00 EndTime=${END:-2030-01-02T00:00:00} x" ;;
*"show node"*) echo "NodeName=n7 CoresPerSocket=32 Gres=(null) Sockets=2 Boards=1 ThreadsPerCore=2" ;;
esac'
# The program: gains $GAIN steps, ends with $CODE.
stub quipu 'echo "env $SLURM_JOB_END_TIME $PBS_WALLTIME" >>"$LOG"
if [ "$1" = --run-folder ]; then echo "folder of $*" >>"$LOG"; echo run; exit 0; fi
mkdir -p run/checkpoints
[ "$GAIN" -eq 0 ] || touch "run/checkpoints/step-$(printf %06d "$((7 + GAIN))").h5"
[ -z "${LOST:-}" ] || touch run/lock
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
    env "$@" bash -c 'exec bash "$0" "${WORK:-my.cfg}" ${OPTIONS:-}' "$source/jobscripts/$script" \
        >>"$work/log" 2>&1 || code=$?
}
slurm=(slurm/quipu.sbatch)
slurm_env=(SLURM_JOB_ID=42 SLURM_SUBMIT_DIR="$source" SLURM_JOB_END_TIME=1893456000 PBS_WALLTIME=
    SLURM_HINT=nomultithread SLURMD_NODENAME=n7 SLURM_JOB_NUM_NODES=2 SLURM_NTASKS=2
    SLURM_JOB_CPUS_PER_NODE="64(x2)" SLURM_CPUS_ON_NODE=64 SLURM_TASKS_PER_NODE="1(x2)")

submit "${slurm[@]}" 3 0 "${slurm_env[@]}"
check "slurm: starts the deck" logged " --cpu-bind=cores --kill-on-bad-exit=0 --wait=10 quipu my.cfg"
check "slurm: a rank per socket" logged "srun --ntasks=4 --ntasks-per-node=2 --cpus-per-task=32 --cpu-bind"
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

for killed in 137 139; do
    submit "${slurm[@]}" 3 "$killed" "${slurm_env[@]}"
    check "slurm: $killed, a rank was killed, is put back" logged "scontrol requeue 42"
    submit "${slurm[@]}" 0 "$killed" "${slurm_env[@]}"
    check "slurm: $killed with no step gained is not put back" not logged "scontrol requeue"
    check "slurm: $killed with no step gained keeps the code" test "$code" -eq "$killed"
done
submit "${slurm[@]}" 3 137 "${slurm_env[@]}" SLURM_RESTART_COUNT=4 QUIPU_MAX_REQUEUE=4
check "slurm: killed, bounded" not logged "scontrol requeue"
submit "${slurm[@]}" 3 0 "${slurm_env[@]}" LOST=yes
check "slurm: all is well, says srun where a node is lost: put back" logged "scontrol requeue 42"
for failed in 1 3; do
    submit "${slurm[@]}" 3 "$failed" "${slurm_env[@]}"
    check "slurm: $failed is not put back" not logged "scontrol requeue"
done

submit "${slurm[@]}" 3 10 "${slurm_env[@]}" SLURM_ARRAY_JOB_ID=42 SLURM_ARRAY_TASK_ID=3 \
    OPTIONS="--set job.seed=%a --set job.name=run-%a"
check "slurm: options are handed on" logged " quipu --set job.seed=3 --set job.name=run-3 my.cfg"
check "slurm: the folder is that of the options" logged "folder of --run-folder --set job.seed=3 --set job.name=run-3 my.cfg"
check "slurm: one job of an array is put back, not all" logged "scontrol requeue 42_3"

# started NAME EXPECTED VARIABLE=VALUE...: what srun is asked for.
started() {
    submit "${slurm[@]}" 3 0 "${slurm_env[@]}" "${@:3}"
    check "slurm: $1" logged "srun $2 --cpu-bind"
}
started "nodes with a reserved core" "--ntasks=4 --ntasks-per-node=2 --cpus-per-task=31" \
    SLURM_JOB_CPUS_PER_NODE="64,63"
started "threads are CPUs" "--ntasks=4 --ntasks-per-node=2 --cpus-per-task=64" \
    SLURM_HINT= SLURM_JOB_CPUS_PER_NODE="128(x2)" SLURM_NTASKS_PER_CORE=65535
started "ranks of each node" "--cpus-per-task=16" SLURM_NTASKS=8 SLURM_NTASKS_PER_NODE=4 SLURM_TASKS_PER_NODE="4(x2)"
started "ranks of all nodes" "--cpus-per-task=12" SLURM_NTASKS=8 SLURM_TASKS_PER_NODE="5,3"
started "cores of a rank" "--ntasks=16 --ntasks-per-node=8 --cpus-per-task=8" SLURM_CPUS_PER_TASK=8
started "ranks and their cores" "--cpus-per-task=3" SLURM_NTASKS=4 SLURM_CPUS_PER_TASK=3 SLURM_TASKS_PER_NODE="2(x2)"
started "GPUs of each node" "--ntasks=6 --ntasks-per-node=3 --cpus-per-task=21" SLURM_GPUS_ON_NODE=4
started "GPUs of all nodes" "--ntasks=5 --ntasks-per-gpu=1 --cpus-per-task=16" SLURM_GPUS_ON_NODE=4 SLURM_GPUS=a100:5
started "a core of a shared node" "--ntasks=2 --ntasks-per-node=1 --cpus-per-task=1" \
    SLURM_JOB_CPUS_PER_NODE="1(x2)" SLURM_CPUS_ON_NODE=1
check "slurm: little of a node is said" logged "the job has 1 of the 64 cores of n7"

stub mpirun "$start_program"
submit "${slurm[@]}" 3 10 "${slurm_env[@]}" QUIPU_MPIRUN="mpirun --bind-to none"
check "slurm: mpirun inside the allocation" logged "mpirun --bind-to none quipu my.cfg"
check "slurm: no srun then" not logged "srun"
check "slurm: nor another end" logged "scontrol requeue 42"

submit "${slurm[@]}" 3 0 "${slurm_env[@]}" SLURM_JOB_END_TIME= TZ=UTC
check "slurm: old versions are asked for the end" logged "env 1893542400 "

submit "${slurm[@]}" 3 0 "${slurm_env[@]}" SLURM_JOB_END_TIME= END=Unknown
check "slurm: a job without an end has none" logged "env  "
check "slurm: a job without an end runs" test "$code" -eq 0

# A chain: deck after deck with merges in between; it ends where a deck does not.
printf 'deck a.cfg\nmerge base.h5 run/adapter new.h5 --no-logits\ndeck b.cfg\n' >my.chain.sh
stub quipu-merge 'touch "${@: -1}"'
rm -f new.h5
submit "${slurm[@]}" 3 0 "${slurm_env[@]}" WORK=my.chain.sh
check "slurm: a chain starts its first deck" logged "quipu a.cfg"
check "slurm: a chain merges" logged "quipu-merge --no-logits base.h5 run/adapter new.h5"
check "slurm: a chain starts its last deck" logged "quipu b.cfg"
check "slurm: a chain ends with 0" test "$code" -eq 0
submit "${slurm[@]}" 3 0 "${slurm_env[@]}" WORK=my.chain.sh
check "slurm: what is merged is not merged again" not logged "quipu-merge"
submit "${slurm[@]}" 3 10 "${slurm_env[@]}" WORK=my.chain.sh
check "slurm: a chain that stopped early is put back" logged "scontrol requeue 42"
check "slurm: a chain that was put back goes no further" not logged "quipu b.cfg"
check "slurm: a chain that was put back ends with 0" test "$code" -eq 0
submit "${slurm[@]}" 3 2 "${slurm_env[@]}" WORK=my.chain.sh
check "slurm: a chain ends with a wrong deck" not logged "quipu b.cfg"
check "slurm: a chain keeps the code" test "$code" -eq 2

if command -v shellcheck >/dev/null; then
    (cd "$source" && shellcheck -x jobscripts/*/quipu.* jobscripts/common.sh) || failures=$((failures + 1))
fi
echo "$failures failures"
[ "$failures" -eq 0 ]
