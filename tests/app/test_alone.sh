#!/usr/bin/env bash
# Environments that look like a launcher's step: one task runs alone in each of them, several tasks that
# MPI does not join are refused in one sentence, and mpirun still gives as many ranks as it was asked for.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/../train/e2e.sh"

make_base base.h5
make_data data
make_deck
mkdir model

slurm=(SLURM_JOB_ID=5 SLURM_JOBID=5 SLURM_NODELIST=n1 SLURM_JOB_NODELIST=n1 SLURM_PROCID=0 SLURM_LOCALID=0)
step=("${slurm[@]}" SLURM_STEP_ID=0 SLURM_STEPID=0 SLURM_STEP_NODELIST=n1)
pmix=(PMIX_RANK=0 PMIX_NAMESPACE=slurm.5.0 'PMIX_SERVER_URI2=slurm.5.0;tcp4://127.0.0.1:9')

# A pair of a name and the variables of that environment.
alone() {
    local name=$1
    shift
    code=0
    env "$@" quipu --dry-run deck.cfg >log 2>&1 || code=$?
    check "$name: a dry run" test "$code" -eq 0
    code=0
    env "$@" quipu-prep jsonl data.jsonl --base base.h5 --out "model/$name" >log 2>&1 || code=$?
    check "$name: quipu-prep" test "$code" -eq 0
    code=0
    env "$@" quipu-inspect --verify base.h5 >log 2>&1 || code=$?
    check "$name: quipu-inspect" test "$code" -eq 0
    code=0
    env "$@" quipu-import --synthetic tiny "model/$name.h5" >log 2>&1 || code=$?
    check "$name: quipu-import" test "$code" -eq 0
}
alone salloc "${slurm[@]}" SLURM_NTASKS=4
alone pty "${step[@]}" SLURM_NTASKS=1 SLURM_STEP_NUM_TASKS=1
alone pty-pmix "${step[@]}" SLURM_NTASKS=1 SLURM_STEP_NUM_TASKS=1 "${pmix[@]}"
alone pty-pmi2 "${step[@]}" SLURM_NTASKS=1 SLURM_STEP_NUM_TASKS=1 PMI_FD=9 PMI_RANK=0 PMI_SIZE=1
alone interactive-step "${step[@]}" SLURM_STEP_ID=4294967290 SLURM_NTASKS=4
alone batch-step "${step[@]}" SLURM_STEP_ID=4294967291 SLURM_NTASKS=4 "${pmix[@]}"
alone pbs-pmi PBS_JOBID=7.server PALS_RANKID=0 PMI_RANK=0 PMI_SIZE=1
alone flux FLUX_JOB_ID=3 FLUX_URI=local:///none FLUX_JOB_SIZE=1
alone ended-mpirun OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_RANK=0 'OMPI_MCA_ess=^singleton' "${pmix[@]}"

refused() { # refused NAME MESSAGE VARIABLES...: of all tasks one speaks
    local name=$1 message=$2
    shift 2
    code=0
    env "$@" quipu deck.cfg >log 2>&1 || code=$?
    check "$name: exit code 2 (got $code)" test "$code" -eq 2
    check "$name: one line says so" test "$(grep -cF -- "$message" log)" -eq 1 -a "$(wc -l <log)" -eq 1
    check "$name: nothing is written" not test -e runs
}
refused "srun without PMI" "Slurm started this program as 4 tasks" "${step[@]}" SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=4
refused "another MPI's mpiexec" "a PMI launcher started this program as 2 tasks" PMI_SIZE=2 PMI_RANK=0
refused "ranks of nobody" "mpirun started this program as 3 tasks" OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_RANK=0
code=0
env "${step[@]}" SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2 quipu deck.cfg >log 2>&1 || code=$?
check "the other tasks are silent" test "$code" -eq 2 -a ! -s log

# A reward program, or what else is started, finds the environment as it was.
env "${step[@]}" SLURM_STEP_NUM_TASKS=1 quipu --dry-run deck.cfg >log 2>&1
for ranks in 1 2; do
    quipu_on "$ranks" "on$ranks" --set optim.steps=2
    check "mpirun: a run on $ranks ranks" test "$code" -eq 0
done
check "mpirun -n 2: the ranks found each other" same_adapter on1 on2
end_test
