#!/usr/bin/env bash
# QP_TEST: labels=slow
# What PPO leaves out: prompts that are empty or too long are counted, a step whose rewards are not finite
# makes no update and says so once, ten of them in a row end the run with a checkpoint to go on from.
# shellcheck source=tests/train/rlhf.sh
. "$(dirname "$0")/rlhf.sh"

make_base base.h5
make_pairs data
make_decks
deck=reward.cfg quipu_on 2 reward
export deck=ppo.cfg

# Prompts.
long=$(printf 'hop %.0s' $(seq 40))
printf '{"prompt": "%s"}\n' "" "   " "$long" "hop" >>data-prompts.jsonl
check "empty prompts are counted" grep -qF '2 skipped: rows or documents without text' <(quipu-prep jsonl data-prompts.jsonl --base base.h5 --out more --eval-fraction 0 2>&1)
quipu_on 2 prompts --set data.train=more-prompt-train.h5 --set optim.steps=1
check "a long prompt: ends well" test "$code" -eq 0
check "a long prompt is counted" logged 'data.overlong = "auto" leaves out 1 of'

# overwrite FOLDER TENSOR BYTES: every number of one tensor of an adapter, given as printf writes it.
overwrite() {
    local file=$1/adapter_model.safetensors n first end
    n=$(od -An -tu8 -N8 "$file" | tr -d ' ')
    read -r first end <<<"$(head -c $((8 + n)) "$file" | tail -c "$n" |
        sed -n "s/.*\"[^\"]*$2[^\"]*\":{[^}]*\"data_offsets\":\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/p")"
    # shellcheck disable=SC2059
    for ((i = first; i < end; i += 4)); do printf "$3"; done |
        dd of="$file" bs=1 seek=$((8 + n + first)) conv=notrunc status=none
}
# A score head of the largest floats: finite itself, its rewards are not.
cp -r runs/reward/adapter judge
overwrite judge score '\377\377\177\177'
skips=(--set reward_model.adapter=judge --set optim.steps=12 --set ppo.use_score_scaling=true
    --set samples.every_steps=1)
quipu_on 2 skips "${skips[@]}"
check "ten steps without a finite reward: exit code 2 (got $code)" test "$code" -eq 2
check "ten steps without a finite reward: says so" logged \
    "10 steps in a row had nothing to learn, or a loss, reward or gradient that is not finite; stopped after step 10"
check "one warning for each" test "$(grep -c '\[warn' log)" -eq 10
check "it says how many" logged "step 10: 8 of 8 rewards are not finite: no update is made"
check "they are counted" test "$(column skipped_steps skips | tail -n 1)" = 10
check "no update was made" test "$(column ppo/updates skips | sort -u)" = 0
check "a KL is reported all the same" not grep -q nan <(column objective/kl skips)
check "the coefficient of the KL stays" test "$(column objective/kl_coef skips | sort -u)" = 0.2
check "samples.jsonl stays JSON" test "$(grep -c '"score":null' runs/skips/samples.jsonl)" -eq 80
check "a checkpoint of step 10" test -s runs/skips/checkpoints/step-000010.h5

quipu_on 2 lasting --set checkpoint.every_steps=0 --set checkpoint.stop_after_steps=4 "${skips[@]}"
check "some steps without: stops as told" test "$code" -eq 10
check "nothing was learned" not grep -qE '^([^,]*,){2}[0-9]' <(tail -n +2 runs/lasting/metrics.csv)

# Another judge is another run.
rm -r judge
cp -r runs/reward/adapter judge
quipu_on 1 skips "${skips[@]}"
check "another adapter under the name: exit code 2 (got $code)" test "$code" -eq 2
check "another adapter under the name: named" logged "reward_model.adapter: judge (contents "

# A program comes to its senses: the run goes on, and what it has in mind is finite.
cat >program <<'SH'
#!/bin/sh
while IFS= read -r line; do
    if [ -e sane ]; then echo "{\"reward\": $((${#line} % 7))}"; else echo '{"reward": 1e300}'; fi
done
SH
chmod +x program
sed 's/^reward_model.*/reward_model = { command = [ ".\/program" ]; };/' ppo.cfg >program.cfg
deck=program.cfg
quipu_on 2 mad "${skips[@]:2}"
check "a program: ten steps without a finite reward" test "$code" -eq 2
touch sane
quipu_on 1 mad "${skips[@]:2}"
check "repaired: goes on" logged "continuing after step 10"
check "repaired: ends well" test "$code" -eq 0
check "repaired: no warning" not logged "[warn"
check "repaired: updates are made" test "$(column ppo/updates mad | tail -n 2 | sort -u)" = 4
check "repaired: finite metrics" not grep -qiE 'nan|inf' <(tail -n 2 runs/mad/metrics.csv)
deck=ppo.cfg

# A policy that has no probabilities cannot answer.
cp -r runs/mad/adapter broken
overwrite broken q_proj.lora_B '\377\377\177\177'
overwrite broken v_proj.lora_B '\377\377\177\177'
quipu_on 2 diverged --set lora.init=broken --set optim.steps=3
check "a diverged policy: exit code 2 (got $code)" test "$code" -eq 2
check "a diverged policy: says so" logged "a logit that is NaN or infinite"
check "a diverged policy: and in which step" logged "step 1: answer "
check "a diverged policy: once" test "$(grep -c '\[error' log)" -eq 1
end_test
