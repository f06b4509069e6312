#!/usr/bin/env bash
# QP_TEST: labels=slow
# job.method = "eval" on pairs and on queries: what training said of the same adapter, the best of
# several answers, one policy against another and against itself; the same on any number of ranks.
# shellcheck source=tests/train/rlhf.sh
. "$(dirname "$0")/rlhf.sh"

make_base base.h5
make_pairs data
make_decks
deck=reward.cfg quipu_on 2 reward
deck=ppo.cfg quipu_on 1 ppo --set data.eval=data-prompt-eval.h5
check "PPO's held-out rewards" test "$(column eval_reward_mean ppo | grep -c .)" -eq 1
cat >eval.cfg <<'DECK'
job   = { method = "eval"; name = "eval"; seed = 3; };
base  = { file = "base.h5"; };
batch = { micro_sequences = 2; };
device = { threads = 1; };
DECK
value() { sed -n "s/.*\"$2\": \([-0-9.e]*\).*/\1/p" "runs/$1/eval.json"; }
close() { awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; exit !(a != "" && d < 1e-6 && d > -1e-6) }'; }
deck=eval.cfg

# Pairs: what the training run said of its last step.
pairs=(--set lora.init=runs/reward/adapter --set data.eval=data-reward-eval.h5 --set data.seq_length=96)
quipu_on 1 pairs "${pairs[@]}"
check "pairs: ends well" test "$code" -eq 0
for name in eval_loss eval_accuracy eval_margin; do
    check "pairs: $name as in training" close "$(value pairs $name)" "$(column $name reward | tail -n 1)"
done
check "pairs: calibration" grep -q '"calibration": \[{"least": ' runs/pairs/eval.json
check "pairs: the quarters' accuracies have the mean of all" close "$(value pairs eval_accuracy)" \
    "$(grep -o '"n_pair": [0-9]*, "accuracy": [0-9.e-]*' runs/pairs/eval.json | tr -d ',' |
        awk '{ n += $2; right += $2 * $4 } END { printf "%.12g", right / n }')"
quipu_on 3 pairs3 "${pairs[@]}"
check "pairs: the same on 3 ranks" cmp -s runs/pairs/eval.json runs/pairs3/eval.json
quipu-merge --no-logits base.h5 runs/reward/adapter judge.h5 >log 2>&1
quipu_on 2 merged --set base.file=judge.h5 --set data.eval=data-reward-eval.h5 --set data.seq_length=96
check "pairs: a merged reward model is one too" test "$code" -eq 0
quipu_on 2 plain "${pairs[@]:2}" --set lora.init=runs/ppo/adapter
check "pairs: an adapter without a score head is none" test "$code" -eq 2
check "pairs: says so" logged "has no score head"

# Queries.
queries=(--set data.eval=data-prompt-eval.h5 --set data.seq_length=96 --set generate.max_new_tokens=12
    --set generate.do_sample=true --set generate.num_return_sequences=3)
judge=(--set reward_model.adapter=runs/reward/adapter)
quipu_on 1 base "${queries[@]}" "${judge[@]}" --set compare.against=runs/ppo/adapter
check "queries: ends well" test "$code" -eq 0
quipu_on 3 base3 "${queries[@]}" "${judge[@]}" --set compare.against=runs/ppo/adapter
check "queries: the same on 3 ranks" cmp -s runs/base/eval.json runs/base3/eval.json
check "queries: every answer of both, the same on 3 ranks" cmp -s runs/base/answers.jsonl runs/base3/answers.jsonl
of_role() { # "policy" or "rival": answers, and their mean score
    grep "^{\"role\":\"$1\",\"answer\":[012],\"score\":[-0-9.e]*,\"query\":\".*\",\"response\":\".*\",\"n_token\":[0-9]*,\"stopped\":[a-z]*}$" \
        runs/base/answers.jsonl | sed 's/.*"score":\([-0-9.e]*\),.*/\1/' |
        awk '{ sum += $1 } END { print NR, sum / NR }'
}
mean() { # "policy" or "rival"
    sed -n "s/.*\"$1\": {\"reward_mean\": \([-0-9.e]*\).*/\1/p" runs/base/eval.json
}
for role in policy rival; do
    read -r n score < <(of_role $role)
    check "queries: three answers of the $role to each" test "$n" -eq $((3 * $(value base n_query)))
    check "queries: their scores have its mean" close "$score" "$(awk -v m="$(mean $role)" 'BEGIN { printf "%g", m }')"
done
better() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a > b) }'; }
check "queries: the best of 3 is better than the mean" better \
    "$(sed 's/"rival".*//' runs/base/eval.json | sed -n 's/.*"best_mean": \([-0-9.e]*\).*/\1/p')" \
    "$(sed 's/"rival".*//' runs/base/eval.json | sed -n 's/.*"reward_mean": \([-0-9.e]*\).*/\1/p')"
quipu_on 2 policy "${queries[@]}" "${judge[@]}" --set lora.init=runs/ppo/adapter --set compare.against=base
check "queries: the other way round, the rest of the wins" close "$(value base win_rate)" \
    "$(awk -v w="$(value policy win_rate)" 'BEGIN { print 1 - w }')"
check "queries: the difference is that of the means" close "$(value base difference)" \
    "$(awk -v a="$(mean policy)" -v b="$(mean rival)" 'BEGIN { printf "%.12g", a - b }')"
check "queries: the difference lies in its interval" awk -v d="$(value base difference)" \
    -v a="$(sed -n 's/.*"difference_95": \[\([-0-9.e]*\), \([-0-9.e]*\)\].*/\1 \2/p' runs/base/eval.json)" \
    'BEGIN { exit !(split(a, x, " ") == 2 && x[1] < d && d < x[2]) }'
quipu_on 2 itself "${queries[@]}" "${judge[@]}" --set lora.init=runs/ppo/adapter \
    --set compare.against=runs/ppo/adapter
check "queries: against itself, half" close "$(value itself win_rate)" 0.5
quipu_on 2 lone "${queries[@]}" "${judge[@]}" --set lora.init=runs/ppo/adapter --set compare.against=base \
    --set data.eval_rows=1
check "one query: an interval without ends is null" grep -q '"difference_95": \[null, null\]' runs/lone/eval.json
check "one query: no number that is none" not grep -qiE 'nan|inf' runs/lone/eval.json
quipu_on 2 unjudged "${queries[@]}"
check "queries: without rewards there is nothing to say" test "$code" -eq 2
check "queries: asks for them" logged "queries want rewards"
end_test
