#!/usr/bin/env bash
# QP_TEST: labels=slow
# Jobs of several runs under a real Slurm: a chain of decks, and a job array of seeds. Each is stopped in
# the middle, goes on, and ends with the bits of the same runs by hand.
set -euo pipefail
# shellcheck source=tests/train/e2e.sh
. "${QUIPU_SOURCE:?}/tests/train/e2e.sh"
# shellcheck source=tests/slurm/cluster.sh
. "$QUIPU_SOURCE/tests/slurm/cluster.sh"
make_base base.h5
make_data data
make_deck
sed 's/"run"/"first"/' deck.cfg >first.cfg
sed -i 's/steps = 6/steps = 40/' deck.cfg
sed 's/"run"/"second"/; s/base.h5/merged.h5/' deck.cfg >second.cfg
cat >my.chain.sh <<'CHAIN'
deck first.cfg
merge base.h5 runs/first/adapter merged.h5
deck second.cfg
CHAIN
deck=first.cfg quipu_on 2 plain-first
quipu-merge base.h5 runs/plain-first/adapter plain.h5 >/dev/null 2>&1
deck=second.cfg quipu_on 2 plain-second --set base.file=plain.h5
for seed in 5 6; do quipu_on 2 "plain-$seed" --set "job.seed=$seed"; done
start_cluster "Sockets=2 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=1000"

# same LOG NAME: the run is done and has the bits of the run plain-NAME.
same() {
    cp "log.$1" log
    check "$2: same adapter" same_adapter "plain-$2" "$2"
    check "$2: same results" same_results "plain-$2" "$2"
}

submit chain -- my.chain.sh
until_true test -e runs/second/checkpoints/step-000004.h5
scancel --signal=USR1 "$job"
start_again 1
until_true ended
cp log.chain log
check "chain: done" in_state COMPLETED
same chain first
same chain second
check "chain: a deck that is done passes at once" logged "exit code 0; newest checkpoint after step 6, before this start 6"

# shellcheck disable=SC2100
submit array-%a --array=5-6 -- deck.cfg --set job.seed=%a --set job.name=%a
array=$job
until_true test -e runs/6/checkpoints/step-000004.h5
job=${array}_6
scancel --signal=USR1 "$job"
start_again 1
for seed in 5 6; do
    job=${array}_$seed
    until_true ended
    check "array: job $seed is done" in_state COMPLETED
    same "array-$seed" "$seed"
done
check "array: seeds differ" not same_adapter 5 6
check "array: job 6 had two starts" test "$(grep -c "quipu 0" log.array-6)" -eq 2
check "array: job 5 had one" test "$(grep -c "quipu 0" log.array-5)" -eq 1
end_test
