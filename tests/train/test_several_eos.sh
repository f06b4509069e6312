#!/usr/bin/env bash
# QP_TEST: labels=slow,shared
# A model that always says 258, with eos_token_id [256, 258]: its answers end there, and a merged folder
# names both.
[ -d "$QUIPU_SOURCE/../shared/cases/several-eos-ids" ] || exit 77
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

quipu-import --precision fp32 "$QUIPU_SOURCE/../shared/cases/several-eos-ids/hf_eot" base.h5 >log 2>&1
check "both are found" logged "special tokens: EOS 256, 258"
cat >generate.cfg <<'DECK'
job      = { method = "generate"; name = "generate"; };
base     = { file = "base.h5"; };
prompts  = { input = "prompts.jsonl"; };
generate = { max_new_tokens = 5; };
device   = { threads = 1; };
DECK
echo '{"prompt": "Question: hop?"}' >prompts.jsonl
deck=generate.cfg quipu_on 1 generate
check "an answer ends with the second EOS" grep -q '"n_token":1,"stopped":true' runs/generate/*.jsonl
make_data data
make_deck
quipu_on 1 run --set optim.steps=1 --set optim.warmup_steps=0
quipu-merge --to hf base.h5 runs/run/adapter merged >log 2>&1
for file in config generation_config; do
    check "merged $file.json has both" grep -q '"eos_token_id":\[256,258\]' <(tr -d ' \n' <merged/$file.json)
done
end_test
