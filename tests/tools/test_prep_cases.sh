#!/usr/bin/env bash
# QP_TEST: labels=shared
# Inputs that once failed (the folder cases of the data beside the checkout), as they are.
set -euo pipefail
cases=$QUIPU_SOURCE/../shared/cases
[ -d "$cases" ] || exit 77
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir hf
cp "$QUIPU_SOURCE/tests/golden/tokenizers/smollm.json" hf/tokenizer.json
cat >hf/tokenizer_config.json <<'END'
{"eos_token": "<|im_end|>", "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"}
END

# gives CODE SOURCE CASE "line of the log"...: what the program says of a case, with the model hf or $model
gives() {
    local code=$1 source=$2 input=$3 found=0 line
    shift 3
    "$QUIPU_BIN/quipu-prep" "$source" "$cases/$input" ${model:---tokenizer hf} --out o --eval-fraction 0 >log 2>&1 ||
        found=$?
    for line in "$@"; do
        if [ "$found" -ne "$code" ] || ! grep -qF -- "$line" log; then
            printf '%s: expected exit code %s and "%s", got %s and:\n' "$input" "$code" "$line" "$found" >&2
            cat log >&2
            exit 1
        fi
    done
}
samples() { "$QUIPU_BIN/quipu-inspect" --text "$1" o-sft-train.h5; }

gives 0 jsonl rows/bom 'sft: 3 train'
gives 0 jsonl rows/nullcols 'sft: 2 train'
gives 0 jsonl rows/bigint 'sft: 1 train'
gives 0 jsonl rows/lone 'sft: 1 train' '1 skipped: not JSON (first: ' 'rows/lone:1: holds half of a surrogate pair'
gives 0 jsonl rows/sharegpt 'sft: 1 train'
gives 0 jsonl rows/alpaca 'sft: 1 train'
gives 2 jsonl no-assistant-turn/m_useronly.jsonl '1 skipped: conversations without an answer'
gives 2 jsonl no-assistant-turn/m_empty_asst.jsonl '1 skipped: conversations without an answer'
gives 0 stackexchange dump-control-character/Posts.xml '1 characters dropped that XML forbids' 'prompt: 1 train'
gives 0 stackexchange gzip-members/Posts.xml.gz '4 posts read' 'prompt: 1 train'

# A tokenizer with a token that the model does not have: in the folder, and in a base.
beyond='1 skipped: samples with a token that the model does not have'
model="--tokenizer $cases/token-beyond-model/hf_pad" \
    gives 0 jsonl token-beyond-model/pad.jsonl "$beyond" 'pad.jsonl:31: [PAD] has the id 257, the model has 257 ids' 'sft: 39 train'

# Chat templates that resemble others: what they write, not what those write.
for case in 'hf_bos|"prompt":"user\n hi \nassistant\n","completion":" yo\n"' \
    'hf_che|"prompt":"human\n hi \n","completion":"gpt\n yo\n"' \
    'hf_cl2|"prompt":"[INST] hi [/INST]","completion":" yo "'; do
    "$QUIPU_BIN/quipu-import" "$cases/chat-templates/${case%%|*}" base.h5 >/dev/null 2>&1
    model='--base base.h5' gives 0 jsonl chat-templates/chat.jsonl 'sft: 1 train'
    samples base.h5 | grep -qF "${case#*|}" || { samples base.h5 >&2; exit 1; }
    model='--base base.h5' gives 0 jsonl chat-templates/c12.jsonl 'sft: 2 train'
done
