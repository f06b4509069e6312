#!/usr/bin/env bash
# quipu-inspect --text: the samples of a shard as rows that quipu-prep reads again.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/../train/e2e.sh"

text() { # SHARD -> rows without the ids
    quipu-inspect --text base.h5 "$1" 2>log | sed 's/,"id":[0-9]*}$/}/'
}
fails() { # CODE TEXT ARGUMENTS...
    local expected=$1 says=$2
    shift 2
    code=0
    quipu-inspect "$@" >log 2>&1 || code=$?
    check "$*: exit code $expected (got $code)" test "$code" -eq "$expected"
    check "$*: says \"$says\"" logged "$says"
}
make_base base.h5

cat >all.jsonl <<'E2'
{"prompt":"Question: a \"b\"\nc?\n\nAnswer:","completion":" yes, <|im_end|> \\ caf\u00e9"}
{"text":"alone\tin a row"}
{"prompt":"Question: which?\n\nAnswer:","chosen":" the good one","rejected":" the bad one","margin":1.0}
{"prompt":"Question: d?\n\nAnswer: "}
E2
quipu-prep jsonl all.jsonl --base base.h5 --out all --eval-fraction 0 >/dev/null 2>&1
for kind in sft reward prompt; do text "all-$kind-train.h5"; done >rows.jsonl
sed 's/\\u00e9/é/' all.jsonl >expected.jsonl
check "rows come back as they were" diff expected.jsonl rows.jsonl

quipu-prep jsonl rows.jsonl --base base.h5 --out again --eval-fraction 0 >/dev/null 2>&1
for kind in sft reward prompt; do
    check "and make the same $kind samples" diff <(text "all-$kind-train.h5") <(text "again-$kind-train.h5")
done
check "samples have their ids" test "$(quipu-inspect --text base.h5 all-sft-train.h5 | grep -c '"id":[01]}$')" -eq 2

# The sides of a pair may have turns of the user of their own: both are shown.
cat >sides.jsonl <<'E2'
{"chosen":[{"role":"user","content":"first?"},{"role":"assistant","content":"good"}],"rejected":[{"role":"user","content":"second?"},{"role":"assistant","content":"bad"}]}
{"prompt":[{"role":"user","content":"same?"}],"chosen":[{"role":"assistant","content":"good"}],"rejected":[{"role":"assistant","content":"bad"}]}
{"chosen":[{"role":"user","content":"a?"},{"role":"assistant","content":"x"},{"role":"user","content":"b?"},{"role":"assistant","content":"good"}],"rejected":[{"role":"user","content":"a?"},{"role":"assistant","content":"y"},{"role":"user","content":"c?"},{"role":"assistant","content":"bad"}]}
{"chosen":[{"role":"assistant","content":"good"}],"rejected":[{"role":"user","content":"who?"},{"role":"assistant","content":"bad"}]}
E2
printf '%s' '{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}' >roles.jinja
quipu-prep jsonl sides.jsonl --base base.h5 --out sides --eval-fraction 0 --chat-template roles.jinja >log 2>&1
text sides-reward-train.h5 | sort >sides.txt
cat >expected.txt <<'E2'
{"chosen":"assistant: good","rejected":"user: who? assistant: bad","margin":1.0}
{"chosen":"user: first? assistant: good","rejected":"user: second? assistant: bad","margin":1.0}
{"prompt":"user: a? assistant:","chosen":" x user: b? assistant: good","rejected":" y user: c? assistant: bad","margin":1.0}
{"prompt":"user: same? assistant:","chosen":" good","rejected":" bad","margin":1.0}
E2
check "both sides of a pair are shown" diff expected.txt sides.txt

fails 2 "is a base, expected a shard" --text base.h5 base.h5
fails 2 "is a shard, expected a base" --text all-sft-train.h5 all-sft-train.h5
fails 2 "expected two files" --text base.h5
mkdir -p "$work/hf"
cp "$QUIPU_SOURCE/tests/golden/tokenizers/smollm.json" hf/tokenizer.json
quipu-prep jsonl all.jsonl --tokenizer hf --out other --eval-fraction 0 >/dev/null 2>&1
fails 2 "was made with tokenizer" --text base.h5 other-prompt-train.h5
# One byte of the tokens: the checksum tells before anything is printed.
quipu-inspect --tensors all-sft-train.h5 >/dev/null
size=$(stat -c %s all-sft-train.h5)
cp all-sft-train.h5 damaged.h5
for at in $(seq 2048 64 "$((size - 1))"); do
    printf 'x' | dd of=damaged.h5 bs=1 seek="$at" conv=notrunc status=none
done
fails 2 "damaged" --text base.h5 damaged.h5
end_test
