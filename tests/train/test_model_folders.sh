#!/usr/bin/env bash
# QP_TEST: labels=slow
# What a model's folder says reaches the run: a sliding window refuses longer sequences in --dry-run.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5
make_data data
make_deck
quipu_on 1 run --set optim.steps=1 --set optim.warmup_steps=0
check "training ends well" test "$code" -eq 0
quipu-merge --to hf base.h5 runs/run/adapter hf >log 2>&1
check "generation_config.json is written" grep -q '"eos_token_id": 256' hf/generation_config.json

sed -i -e 's/LlamaForCausalLM/MistralForCausalLM/' -e 's/"llama"/"mistral"/' hf/config.json
# window TOKENS|absent: the base of a Mistral with this window
window() {
    sed -i '/"sliding_window"/d' hf/config.json
    [ "$1" = absent ] || sed -i "s/^{/{\n  \"sliding_window\": $1,/" hf/config.json
    quipu-import hf window.h5 >log 2>&1
}
# dry CODE MESSAGE NAME --set...
dry() {
    local expected=$1 message=$2 name=$3
    shift 3
    quipu_on 2 dry --dry-run --set base.file=window.h5 "$@"
    check "$name: exit code $expected (got $code)" test "$code" -eq "$expected"
    [ -z "$message" ] || check "$name: says \"$message\"" logged "$message"
}
window 100
check "import tells" logged "sliding_window is 100: runs with longer sequences are refused"
dry 2 "the longest sequence of data.train is 1" "longer than the window" --set data.packing=none
dry 2 "attends to the last 100 only (sliding_window)" "longer than the window" --set data.packing=none
dry 0 "" "no sequence is longer" --set data.packing=none --set data.seq_length=100 --set data.overlong=drop
dry 2 "the longest sequence of data.train is 101 tokens" "one token more" --set data.packing=none \
    --set data.seq_length=101
dry 2 "data.train is 128 tokens" "joined rows are one sequence" --set data.packing=contaminated
dry 2 "the longest prompt with its answer is" "answers" --set data.packing=none --set data.seq_length=100 \
    --set data.overlong=drop --set 'samples.prompts=[ "Question: hop?" ]' --set samples.max_new_tokens=90
window 162
dry 0 "" "rows of isolated samples may be longer" --set data.packing=isolated --set data.seq_length=1012
window absent
check "absent is 4096" logged "sliding_window is 4096"
window null
check "null is none" not logged "sliding_window"
dry 0 "" "without a window"

end_test
