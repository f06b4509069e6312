#!/usr/bin/env bash
# QP_TEST: labels=slow check=0,1,2
# What reward, dpo and ppo give does not depend on the rank count nor on where a run stops: adapters,
# value heads, metrics and samples have the same bits, in int8 with bf16 products and in fp32.
# shellcheck source=tests/train/rlhf.sh
. "$(dirname "$0")/rlhf.sh"

make_base base.h5
make_base fp32.h5 tiny --precision fp32
make_pairs data
make_decks

# whole NAME RANKS...: undisturbed runs; those on more ranks must be like that on the first.
whole() {
    local name=$1 ranks first=$2
    shift
    for ranks in "$@"; do
        quipu_on "$ranks" "$name-on$ranks" "${settings[@]}"
        check "$name on $ranks ranks ends well" test "$code" -eq 0
        check "$name: $first and $ranks ranks give the same" same_run "$name-on$first" "$name-on$ranks"
    done
    mv "runs/$name-on$first" "runs/$name"
}
# in_parts NAME RANKS...: a step on each of these rank counts, then the rest on the last.
in_parts() {
    local name=$1 ranks steps=0
    shift
    for ranks in "${@:1:$#-1}"; do
        steps=$((steps + 1))
        quipu_on "$ranks" "$name-parts" "${settings[@]}" --set checkpoint.stop_after_steps=1
        check "$name: stopped after step $steps" test "$code" -eq 10
        check "$name: says so" logged "stopped after step $steps of"
    done
    quipu_on "${@: -1}" "$name-parts" "${settings[@]}"
    check "$name in parts: ends well" test "$code" -eq 0
    check "$name in parts: continued" logged "continuing after step $steps"
    check "$name: parts and whole give the same" same_run "$name" "$name-parts"
}

for deck in reward.cfg dpo.cfg; do
    method=${deck%.cfg}
    settings=(--set eval.every_steps=2)
    whole "$method" 1 2 4
    in_parts "$method" 4 1
    check "$method: learns" test "$(column loss "$method" | sort -u | wc -l)" -eq 3
done

# Running moments, an adaptive coefficient, dropout, lengths: all that lives from step to step or is drawn.
deck=ppo.cfg
settings=(--set ppo.use_score_scaling=true --set ppo.use_score_norm=true --set ppo.dropout=true
    --set ppo.summary_dropout_prob=0.1 --set ppo.target=0.001 --set ppo.horizon=20
    --set ppo.output_min_length=3 --set ppo.output_max_length=12 --set samples.every_steps=1
    --set data.eval=data-prompt-eval.h5 --set eval.every_steps=2 --set optim.steps=4)
whole ppo 1 2 4
in_parts ppo 4 1 2 1
check "ppo: a value head" test -s runs/ppo/adapter/value_head.safetensors
check "ppo: answers of every step" test "$(wc -l <runs/ppo/samples.jsonl)" -eq 32
check "ppo: the coefficient of the KL moves at every step" \
    test "$(column objective/kl_coef ppo | sort -u | wc -l)" -eq 4
check "ppo: scores are scaled" not cmp -s <(column ppo/mean_scores ppo) <(column env/reward_mean ppo)

for deck in reward.cfg dpo.cfg ppo.cfg; do
    method=${deck%.cfg}
    settings=(--set base.file=fp32.h5 --set device.compute=fp32 --set optim.steps=2)
    [ "$method" != ppo ] || settings+=(--set reward_model.adapter=runs/fp32-reward/adapter --set samples.every_steps=1)
    whole "fp32-$method" 1
    in_parts "fp32-$method" 4 2
done

# The reward model that a run began with is the one that it goes on with, wherever it lies by now.
deck=ppo.cfg
cp -r runs/reward/adapter moved
quipu_on 1 kept --set checkpoint.stop_after_steps=1
quipu_on 2 kept --set reward_model.adapter=moved --set checkpoint.stop_after_steps=1
check "ppo: a reward adapter may move" test "$code" -eq 10
quipu_on 2 kept --set reward_model.adapter=runs/fp32-reward/adapter
check "ppo: another reward adapter is refused" test "$code" -eq 2
check "ppo: and named" logged "reward_model.adapter: runs/fp32-reward/adapter (contents "
quipu_on 2 kept --set data.train=data-prompt-eval.h5 --set batch.global_sequences=8
check "ppo: other queries are refused" logged "data.train: data-prompt-eval.h5 (contents "
end_test
