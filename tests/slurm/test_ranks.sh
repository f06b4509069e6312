#!/usr/bin/env bash
# QP_TEST: labels=slow
# How many ranks with how many cores and GPUs a real Slurm starts for the options of sbatch. The program
# is a stand-in that says where it runs.
set -euo pipefail
# shellcheck source=tests/train/e2e.sh
. "${QUIPU_SOURCE:?}/tests/train/e2e.sh"
# shellcheck source=tests/slurm/cluster.sh
. "$QUIPU_SOURCE/tests/slurm/cluster.sh"
cat >program <<'PROGRAM'
#!/bin/sh
if [ "$1" = --run-folder ]; then echo runs/run; exit; fi
gpus=$(echo "${CUDA_VISIBLE_DEVICES:-}" | tr ',' '\n' | grep -c .)
echo "rank on $SLURMD_NODENAME, $SLURM_CPUS_PER_TASK cores, $gpus GPUs"
PROGRAM
chmod +x program
export QUIPU=$work/program
start_cluster "Sockets=2 CoresPerSocket=4 ThreadsPerCore=2 RealMemory=1000 Gres=gpu:4"

run() { # run OPTION OF SBATCH...
    rm -f log.job
    submit job "$@" -- deck.cfg
    until_true ended
    cp log.job log
}
# ranks EXPECTED OPTION...: a job with these options of sbatch has these ranks: how many, on which node.
ranks() {
    local expected=$1 found
    shift
    run "$@"
    found=$(grep '^rank on' log | sort | uniq -c | sed 's/ *\([0-9]*\) rank/\1/' | paste -sd ';')
    if [ "$found" != "$expected" ]; then
        echo "expected: $expected"
        echo "found:    $found"
    fi
    check "ranks of: sbatch $*" test "$found" = "$expected"
}

ranks "2 on n1, 4 cores, 0 GPUs"
ranks "2 on n1, 4 cores, 0 GPUs;2 on n2, 4 cores, 0 GPUs" --nodes=2
ranks "1 on n1, 8 cores, 0 GPUs" --ntasks-per-node=1
ranks "3 on n1, 2 cores, 0 GPUs" --ntasks=3
ranks "4 on n1, 2 cores, 0 GPUs" --cpus-per-task=2
ranks "1 on n1, 3 cores, 0 GPUs" --ntasks-per-node=1 --cpus-per-task=3
ranks "2 on n1, 8 cores, 0 GPUs" --hint=multithread # threads are Slurm's CPUs then
ranks "4 on n1, 2 cores, 4 GPUs" --gpus-per-node=4
ranks "3 on n1, 2 cores, 3 GPUs" --gres=gpu:3
run --nodes=2 --gpus=5 # Slurm says how many on which node
check "ranks of: sbatch --nodes=2 --gpus=5" test "$(grep -c "^rank .* 2 cores, 1 GPUs" log)" -eq 5
ranks "2 on n1, 4 cores, 1 GPUs" --ntasks-per-node=2 --gpus-per-task=1
ranks "1 on n1, 1 cores, 0 GPUs" --oversubscribe
check "a job that has little of a node says so" logged "the job has 1 of the 8 cores of n1"
ranks "1 on n1, 3 cores, 0 GPUs" --oversubscribe --cpus-per-task=3
ranks "2 on n1, 3 cores, 0 GPUs" --oversubscribe --ntasks=2 --cpus-per-task=3
ranks "1 on n1, 4 cores, 1 GPUs" --oversubscribe --gpus-per-node=1 --cpus-per-task=4
# Started by mpirun inside the allocation, on a site whose Slurm lacks the PMI of the MPI library.
export QUIPU_MPIRUN="mpirun --bind-to none"
ranks "2 on n1, 4 cores, 0 GPUs" --ntasks-per-node=2 --cpus-per-task=4
end_test
