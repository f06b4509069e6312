#!/usr/bin/env bash
# QP_TEST: labels=slow
# generate, eval and samples: same answers and the same loss on any rank count; order and keys kept.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5
make_data data
make_deck
quipu_on 2 run --set 'samples.prompts=[ "Question: hop?", "Question: malt?" ]' --set samples.every_steps=3 \
    --set samples.max_new_tokens=8
check "training with samples ends well" test "$code" -eq 0
check "two answers at steps 0, 3 and 6" test "$(grep -c '"step":[036],' runs/run/samples.jsonl)" -eq 6
quipu_on 1 again --set 'samples.prompts=[ "Question: hop?", "Question: malt?" ]' --set samples.every_steps=3 \
    --set samples.max_new_tokens=8
check "the same samples on 1 rank" cmp -s runs/run/samples.jsonl runs/again/samples.jsonl

cat >shape.txt <<'DECK'
base   = { file = "base.h5"; };
lora   = { init = "runs/run/adapter"; };
device = { threads = 1; };
DECK
cat - shape.txt >eval.cfg <<'DECK'
job    = { method = "eval"; name = "eval"; };
data   = { eval = "data-sft-eval.h5"; seq_length = 128; };
batch  = { micro_sequences = 1; };
DECK
cat - shape.txt >generate.cfg <<'DECK'
job      = { method = "generate"; name = "generate"; seed = 5; };
prompts  = { input = "prompts.jsonl"; };
generate = { max_new_tokens = 12; do_sample = true; temperature = 0.8; top_k = 50; };
DECK
export deck=eval.cfg
for ranks in 1 2 3; do
    quipu_on "$ranks" "eval$ranks"
    check "eval on $ranks ranks ends well" test "$code" -eq 0
    check "eval: the same loss on $ranks ranks" cmp -s runs/eval1/eval.json "runs/eval$ranks/eval.json"
done
last=$(awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "eval_loss") c = i } { l = $c } END { print l }' \
    runs/run/metrics.csv)
check "eval gives the loss that training ended with" grep -q "\"eval_loss\": ${last:0:9}" runs/eval1/eval.json
check "used.cfg says where the adapter's shape is from" grep -q "r = 4; *# lora.init" runs/eval1/used.cfg
mv eval.cfg first.cfg
cp runs/eval1/used.cfg eval.cfg
quipu_on 2 again
check "used.cfg gives the same loss" cmp -s runs/eval1/eval.json runs/again/eval.json
mv first.cfg eval.cfg
for wrong in lora.r=8 lora.alpha=4 lora.use_rslora=true lora.targets=q_proj; do
    quipu_on 2 wrong --dry-run --set "$wrong"
    check "another $wrong: exit code 2" test "$code" -eq 2
    check "another $wrong: names both" logged "the adapter runs/run/adapter has r = 4, alpha = 8, targets ="
done
cp -r runs/run/adapter odd
sed -i 's/"r": 4/"r": 40000/' odd/adapter_config.json
quipu_on 2 wrong --dry-run --set lora.init=odd
check "an adapter out of range: exit code 2" test "$code" -eq 2
check "an adapter out of range: says so" logged "odd/adapter_config.json: r is 40000, training takes 1 to 4096"
# What PEFT can and Quipu cannot is said in these words, before anything else is judged.
unsupported() { # KEY VALUE TEXT; of two equal keys the last one counts
    sed "\$ s|}\$|, \"$1\": $2}|" runs/run/adapter/adapter_config.json >odd/adapter_config.json
    quipu_on 2 wrong --dry-run --set lora.init=odd
    check "an adapter with $1 $2: exit code 2" test "$code" -eq 2
    check "an adapter with $1 $2: says so" logged "odd/adapter_config.json: $3"
}
unsupported use_dora true "use_dora is true"
unsupported lora_alpha '"16"' 'lora_alpha is "16", expected a number'
unsupported layers_to_transform '[1]' "layers_to_transform is [1]"
unsupported target_modules '".*layers.1[.].*_proj"' "target_modules chooses q_proj in layer 1, but not in layer 0"
unsupported target_modules '["q_proj", "lm_head"]' "target_modules chooses the module lm_head"
quipu_on 2 wrong --dry-run --set lora.init=runs
check "no adapter: exit code 2" test "$code" -eq 2
check "no adapter: says so" logged "lora.init: runs: is no PEFT adapter folder"

