#!/usr/bin/env bash
# quipu-import, quipu-merge and quipu-inspect as programs: exit codes, messages, nothing left behind.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
golden=$QUIPU_SOURCE/tests/golden/formats
failures=0

# expect CODE TEXT COMMAND...: the command must end so, and say so.
expect() {
    local code=$1 text=$2 found=0
    shift 2
    "$@" >"$work/out" 2>&1 || found=$?
    if [[ $found != "$code" ]] || ! grep -qF -- "$text" "$work/out"; then
        echo "expected exit $code and \"$text\", got $found from: $*" >&2
        cat "$work/out" >&2
        failures=$((failures + 1))
    fi
}

absent() {
    local path
    for path in "$@"; do
        if [[ -e $path ]]; then
            echo "left behind: $path" >&2
            failures=$((failures + 1))
        fi
    done
}

import=$QUIPU_BIN/quipu-import merge=$QUIPU_BIN/quipu-merge inspect=$QUIPU_BIN/quipu-inspect
base=$work/base.h5

expect 0 "usage: quipu-import" "$import" --help
expect 2 "expected SOURCE and BASE.h5" "$import" "$work"
expect 2 'precision "int4": expected int8' "$import" --precision int4 "$work" "$base"
expect 2 "expected an HF model folder" "$import" "$work/absent" "$base"
expect 2 "config.json: cannot be opened" "$import" "$work" "$base"
head -c 30000 "$golden/tiny.gguf" >"$work/cut.gguf"
expect 2 "cut.gguf: the file is truncated" "$import" "$work/cut.gguf" "$base"
expect 3 "/nowhere" "$import" "$golden/tiny.gguf" /nowhere/base.h5
absent "$base" "$base.part"

expect 0 "int8 base of 2 layers" "$import" "$golden/tiny.gguf" "$base"
expect 0 "fp32 base of 2 layers" "$import" --precision fp32 "$golden/tiny.gguf" "$work/fp32.h5"
expect 0 "llm_int8 base of 3 layers" "$import" --precision llm_int8 --synthetic tiny,n_layer=3 "$work/random.h5"
expect 0 "bf16 base of 2 layers" "$import" --precision bf16 "$work/fp32.h5" "$work/bf16.h5"

expect 0 "data sets are intact" "$inspect" --verify "$base"
expect 0 "model.layers.1.mlp.down_proj.weight_scale" "$inspect" --tensors "$base"
expect 0 "all 16 tensors are finite" "$inspect" --verify "$golden/adapter"
expect 0 "same:" "$inspect" --diff "$base" "$base"
expect 2 "precision: int8, fp32" "$inspect" --diff "$base" "$work/fp32.h5"
expect 2 "tiny.gguf: not an HDF5 file" "$inspect" "$golden/tiny.gguf"
expect 2 "absent" "$inspect" "$work/absent.h5"

# One byte inside a data set (a token's name, easy to find): its checksum tells.
cp "$base" "$work/flipped.h5"
at=$(grep -abo '"t300"' "$base" | cut -d: -f1)
printf 'x' | dd of="$work/flipped.h5" bs=1 seek=$((at + 1)) conv=notrunc status=none
expect 2 "/tokenizer/model: 1 elements, max difference 4" "$inspect" --diff "$base" "$work/flipped.h5"
expect 2 "flipped.h5: /tokenizer/model: damaged: checksum" "$inspect" --verify "$work/flipped.h5"
head -c 20000 "$base" >"$work/cut.h5"
expect 2 "cut.h5" "$inspect" --verify "$work/cut.h5"

expect 2 "is no PEFT adapter folder" "$merge" "$base" "$work" "$work/out.h5"
expect 2 "its tensors differ" "$merge" --onto "$work/random.h5" "$base" "$golden/adapter" "$work/out.h5"
expect 2 "random.h5" "$merge" "$work/random.h5.none" "$golden/adapter" "$work/out.h5"
absent "$work/out.h5" "$work/out.h5.part"
expect 0 "rounding to int8 changed" "$merge" "$base" "$golden/adapter" "$work/merged.h5"
expect 0 "logits changed by" "$merge" "$base" "$golden/adapter" "$work/merged.h5"
expect 0 "data sets are intact" "$inspect" --verify "$work/merged.h5"
expect 0 "rounding to fp32 changed the linears' weights by 0 on average" \
    "$merge" --to hf "$work/fp32.h5" "$golden/adapter" "$work/hf"
expect 2 "hf: exists already" "$merge" --to hf "$work/fp32.h5" "$golden/adapter" "$work/hf"
absent "$work/hf.part"
expect 0 "rounding to bf16 changed" "$merge" --to hf "$base" "$golden/adapter" "$work/hf16"
expect 0 "written (base)" "$merge" --no-logits "$base" "$golden/adapter" "$work/merged"
if "$merge" --no-logits "$base" "$golden/adapter" "$work/merged" 2>&1 | grep -q 'logits changed'; then
    echo "--no-logits: compared them" >&2
    failures=$((failures + 1))
fi
expect 0 "written (gguf-lora)" "$merge" --to gguf-lora "$base" "$golden/adapter" "$work/lora.gguf"
expect 0 "written (peft)" "$merge" --to peft "$base" "$golden/adapter" "$work/adapter"

# Merging onto the original weights and importing the merged folder come to the same numbers.
expect 0 "written (base)" "$merge" --precision fp32 --onto "$golden/tiny.gguf" "$base" "$golden/adapter" "$work/onto.h5"
expect 0 "fp32 base of 2 layers" "$import" --precision fp32 "$work/hf" "$work/again.h5"
expect 2 "data sets are equal" "$inspect" --diff "$work/onto.h5" "$work/again.h5"
if "$inspect" --diff "$work/onto.h5" "$work/again.h5" 2>/dev/null | grep -q '^/tensors/'; then
    echo "the merged folder holds other weights" >&2
    failures=$((failures + 1))
fi

[[ $failures == 0 ]]
