#!/usr/bin/env bash
# QP_TEST: labels=cuda
# Reward model, DPO and PPO on GPUs: the CPU's losses, the same bits on any number of GPUs and wherever a
# run stops; PPO begins with ratios of exactly 1 and a KL of exactly 0.
# shellcheck source=tests/train/cuda.sh
. "$(dirname "$0")/cuda.sh"

make_base base.h5
make_base fp32.h5 tiny --precision fp32
make_pairs data
make_decks
export deck

# in_parts METHOD SETTINGS...: two steps on 1, 2 and 4 GPUs, and one on 2 GPUs, the other on 1.
in_parts() {
    local method=$1 ranks
    shift
    for ranks in 1 2 4; do
        ends_well "$ranks" "$method-on$ranks" "$@"
        check "$method: 1 and $ranks GPUs give the same" same_run "$method-on1" "$method-on$ranks"
    done
    on cuda 2 "$method-parts" "$@" --set checkpoint.stop_after_steps=1
    check "$method: stopped after step 1" test "$code" = 10
    ends_well 1 "$method-parts" "$@"
    check "$method: continued" logged "continuing after step 1"
    check "$method: parts and whole give the same" same_run "$method-on1" "$method-parts"
}

small=(--set optim.steps=2 --set optim.lr=0.001 --set batch.global_sequences=4)
for method in reward dpo; do
    deck=$method.cfg
    settings=("${small[@]}")
    in_parts "$method" "${settings[@]}" --set data.eval_rows=2
    on cpu 1 "cpu-$method" "${settings[@]}" --set device.compute=fp32
    check "$method: the CPU's losses within 2e-3" close "$method-on1" "cpu-$method" loss 2 2e-3
    fp32=(--set base.file=fp32.h5 --set device.compute=fp32)
    on cpu 1 "cpu-$method-fp32" "${settings[@]}" "${fp32[@]}"
    ends_well 1 "$method-fp32" "${settings[@]}" "${fp32[@]}"
    check "$method in fp32: the CPU's losses within 1e-4" close "$method-fp32" "cpu-$method-fp32" loss 2 1e-4
done

deck=ppo.cfg
small+=(--set generate.max_new_tokens=6 --set samples.every_steps=1)
in_parts ppo "${small[@]}" --set reward_model.adapter=runs/reward-on1/adapter
first=(--set ppo.ppo_epochs=1 --set ppo.mini_batch_sequences=4 --set reward_model.adapter=runs/reward-fp32/adapter
    --set base.file=fp32.h5 --set device.compute=fp32)
on cpu 1 cpu-first "${small[@]}" "${first[@]}"
ends_well 2 first "${small[@]}" "${first[@]}"
check "ppo: the first ratio is exactly 1" test "$(column ppo/policy/ratio first | sort -u)" = 1
check "ppo: nothing has moved yet" test "$(column ppo/policy/approxkl first | sort -u)" = 0
check "ppo: the KL is exactly 0 in the first step" test "$(column objective/kl first | head -n 1)" = 0
check "ppo: and not in the last" not test "$(column objective/kl first | tail -n 1)" = 0
answers() { grep -o '"response":.*' "runs/$1/samples.jsonl"; }
check "ppo: the CPU's answers" cmp -s <(answers first) <(answers cpu-first)
check "ppo: the CPU's rewards" close first cpu-first env/reward_mean 2 1e-4
check "ppo: the CPU's losses of the value head" close first cpu-first ppo/loss/value 2 1e-4

make_base wide.h5 tiny,head_dim=258
on cuda 1 wide "${small[@]}" --set reward_model.base=wide.h5 --set reward_model.adapter=runs/reward-on1/adapter --dry-run
check "ppo: a reward base with heads too wide is refused" test "$code" = 2
check "ppo: by name" logged "reward_model.base: heads of 258 features"
end_test