deck=generate.cfg
for i in 1 2 3 4 5 6 7; do echo "{\"id\": $i, \"prompt\": \"Question: malt $i?\"}"; done >prompts.jsonl
for ranks in 1 2 4; do
    quipu_on "$ranks" "generate$ranks"
    check "generate on $ranks ranks ends well" test "$code" -eq 0
    check "the same answers on $ranks ranks" \
        cmp -s runs/generate1/answers.jsonl "runs/generate$ranks/answers.jsonl"
done
check "seven answers" test "$(wc -l <runs/generate1/answers.jsonl)" -eq 7
check "order and keys are kept" test "$(sed 's/^{"id":\([0-9]*\),"prompt":.*"completion":.*/\1/' \
    runs/generate1/answers.jsonl | tr -d '\n')" = 1234567
quipu_on 2 seed --set job.seed=6
check "another seed: other answers" not cmp -s runs/generate1/answers.jsonl runs/seed/answers.jsonl
for seed in 1 2; do quipu_on 2 "greedy$seed" --set generate.do_sample=false --set job.seed=$seed; done
check "greedy: no matter which seed" cmp -s runs/greedy1/answers.jsonl runs/greedy2/answers.jsonl
quipu_on 2 one --set generate.do_sample=false --set generate.max_active=1 --set prompts.output=one.jsonl
check "greedy: no matter how many at once" cmp -s runs/greedy1/answers.jsonl one.jsonl
for ranks in 1 2 4; do
    quipu_on "$ranks" "several$ranks" --set generate.num_return_sequences=3
    check "three answers each on $ranks ranks" test "$(wc -l <"runs/several$ranks/answers.jsonl")" -eq 21
    check "the same three on $ranks ranks" \
        cmp -s runs/several1/answers.jsonl "runs/several$ranks/answers.jsonl"
done
check "in order of prompts, then of answers" test "$(sed 's/^{"id":\([0-9]*\),.*"answer":\([0-9]*\),.*/\1\2/' \
    runs/several1/answers.jsonl | head -n 7 | tr '\n' ' ')" = "10 11 12 20 21 22 30 "
check "the first answer is the same as without others" cmp -s runs/generate1/answers.jsonl \
    <(grep '"answer":0,' runs/several1/answers.jsonl | sed 's/"answer":0,//')
check "the others are not" test "$(sed 's/"answer":[0-9]*,//' runs/several1/answers.jsonl | sort -u | wc -l)" -gt 14
quipu_on 2 wrong --set generate.num_return_sequences=3 --set generate.do_sample=false
check "several greedy answers: exit code 2" test "$code" -eq 2
check "several greedy answers: says why" logged "3 answers to a prompt are all the same without do_sample"

for ranks in 1 2; do
    quipu_on "$ranks" "int8-$ranks" --set generate.kv_cache_dtype=int8
    check "an int8 cache on $ranks ranks ends well" test "$code" -eq 0
done
check "an int8 cache: the same answers on 2 ranks" cmp -s runs/int8-1/answers.jsonl runs/int8-2/answers.jsonl
# Whether rounding changes a draw is the CPU's affair; that the cache is smaller is not.
cache_of() { # cache_of DTYPE: planned MB of a cache with long answers
    quipu_on 1 plan --dry-run --set "generate.kv_cache_dtype=$1" --set generate.max_new_tokens=1500
    sed -n 's/.*KV cache *\([0-9.]*\) MB per [a-z]*/\1/p' log
}
check "an int8 cache is smaller" awk -v int8="$(cache_of int8)" -v auto="$(cache_of auto)" \
    'BEGIN { exit !(int8 > 0 && int8 < auto) }'

# A prompt of n tokens with four answers: n are computed, and the last one three times more.
printf '{"prompt": "Question: malt hop yeast water barley wheat foam glass cask keg cellar brewer?"}\n' >one.jsonl
quipu_on 1 shared --set generate.num_return_sequences=4 --set prompts.input=one.jsonl
read -r total shared < <(sed -n 's/.*\] \([0-9]*\) prompt tokens, \([0-9]*\) of them shared.*/\1 \2/p' \
    runs/shared/quipu.log)
