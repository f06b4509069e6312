#!/usr/bin/env bash
# QP_TEST: labels=shared
# Models and adapters that once failed (the folder cases of the data beside the checkout): read as their
# authors' programs read them, or refused in words of their own.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/../train/e2e.sh"
cases=$QUIPU_SOURCE/../shared/cases
[ -d "$cases" ] || exit 77
cp -r "$cases"/* .
chmod -R u+w .

run() { # run COMMAND...: output in log, exit code in code
    code=0
    "$@" >log 2>&1 || code=$?
}
gives() { # gives CODE NAME "line of the log": what the last command must have said
    check "$2: exit code $1 (got $code)" test "$code" -eq "$1"
    check "$2: says \"$3\"" logged "$3"
}
prep() { # prep ROWS BASE
    rm -f out-*
    run quipu-prep jsonl "$1" --base "$2" --out out --eval-fraction 0
    check "$1 is prepared" test "$code" -eq 0
}

# A folder as transformers saves it: only its weights are missing here.
run quipu-import model-max-length mml.h5
gives 2 "model_max_length of 1e30" "model.safetensors"

import() { # import FOLDER BASE
    run quipu-import --precision fp32 "$1" "$2"
    check "$1 is imported" test "$code" -eq 0
}
# Added tokens beside a SentencePiece model: 28 tokens with those of BOS and EOS, not 69.
import added-tokens/hf_sp sp.h5
prep added-tokens/spc.jsonl sp.h5
gives 0 "added tokens" "28 tokens"

# BOS that a row has already is not put there twice.
import chat-templates/hf_bos bos.h5
prep double-bos/dbl.jsonl bos.h5
check "no second BOS" not grep -q '<s><s>' <(quipu-inspect --text bos.h5 out-sft-train.h5)

# Part 1 of a model of two, alone.
run quipu-import split-gguf/g_split.gguf split.h5
gives 2 "a part of a GGUF" "is part 1 of 2"

# Adapters: on one layer only, and with a number that is a text; by both doors.
import adapters/hf_t t.h5
printf '{"prompt": "x"}\n' >prompts.jsonl
printf '%s\n' 'job = { method = "generate"; name = "run"; };' 'base = { file = "t.h5"; };' \
    'prompts = { input = "prompts.jsonl"; };' 'device = { threads = 1; };' >deck.cfg
for case in 'ad_ltt2|LoRA on some layers only' 'ad_alphastr16|lora_alpha is "16"'; do
    run quipu-merge t.h5 "adapters/${case%%|*}" merged --to hf
    gives 2 "quipu-merge ${case%%|*}" "${case#*|}"
    run quipu --dry-run --set "lora.init=adapters/${case%%|*}" deck.cfg
    gives 2 "lora.init ${case%%|*}" "${case#*|}"
done
end_test
