#!/usr/bin/env bash
# QP_TEST: labels=slow
# What must hold in every run of PPO: no KL before the first update and ratios of exactly 1 in it, lengths
# in their range whatever the rank count, updates that end early or are left out when they should.
# shellcheck source=tests/train/rlhf.sh
. "$(dirname "$0")/rlhf.sh"

make_base base.h5
make_pairs data
make_decks
deck=reward.cfg quipu_on 2 reward
export deck=ppo.cfg

all_are() { test "$(column "$2" "$3" | sort -u)" = "$1"; } # all_are VALUE COLUMN RUN
n_updates() { column ppo/updates "$1" | tr '\n' ' '; }
lengths() { sed -n 's/.*"n_token":\([0-9]*\),.*/\1/p' "runs/$1/samples.jsonl"; }

# One update a step: each is a first one. The reference is the policy that the run starts with.
quipu_on 2 first --set ppo.ppo_epochs=1 --set ppo.mini_batch_sequences=8 --set batch.micro_sequences=2
check "one update a step: ends well" test "$code" -eq 0
check "the first ratio is exactly 1 in every step" all_are 1 ppo/policy/ratio first
check "nothing has moved yet" all_are 0 ppo/policy/approxkl first
check "nothing is clipped yet" all_are 0 ppo/policy/clipfrac first
check "the KL is exactly 0 in the first step" test "$(column objective/kl first | head -n 1)" = 0
check "and not in the last" not test "$(column objective/kl first | tail -n 1)" = 0
check "one update a step: is counted" all_are 1 ppo/updates first
check "sampled and looked-at log-probabilities agree" \
    awk -v x="$(column rollout/logprob_difference first | sort -g | tail -n 1)" 'BEGIN { exit !(x < 0.05) }'
check "no warning" not logged "[warn"

# The length sampler; without EOS every answer has its length.
sampler=(--set ppo.stop_at_eos=false --set ppo.output_min_length=5 --set ppo.output_max_length=11
    --set samples.every_steps=1)
for ranks in 1 3; do quipu_on "$ranks" "lengths$ranks" "${sampler[@]}"; done
check "lengths lie in their range" test "$(lengths lengths1 | awk '$1 < 5 || $1 > 11' | wc -l)" -eq 0
check "lengths reach both ends" test "$(lengths lengths1 | sort -nu | sed -n '1p;$p' | tr '\n' ' ')" = "5 11 "
check "lengths differ within a step" test "$(lengths lengths1 | head -n 8 | sort -u | wc -l)" -ge 3
check "lengths differ from step to step" not cmp -s <(lengths lengths1 | head -n 8) <(lengths lengths1 | tail -n 8)
check "lengths do not depend on the rank count" cmp -s <(lengths lengths1) <(lengths lengths3)
check "no answer ends with EOS" all_are 0 rollout/stopped lengths1

# Stopping early.
updates=(--set ppo.ppo_epochs=4 --set ppo.mini_batch_sequences=4)
quipu_on 2 late "${updates[@]}" --set ppo.early_stopping=true --set ppo.target_kl=1e6
check "a large target_kl: all updates" test "$(n_updates late)" = "8 8 8 "
quipu_on 2 early "${updates[@]}" --set ppo.early_stopping=true --set ppo.target_kl=1e-9
check "a tiny target_kl: ends well" test "$code" -eq 0
check "a tiny target_kl: fewer updates ($(n_updates early))" \
    test "$(column ppo/updates early | sort -n | tail -n 1)" -lt 8
quipu_on 2 off "${updates[@]}" --set ppo.target_kl=1e-9
check "without early_stopping: all updates" test "$(n_updates off)" = "8 8 8 "

# An update that has gone too far is left out; if all are, the adapter stays what it was.
quipu_on 2 far --set ppo.ppo_epochs=4 --set optim.lr=0.1 --set optim.max_grad_norm=0 --set ppo.ratio_threshold=1.01
left_out=$(grep -c 'exceeds ppo.ratio_threshold' log)
check "a huge learning rate: ends well" test "$code" -eq 0
check "a huge learning rate: some updates are left out ($left_out)" test "$left_out" -ge 1 -a "$left_out" -lt 24
check "a huge learning rate: all are counted" test "$(n_updates far)" = "8 8 8 "
quipu_on 2 none --set ppo.ratio_threshold=1e-3
check "every update left out: one warning each" test "$(grep -c 'exceeds ppo.ratio_threshold' log)" -eq 12
quipu_on 1 still --set optim.lr=0
check "every update left out: the adapter stays" same_adapter none still
check "every update left out: the value head stays" same_file none still adapter/value_head.safetensors

# The preset of StackLLaMA's scripts, on any rank count.
preset=(--set ppo.preset=trl-0.4.2 --set ppo.ppo_epochs=2 --set ppo.mini_batch_sequences=8
    --set ppo.output_min_length=4 --set ppo.output_max_length=8 --set ppo.early_stopping=false)
for ranks in 1 2; do
    quipu_on "$ranks" "preset$ranks" "${preset[@]}"
    check "the preset on $ranks ranks: ends well" test "$code" -eq 0
done
check "the preset: the same on 1 and 2 ranks" same_run preset1 preset2
check "the preset: dropout keeps the first ratio from 1" not all_are 1 ppo/policy/ratio preset1
check "the preset: used.cfg says what it has set" \
    grep -q 'whiten_advantages = "sequence"; *# ppo.preset' runs/preset1/used.cfg
end_test