check "a prompt is computed once ($shared of $total tokens shared)" \
    test $((shared * 4)) -eq $((total * 3 - 12))

# Messages are the text that the template writes of them; null columns and byte-order marks are nothing.
printf '{%% for m in messages %%}{{ m.role }}: {{ m.content }}\n{%% endfor %%}assistant:' >chat.jinja
printf '\xef\xbb\xbf{"prompt": "user: malt?\\nassistant:", "messages": null}\n' >text.jsonl
cat >messages.jsonl <<'ROWS'
{"messages": [{"role": "user", "content": "malt?"}], "prompt": null}
{"prompt": [{"role": "user", "content": [{"type": "text", "text": "malt?"}]}]}
{"prompt": [{"from": "human", "value": "malt?"}], "n": 123456789012345678901234567890}
ROWS
gzip -k messages.jsonl
quipu_on 1 text --set generate.do_sample=false --set prompts.input=text.jsonl
quipu_on 2 messages --set generate.do_sample=false --set prompts.input=messages.jsonl.gz \
    --set prompts.chat_template=chat.jinja
check "messages end well" test "$code" -eq 0
check "messages: the answers of their text" test "$(sed 's/.*"completion"/"completion"/' runs/messages/answers.jsonl | sort -u)" = \
    "$(sed 's/.*"completion"/"completion"/' runs/text/answers.jsonl)"
check "messages: all answered" test "$(wc -l <runs/messages/answers.jsonl)" -eq 3

# Rows as others write them: the same prompt, whatever form it has, a row a line or all in one array.
cat >forms.jsonl <<'ROWS'
{"conversations": [{"from": "human", "value": "malt?"}, {"from": "gpt", "value": "hop"}]}
{"messages": [{"role": "user", "content": "malt?"}, {"role": "assistant", "content": "hop"}], "tools": "[]"}
{"instruction": "malt?", "input": "", "output": "hop"}
{"instruction": "", "input": "malt?", "history": [], "system": null}
ROWS
{ echo '['; paste -sd, forms.jsonl | sed 's/,{"/,\n  {\n"/g'; echo ']'; } >forms.json
for form in forms.jsonl forms.json; do
    quipu_on 2 $form --set generate.do_sample=false --set prompts.input=$form --set prompts.chat_template=chat.jinja
    check "$form: ends well" test "$code" -eq 0
    check "$form: the answers of their text" test "$(sed 's/.*"completion"/"completion"/' "runs/$form/answers.jsonl" | sort -u)" = \
        "$(sed 's/.*"completion"/"completion"/' runs/text/answers.jsonl)"
    check "$form: all answered" test "$(wc -l <"runs/$form/answers.jsonl")" -eq 4
done
check "rows of an array are lines of the same answers" cmp -s runs/forms.jsonl/answers.jsonl runs/forms.json/answers.jsonl

# A system prompt stands in the list, or beside it as others write it.
cat >system.jsonl <<'ROWS'
{"messages": [{"role": "system", "content": "hop"}, {"role": "user", "content": "malt?"}]}
{"messages": [{"role": "user", "content": "malt?"}], "system": "hop"}
{"conversations": [{"from": "human", "value": "malt?"}], "system": "hop"}
{"prompt": "system: hop\nuser: malt?\nassistant:"}
ROWS
quipu_on 1 system --set generate.do_sample=false --set prompts.input=system.jsonl --set prompts.chat_template=chat.jinja
check "a system prompt beside the turns is one before them" test \
    "$(sed 's/.*"completion"/"completion"/' runs/system/answers.jsonl | sort -u | wc -l)" -eq 1
read -r total shared < <(sed -n 's/.*\] \([0-9]*\) prompt tokens, \([0-9]*\) of them shared.*/\1 \2/p' \
    runs/system/quipu.log)
check "all four are the same tokens ($shared of $total shared)" test $((shared * 4)) -eq $((total * 3 - 12))

