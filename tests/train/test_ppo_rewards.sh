#!/usr/bin/env bash
# QP_TEST: labels=slow
# PPO with rewards of an external program: a good one, and one that dies, hangs, talks nonsense, exaggerates
# or cannot tell answers apart. Every rank ends with the right code, and the run goes on from its last checkpoint
# once the program is repaired.
# shellcheck source=tests/train/rlhf.sh
. "$(dirname "$0")/rlhf.sh"

make_base base.h5
make_pairs data
make_decks
mv ppo.cfg ppo-adapter.cfg
sed 's/^reward_model.*/reward_model = { command = [ ".\/judge" ]; timeout = 1000.0; };/' ppo-adapter.cfg >ppo.cfg
export deck=ppo.cfg

# A judge that likes long answers. On rank 1 it is broken from its fifth answer on: in the second step.
cat >judge <<'SH'
#!/bin/sh
n=0
mode=$(cat mode)
while IFS= read -r line; do
    n=$((n + 1))
    response=${line##*\"response\": \"}
    [ "$n" -le 4 ] || [ "${OMPI_COMM_WORLD_RANK:-0}" != 1 ] || case $mode in
    dies) exit 7 ;;
    hangs) exec sleep 613 ;;
    babbles) echo "I like it" && continue ;;
    esac
    case $mode in
    bored) echo '{"reward": 2.5}' ;;
    huge) echo '{"reward": 1e300}' ;;
    *) echo "{\"reward\": ${#response}}" ;;
    esac
done
SH
chmod +x judge
judge() { echo "$1" >mode; }

finite() { not grep -qiE 'nan|inf' "runs/$1/metrics.csv"; }

judge good
for ranks in 1 2 3; do
    quipu_on "$ranks" "good$ranks" --set samples.every_steps=1 --set ppo.output_min_length=1 --set ppo.output_max_length=12
    check "$ranks ranks: all end well" test "$code" -eq 0
    check "$ranks ranks: finite metrics" finite "good$ranks"
done
check "1 and 2 ranks give the same" same_run good1 good2
check "1 and 3 ranks: the first step's answers and rewards are the same" cmp -s \
    <(grep '"step":1,' runs/good1/samples.jsonl) <(grep '"step":1,' runs/good3/samples.jsonl)
check "rewards are those of the program" test "$(column env/reward_mean good1 | head -n 1)" = \
    "$(sed -n 's/.*"step":1,.*"score":\([0-9.]*\),.*/\1/p' runs/good1/samples.jsonl | awk '{ s += $1 } END { print s / NR }')"

# repaired NAME: the run goes on from step 1 and ends as an undisturbed one.
repaired() {
    judge good
    check "$1: the checkpoint of step 1 is there" test -s "runs/$1/checkpoints/step-000001.h5"
    quipu_on 2 "$1"
    check "$1: continues" logged "continuing after step 1"
    check "$1: ends well" test "$code" -eq 0
    check "$1: as an undisturbed run" same_run whole "$1"
}
quipu_on 2 whole
fails() { # fails MODE MESSAGE SETTINGS...: 3 on all ranks, said once
    judge "$1"
    quipu_on 2 "$1" "${@:3}"
    check "$1: exit code 3 (got $code)" test "$code" -eq 3
    check "$1: says why" logged "$2"
    check "$1: says it once" test "$(grep -cF -- "$2" log)" -eq 1
    check "$1: leaves no program behind" not pgrep -f "^/bin/sh ./judge$|^sleep 613$"
    repaired "$1"
}
fails dies "reward program ./judge: ended with exit status 7 after 0 of 4 answers (4 since its start)"
fails hangs "reward program ./judge: no answer within 5 s after 0 of 4 answers" --set reward_model.timeout=5
fails babbles 'an object with a number "reward" is expected, found: I like it'

# Rewards that never differ: nothing to learn from, and nothing to divide by.
judge bored
for shaping in false true; do
    quipu_on 2 "bored-$shaping" --set "ppo.use_score_scaling=$shaping" --set "ppo.use_score_norm=$shaping"
    check "equal rewards, scaling $shaping: ends well" test "$code" -eq 0
    check "equal rewards, scaling $shaping: finite metrics" finite "bored-$shaping"
    check "equal rewards, scaling $shaping: no step is skipped" not logged "skipped"
done
quipu_on 2 bored-scaled --set ppo.use_score_scaling=true
check "equal rewards, scaled without norm: stay what they are" \
    test "$(column ppo/mean_scores bored-scaled | sort -u)" = 2.5

# Rewards that no float holds are as good as none.
judge huge
quipu_on 2 huge --set ppo.use_score_scaling=true
check "huge rewards: ends well" test "$code" -eq 0
check "huge rewards: every step is left out" test "$(grep -c '8 of 8 rewards are not finite' log)" -eq 3

judge good
quipu_on 2 one-token --set generate.max_new_tokens=1 --set ppo.use_score_scaling=true
check "answers of one token: ends well" test "$code" -eq 0
check "answers of one token: finite metrics" finite one-token
check "answers of one token: they are" test "$(column tokens/responses_len_mean one-token | sort -u)" = 1
check "values start at zero" test "$(column ppo/val/mean one-token | head -n 1)" = 0
quipu_on 2 random-head --set ppo.value_head_init=linear --set optim.steps=1
check "unless the deck says otherwise" not grep -qx 0 <(column ppo/val/mean random-head)
end_test
