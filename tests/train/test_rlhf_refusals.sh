#!/usr/bin/env bash
# QP_TEST: labels=slow
# Wrong decks, data and reward models of reward, dpo and ppo: one clear message that names what is wrong,
# exit code 2, no step made and nothing written over.
# shellcheck source=tests/train/rlhf.sh
. "$(dirname "$0")/rlhf.sh"

make_base base.h5
make_base short.h5 tiny,max_position=100
make_base wide.h5 tiny,d_model=128
quipu-import "$QUIPU_SOURCE/tests/golden/formats/tiny.gguf" other.h5 >/dev/null 2>&1
make_data data
make_pairs data
make_decks
deck=reward.cfg quipu_on 2 reward
deck=dpo.cfg quipu_on 1 dpo --set optim.steps=1

# refused NAME MESSAGE --set ...: a run on 2 ranks must end with 2 and say so once; so does a dry run, but
# of what only a start can see (late=yes).
number=0
refused() {
    local name=$1 message=$2
    shift 2
    number=$((number + 1))
    if [ -z "${late:-}" ]; then
        quipu_on 2 "wrong$number" --dry-run "$@"
        check "$name: a dry run sees it (exit code $code)" test "$code" -eq 2
        check "$name: a dry run says \"$message\"" logged "$message"
    fi
    quipu_on 2 "wrong$number" "$@"
    check "$name: exit code 2 (got $code)" test "$code" -eq 2
    check "$name: says \"$message\"" logged "$message"
    check "$name: says it once" test "$(grep -cF -- "$message" log)" -le 1
    check "$name: no step was made" not compgen -G "runs/wrong$number/checkpoints/*.h5"
}
export deck=ppo.cfg
sed '/^reward_model/d' ppo.cfg >none.cfg
deck=none.cfg refused "no rewards" 'job.method = "ppo" needs rewards: an adapter, a base with a score head, or a command'
refused "two rewards" 'rewards come from a model or from reward_model.command, not from both' \
    --set reward_model.command=judge
refused "no score head" 'runs/dpo/adapter: has no score head (modules_to_save "score")' \
    --set reward_model.adapter=runs/dpo/adapter
cp -r runs/reward/adapter odd
for wrong in 'use_dora": true' 'lora_alpha": "16"' 'layers_pattern": "layers"'; do
    sed "\$ s|}\$|, \"$wrong}|" runs/reward/adapter/adapter_config.json >odd/adapter_config.json
    refused "an adapter with \"$wrong" "reward_model.adapter: odd/adapter_config.json: ${wrong%%\"*} is" \
        --set reward_model.adapter=odd
done
refused "no such adapter" 'reward_model.adapter: no such file: absent' --set reward_model.adapter=absent
refused "an adapter that is a file" 'reward_model.adapter: ppo.cfg: is a file, expected a folder' \
    --set reward_model.adapter=ppo.cfg
refused "a base that is a folder" 'reward_model.base: odd: is a folder, expected a file' --set reward_model.base=odd
refused "another tokenizer" 'reward_model.base: other.h5 has tokenizer' --set reward_model.base=other.h5
refused "no such base" 'absent.h5' --set reward_model.base=absent.h5
refused "a base of another shape" 'reward_model.adapter: ' --set reward_model.base=wide.h5
deck=reward.cfg quipu_on 1 wide --set base.file=wide.h5 --set optim.steps=1
refused "an adapter of another shape" 'reward_model.adapter: ' --set reward_model.adapter=runs/wide/adapter
refused "a base with fewer positions" 'reward_model.base: short.h5 has 100 positions, but' --set reward_model.base=short.h5
deck=none.cfg refused "a base that is no reward model" 'base.h5: has no score head: no reward adapter was merged' \
    --set reward_model.base=base.h5
late=yes deck=none.cfg refused "no such command" 'reward program ./absent: cannot be started: No such file or directory' \
    --set reward_model.command=./absent
refused "mini-batches" 'ppo.mini_batch_sequences: 3 does not divide batch.global_sequences = 8' \
    --set ppo.mini_batch_sequences=3
refused "parts of mini-batches" '8 parts of micro_sequences = 1 do not divide a mini-batch of 4' \
    --set ppo.preset=trl-0.4.2
refused "too many ranks" '2 ranks, but a step has only 1 micro-batches (ppo.mini_batch_sequences = 4' \
    --set batch.micro_sequences=4
refused "lengths" 'ppo.output_min_length: 9 is more than output_max_length = 8' \
    --set ppo.output_min_length=9 --set ppo.output_max_length=8
refused "shards of texts" 'data-sft-train.h5' --set data.train=data-sft-train.h5
refused "shards of pairs" 'data-reward-train.h5' --set data.train=data-reward-train.h5
refused "prompts that are cut" 'data.overlong = "cut" would cut prompts' --set data.overlong=cut
refused "longer than the base" 'data.seq_length with the longest answer is' --set data.seq_length=4090
deck=reward.cfg refused "prompts for a reward model" 'data-prompt-train.h5' --set data.train=data-prompt-train.h5
deck=dpo.cfg refused "texts for dpo" 'data-sft-train.h5' --set data.train=data-sft-train.h5
deck=dpo.cfg refused "packed pairs" 'pairs cannot be packed' --set data.packing=isolated

# A checkpoint belongs to what gives its rewards.
quipu_on 2 good --set checkpoint.stop_after_steps=1
cp -r runs/good before
deck=reward.cfg quipu_on 2 another --set job.seed=4
for change in reward_model.adapter=runs/another/adapter ppo.target=7 ppo.mini_batch_sequences=8 lora.r=8; do
    quipu_on 2 good --set "$change"
    check "$change: exit code 2 (got $code)" test "$code" -eq 2
    check "$change: says so" logged "${change%=*}"
    check "$change: the run stays what it was" diff -r runs/good/checkpoints before/checkpoints
done
quipu_on 2 good --set reward_model.timeout=9 --set samples.every_steps=2
check "what may change is no hindrance" test "$code" -eq 0
end_test
