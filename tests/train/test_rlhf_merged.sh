#!/usr/bin/env bash
# QP_TEST: labels=slow
# A reward adapter merged into a base gives the rewards that base and adapter give, its head kept; a
# policy adapter merged before PPO is what PPO starts from and is held to. In fp32.
# shellcheck source=tests/train/rlhf.sh
. "$(dirname "$0")/rlhf.sh"

make_base base.h5 tiny --precision fp32
make_pairs data
make_decks
fp32=(--set device.compute=fp32)
deck=reward.cfg quipu_on 2 reward "${fp32[@]}"
deck=dpo.cfg quipu_on 2 dpo "${fp32[@]}"
check "a policy adapter has no score head" not grep -q score runs/dpo/adapter/adapter_config.json
merge() { quipu-merge "$@" >log 2>&1; }
check "the reward adapter is merged" merge base.h5 runs/reward/adapter judge.h5
check "the policy adapter is merged" merge base.h5 runs/dpo/adapter policy.h5

sed '/^reward_model/d' ppo.cfg >merged.cfg
scores() { sed -n 's/.*"score":\([^,]*\),.*/\1/p' "runs/$1/samples.jsonl"; }
agree() { # agree RUN RUN: the same answers in the first step, their rewards to 1e-4
    diff <(sed -n 's/"score".*//; s/^{"step":1,//p' "runs/$1/samples.jsonl") \
        <(sed -n 's/"score".*//; s/^{"step":1,//p' "runs/$2/samples.jsonl") >/dev/null &&
        paste <(scores "$1") <(scores "$2") | head -n 8 | awk '
            { d = $1 - $2; scale = $2 < 0 ? -$2 : $2; if (scale < 1) scale = 1
              if (d > 1e-4 * scale || -d > 1e-4 * scale) bad = 1 } END { exit bad || NR != 8 }'
}
ppo=("${fp32[@]}" --set samples.every_steps=1 --set optim.steps=2)
deck=ppo.cfg quipu_on 2 adapter "${ppo[@]}"
check "with the adapter: ends well" test "$code" -eq 0
deck=merged.cfg quipu_on 2 merged "${ppo[@]}" --set reward_model.base=judge.h5
check "with the merged base: ends well" test "$code" -eq 0
check "adapter and merged base give the same rewards" agree adapter merged
check "rewards differ from answer to answer" test "$(scores adapter | sort -u | wc -l)" -gt 8
deck=ppo.cfg quipu_on 1 both "${ppo[@]}" --set reward_model.base=base.h5
check "adapter on a base of its own: ends well" test "$code" -eq 0
check "adapter on a base of its own: the same rewards" agree adapter both
deck=merged.cfg quipu_on 1 merged1 "${ppo[@]}" --set reward_model.base=judge.h5
check "the merged base: the same on 1 and 2 ranks" same_run merged merged1

# The reference is the merged policy: nothing is lost of it, and there is no KL before the first update.
deck=ppo.cfg quipu_on 2 policy "${ppo[@]}" --set base.file=policy.h5 --set reward_model.base=base.h5
check "a merged policy: ends well" test "$code" -eq 0
check "a merged policy: no KL in the first step" test "$(column objective/kl policy | head -n 1)" = 0
check "a merged policy: other answers" not agree adapter policy
deck=ppo.cfg quipu_on 2 init "${ppo[@]}" --set lora.init=runs/dpo/adapter
check "an adapter to start from: ends well" test "$code" -eq 0
check "an adapter to start from: a KL from the first step on" \
    not test "$(column objective/kl init | head -n 1)" = 0
check "an adapter to start from: its answers are the merged policy's" \
    diff <(sed -n 's/"score".*//; s/^{"step":1,//p' runs/init/samples.jsonl) \
    <(sed -n 's/"score".*//; s/^{"step":1,//p' runs/policy/samples.jsonl)
end_test
