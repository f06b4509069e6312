#!/usr/bin/env bash
# QP_TEST: labels=slow
# The life of jobs under a real Slurm with the script that is shipped: whatever happens to a job, its run
# ends with the bits of one that nothing has happened to.
set -euo pipefail
# shellcheck source=tests/train/e2e.sh
. "${QUIPU_SOURCE:?}/tests/train/e2e.sh"
# shellcheck source=tests/slurm/cluster.sh
. "$QUIPU_SOURCE/tests/slurm/cluster.sh"
make_base base.h5
make_data data
make_deck
sed -i 's/steps = 6/steps = 30/' deck.cfg
quipu_on 2 plain
start_cluster "Sockets=2 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=1000"

# start NAME [OPTION OF SBATCH...]: a job of the deck under that name.
start() { submit "$1" "${@:2}" -- deck.cfg --set "job.name=$1"; }
# In the middle of a run: after its second checkpoint, long before its last.
in_the_middle() { until_true test -e "runs/$1/checkpoints/step-000004.h5"; }
# ends_like_plain NAME: done, with nothing lost.
ends_like_plain() {
    cp "log.$1" log
    check "$1: done" in_state COMPLETED
    check "$1: same adapter" same_adapter plain "$1"
    check "$1: same results" same_results plain "$1"
}
# n_starts NAME N: the job was started N times, and each start went on where the one before had stopped.
n_starts() {
    check "$1: $2 starts" test "$(grep -c 'quipu 0' "log.$1")" -eq "$2"
}

# The process of a rank of the job that runs.
rank() { comm -12 <(of_node "$(field BatchHost)") <(processes "SLURM_PROCID=$1" | sort) | tail -n 1; }

start whole
until_true ended
ends_like_plain whole
n_starts whole 1

start limit # what --signal sends
in_the_middle limit
scancel --signal=USR1 "$job"
start_again 1
until_true ended
ends_like_plain limit
n_starts limit 2

start cancelled
in_the_middle cancelled
scancel "$job"
until_true ended
sleep 3
check "cancelled: is not put back" in_state CANCELLED
start cancelled
until_true ended
ends_like_plain cancelled

start requeue
in_the_middle requeue
scontrol requeue "$job"
start_again 1
until_true ended
ends_like_plain requeue
n_starts requeue 2

start killed
in_the_middle killed
kill -KILL "$(rank 1)"
start_again 1
until_true ended
ends_like_plain killed
n_starts killed 2

start down
in_the_middle down
node=$(field BatchHost)
lose_node "$node"
start_again 1
until_true ended
ends_like_plain down
check "down: went on on another node" test "$(field BatchHost)" != "$node"
restore_node "$node"

# Ranks that MPI does not join are wrong input: nothing is started again.
SLURM_MPI_TYPE=none start alone
until_true ended
cp log.alone log
check "alone: exit code 2" test "$(state) $(field ExitCode)" = "FAILED 2:0"
check "alone: says why" logged "no means to find each other"

start two --nodes=2 --ntasks-per-node=1
in_the_middle two
if [ "$(field BatchHost)" = n1 ]; then node=n2; else node=n1; fi
lose_node "$node" # the one that the script does not run on
until_true put_back 1
restore_node "$node"
start_again 1
until_true ended
ends_like_plain two
check "two: nodes" test "$(field NumNodes)" = 2
end_test