cat >plain.jsonl <<'ROWS'
{"instruction": "malt?", "input": "hop", "output": "cask"}
{"prompt": "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\nmalt?\n\n### Input:\nhop\n\n### Response:\n"}
ROWS
quipu_on 1 plain --set generate.do_sample=false --set prompts.input=plain.jsonl
check "Alpaca without a template: its own prompt" test \
    "$(sed 's/.*"completion"/"completion"/' runs/plain/answers.jsonl | sort -u | wc -l)" -eq 1

# What is not read comes back as it stood, all in one line; keys of the answer are replaced.
cat >kept.json <<'ROWS'
[{ "id": 123456789012345678901234567890, "big": 9007199254740993, "x": [1.10, 1e400, -0],
   "none": NaN, "text": "a  \u00e9, \"b\"", "completion": "old", "stopped": 7, "prompt": "malt?" }]
ROWS
quipu_on 2 kept --set prompts.input=kept.json
check "unread keys stay as they stand" grep -qF '{"id":123456789012345678901234567890,"big":9007199254740993,"x":[1.10,1e400,-0],"none":null,"text":"a  \u00e9, \"b\"","prompt":"malt?","completion":' \
    runs/kept/answers.jsonl
check "one answer, said once" test "$(grep -o '"completion":' runs/kept/answers.jsonl | wc -l)" -eq 1

ln -s nowhere broken
for place in broken runs; do
    quipu_on 2 "$place" --dry-run --set "prompts.output=$place"
    check "answers to $place: exit code 2, before any work" test "$code" -eq 2
    check "answers to $place: says so" logged "prompts.output: $place: "
done
quipu_on 2 nowhere --dry-run --set prompts.output=nowhere/answers.jsonl
check "answers to nowhere: exit code 3, before any work" test "$code" -eq 3
check "answers to nowhere: says so" logged "nowhere/answers.jsonl"

refused() { # refused NAME MESSAGE
    quipu_on 2 refused
    check "$1: exit code 2" test "$code" -eq 2
    check "$1: says \"$2\"" logged "$2"
    check "$1: no answers" not test -e runs/refused/answers.jsonl
}
printf '{"prompt": "x"}\n{"prompt": 7}\n' >prompts.jsonl
refused "not a string" "prompts.jsonl:2"
printf '{"prompt": ""}\n' >prompts.jsonl
refused "empty prompt" "prompts.jsonl:1: the prompt is empty"
printf '{"prompt": "%5000s"}\n' x >prompts.jsonl
refused "prompt too long" "the longest prompt with its answer is"
printf '{"messages": [{"role": "user"}]}\n' >prompts.jsonl
refused "messages without a template" "prompts.jsonl:1: "
printf '{"prompt": "\\ud800"}\n' >prompts.jsonl
refused "half a character" "prompts.jsonl:1: not JSON: holds half of a surrogate pair"
gzip -c <text.jsonl | head -c 30 >prompts.jsonl
refused "a cut file" "prompts.jsonl: the gzip stream is cut"
printf '{"prompt": "x"}\nhello\n' >prompts.jsonl
refused "not JSON" "prompts.jsonl:2: not JSON: invalid token near 'hello'"
printf '[{"prompt": "x"}, {"prompt": }]' >prompts.jsonl
refused "a damaged row of an array" "prompts.jsonl: row 2: not JSON: "
printf '[ ]' >prompts.jsonl
refused "an empty array" "prompts.jsonl: holds no prompt"
for row in '{"text": "x"}' '{"chosen": "x", "rejected": "y"}' '{"prompt": null}' '["x"' 5; do
    printf '{"prompt": "x"}\n%s\n' "$row" >prompts.jsonl
    refused "no prompt in $row" "prompts.jsonl:2: "
done
printf '{"prompt": [{"role": "assistant", "content": "x"}]}\n' >prompts.jsonl
refused "a prompt that is an answer" "prompts.jsonl:1: prompt ends with a turn of the assistant"
printf '{"messages": [{"role": "assistant", "content": "x"}]}\n' >prompts.jsonl
refused "nothing but an answer" "prompts.jsonl:1: messages: there is nothing to answer"
printf '{"instruction": "x", "system": "y"}\n' >prompts.jsonl
refused "a system prompt without a template" "prompts.jsonl:1: history or system, and the model has no chat template"
: >prompts.jsonl
refused "no prompt" "prompts.jsonl: holds no prompt"
end_test
