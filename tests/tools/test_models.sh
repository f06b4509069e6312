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
for seed in '' 1x -1 1.5 -18446744073709551615; do
    expect 2 "--seed \"$seed\": expected an integer from 0 to 4294967295" "$import" --synthetic tiny --seed "$seed" "$base"
done
for shape in '' 'tiny,' tiny,,n_layer=1; do
    expect 2 'shape "" is unknown' "$import" --synthetic "$shape" "$base"
done
absent "$base" "$base.part"

expect 0 "int8 base of 2 layers" "$import" "$golden/tiny.gguf" "$base"
expect 0 "fp32 base of 2 layers" "$import" --precision fp32 "$golden/tiny.gguf" "$work/fp32.h5"
expect 0 "llm_int8 base of 3 layers" "$import" --precision llm_int8 --synthetic tiny,n_layer=3 "$work/random.h5"
expect 0 "bf16 base of 2 layers" "$import" --precision bf16 "$work/fp32.h5" "$work/bf16.h5"

# The LM head is as the embedding unless it is told otherwise.
expect 0 "LM head int8" "$import" --lm-head int8 "$golden/tiny.gguf" "$work/head.h5"
expect 0 "LM head bf16" "$import" "$golden/tiny.gguf" "$work/head16.h5"
expect 0 "same:" "$inspect" --diff "$base" "$work/head16.h5"
expect 0 "LM head bf16" "$import" --precision llm_int8 "$golden/tiny.gguf" "$work/llm.h5"
expect 0 "LM head int8" "$import" --precision fp32 --lm-head int8 "$golden/tiny.gguf" "$work/head32.h5"
expect 0 "LM head int8" "$import" --lm-head int8 --synthetic tiny,tied=1,n_vocab=301 "$work/tied.h5"
for head in fp32 int4 llm_int8; do
    expect 2 "LM head \"$head\": in a base of int8, expected int8 or bf16" "$import" --lm-head "$head" "$golden/tiny.gguf" "$work/no.h5"
done
expect 2 'LM head "bf16": in a base of fp32, expected int8 or fp32' "$import" --precision fp32 --lm-head bf16 "$golden/tiny.gguf" "$work/no.h5"
absent "$work/no.h5" "$work/no.h5.part"
expect 0 "lm_head.weight_scale" "$inspect" --tensors "$work/head.h5"
expect 0 "lm_head.weight_scale" "$inspect" --tensors "$work/tied.h5"
expect 2 "lm_head: int8, (none)" "$inspect" --diff "$work/head.h5" "$work/head16.h5"
expect 0 "format_version         2" "$inspect" "$work/head.h5"
expect 0 "format_version         1" "$inspect" "$work/head16.h5"

expect 0 "data sets are intact" "$inspect" --verify "$base"
expect 0 "model.layers.1.mlp.down_proj.weight_scale" "$inspect" --tensors "$base"
expect 0 "all 16 tensors are finite" "$inspect" --verify "$golden/adapter"
expect 0 "same:" "$inspect" --diff "$base" "$base"
expect 2 "precision: int8, fp32" "$inspect" --diff "$base" "$work/fp32.h5"
expect 2 "tiny.gguf: is a GGUF model: import it" "$inspect" "$golden/tiny.gguf"
expect 2 "absent" "$inspect" "$work/absent.h5"

# Damage in a tensor is not passed on.
at=$(($(stat -c %s "$work/head.h5") / 2))
hurt=0
for byte in 0 4000 9000; do
    cp "$work/head.h5" "$work/hurt.h5"
    printf '\125\252\125' | dd of="$work/hurt.h5" bs=1 seek=$((at + byte)) conv=notrunc status=none
    "$inspect" --verify "$work/hurt.h5" >/dev/null 2>&1 && continue # between the data sets
    expect 2 "hurt.h5: " "$import" "$work/hurt.h5" "$work/no.h5"
    expect 2 "hurt.h5: " "$merge" --no-logits "$work/hurt.h5" "$golden/adapter" "$work/no.h5"
    absent "$work/no.h5" "$work/no.h5.part"
    hurt=$((hurt + 1))
done
[[ $hurt -gt 0 ]] || failures=$((failures + 1))

# One byte inside a data set (a token's name, easy to find): its checksum tells.
cp "$base" "$work/flipped.h5"
at=$(grep -abo '"t300"' "$base" | cut -d: -f1)
printf 'x' | dd of="$work/flipped.h5" bs=1 seek=$((at + 1)) conv=notrunc status=none
expect 2 "/tokenizer/model: 1 elements, max difference 4" "$inspect" --diff "$base" "$work/flipped.h5"
expect 2 "flipped.h5: /tokenizer/model: damaged: checksum" "$inspect" --verify "$work/flipped.h5"
cp "$base" "$work/near.h5"
printf 'u' | dd of="$work/near.h5" bs=1 seek=$((at + 1)) conv=notrunc status=none
expect 2 "/tokenizer/model: 1 elements, max difference 1," "$inspect" --diff "$base" "$work/near.h5"
head -c 20000 "$base" >"$work/cut.h5"
expect 2 "cut.h5" "$inspect" --verify "$work/cut.h5"

expect 2 "is no PEFT adapter folder" "$merge" "$base" "$work" "$work/out.h5"
expect 2 "its tensors differ" "$merge" --onto "$work/random.h5" "$base" "$golden/adapter" "$work/out.h5"
expect 2 "random.h5" "$merge" "$work/random.h5.none" "$golden/adapter" "$work/out.h5"
absent "$work/out.h5" "$work/out.h5.part"
expect 0 "rounding to int8 changed" "$merge" "$base" "$golden/adapter" "$work/merged.h5"
expect 0 "logits changed by" "$merge" "$base" "$golden/adapter" "$work/merged.h5"
expect 0 "data sets are intact" "$inspect" --verify "$work/merged.h5"
expect 0 "format_version         1" "$inspect" "$work/merged.h5"
expect 0 "logits changed by" "$merge" "$work/head.h5" "$golden/adapter" "$work/merged8.h5"
expect 0 "format_version         2" "$inspect" "$work/merged8.h5"
expect 0 "logits changed by" "$merge" --lm-head bf16 "$work/head.h5" "$golden/adapter" "$work/merged16.h5"
expect 0 "format_version         1" "$inspect" "$work/merged16.h5"
expect 0 "written (base)" "$merge" --no-logits --precision fp32 "$work/head.h5" "$golden/adapter" "$work/merged32.h5"
expect 0 "format_version         1" "$inspect" "$work/merged32.h5"
expect 2 "--lm-head has no meaning with --to hf" "$merge" --to hf --lm-head int8 "$base" "$golden/adapter" "$work/no"
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

# What cannot be written is said at once: no output is begun, none is left.
merge_adapter() { "$merge" "$@"; }
mkdir "$work/full" "$work/empty"
echo x >"$work/full/file"
ln -s nowhere "$work/link"
for to in hf peft; do
    expect 2 "full: exists already" merge_adapter --to "$to" "$base" "$golden/adapter" "$work/full"
    expect 2 "file: exists already" merge_adapter --to "$to" "$base" "$golden/adapter" "$work/full/file"
    expect 2 "link: exists already and is not a folder, but a link" merge_adapter --to "$to" "$base" "$golden/adapter" "$work/link"
    expect 3 "absent/out: cannot be made" merge_adapter --to "$to" "$base" "$golden/adapter" "$work/absent/out"
    expect 0 "written ($to)" merge_adapter --to "$to" "$base" "$golden/adapter" "$work/empty/"
    rm -r "$work/empty"
    mkdir "$work/empty"
done
for to in base gguf-lora; do
    expect 2 "empty: exists already and is not a file" merge_adapter --to "$to" "$base" "$golden/adapter" "$work/empty"
    expect 3 "absent/out: cannot be made" merge_adapter --to "$to" "$base" "$golden/adapter" "$work/absent/out"
    expect 2 "link: is a link to nowhere" merge_adapter --to "$to" "$base" "$golden/adapter" "$work/link"
    expect 2 "base.h5: is what is merged" merge_adapter --to "$to" "$base" "$golden/adapter" "$work/./base.h5"
done
expect 2 "link: is a link to nowhere" "$import" "$golden/tiny.gguf" "$work/link"
expect 2 "empty: exists already and is not a file, but a folder" "$import" "$golden/tiny.gguf" "$work/empty"
expect 3 "absent/out: cannot be made in" "$import" "$golden/tiny.gguf" "$work/absent/out"
absent "$work/nowhere"
cp -r "$golden/adapter" "$work/own"
expect 2 "own: is what is merged" merge_adapter --to peft "$base" "$work/own" "$work/own/"
expect 2 "fp32.h5: is what is merged" merge_adapter --onto "$work/fp32.h5" "$base" "$golden/adapter" "$work/fp32.h5"
expect 2 "holds a control character" merge_adapter "$base" "$golden/adapter" "$work/a"$'\n'"b.h5"
expect 2 "--precision has no meaning with --to hf" merge_adapter --to hf --precision fp32 "$base" "$golden/adapter" "$work/x"
expect 2 "--dtype has no meaning with --to base" merge_adapter --dtype bf16 "$base" "$golden/adapter" "$work/x"
expect 2 "--onto has no meaning with --to peft" merge_adapter --to peft --onto "$base" "$base" "$golden/adapter" "$work/x"
if [[ $EUID != 0 ]]; then
    chmod a-w "$work/empty"
    expect 3 "Permission denied" merge_adapter "$base" "$golden/adapter" "$work/empty/out.h5"
fi
expect 0 "data sets are intact" "$inspect" --verify "$base"
absent "$work/x" "$work/absent" "$work/base.h5.part" "$work/full.part"

# An adapter of another model, and one that is not supported: refused before anything is written.
"$import" --synthetic tiny "$work/wide.h5" >/dev/null 2>&1
"$import" --synthetic n_layer=1,d_model=32,n_head=4,n_kv_head=2,head_dim=16,d_ff=48,n_vocab=320,max_position=256 \
    "$work/one.h5" >/dev/null 2>&1
expect 2 "the base's sizes" merge_adapter "$work/wide.h5" "$golden/adapter" "$work/x"
expect 2 "unexpected tensor base_model.model.model.layers.1." merge_adapter "$work/one.h5" "$golden/adapter" "$work/x"
sed 's/"use_dora": false/"use_dora": true/' "$golden/adapter/adapter_config.json" >"$work/own/adapter_config.json"
for to in base hf gguf-lora peft; do
    expect 2 "adapter_config.json: use_dora is true" merge_adapter --to "$to" "$base" "$work/own" "$work/x"
done
absent "$work/x" "$work/x.part"

# quipu-inspect says of anything what it is, and waits for nothing.
inspect() { timeout 20 "$inspect" "$@"; }
expect 2 "adapter_config.json: use_dora is true" inspect "$work/own"
expect 2 "full: is no PEFT adapter folder" inspect "$work/full"
rm "$work/own/adapter_model.safetensors"
cp "$golden/adapter/adapter_config.json" "$work/own"
expect 2 "own: has no adapter_model.safetensors" inspect "$work/own"
touch "$work/own/adapter_model.bin"
expect 2 "only a PyTorch pickle (adapter_model.bin)" inspect "$work/own"
: >"$work/nothing.h5"
expect 2 "nothing.h5: is empty" inspect "$work/nothing.h5"
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n' >"$work/pointer.h5"
expect 2 "pointer.h5: is a Git LFS pointer" inspect "$work/pointer.h5"
expect 2 "file: is no HDF5 file" inspect "$work/full/file"
mkfifo "$work/pipe"
expect 2 "pipe: is neither a file nor a folder" inspect "$work/pipe"
expect 2 "pipe: is neither a file nor a folder" inspect --diff "$work/pipe" "$base"
expect 2 "full: is a folder, expected a .h5 file" inspect --text "$base" "$work/full"

# Merging onto the original weights and importing the merged folder come to the same numbers.
expect 0 "written (base)" "$merge" --precision fp32 --onto "$golden/tiny.gguf" "$base" "$golden/adapter" "$work/onto.h5"
expect 0 "fp32 base of 2 layers" "$import" --precision fp32 "$work/hf" "$work/again.h5"
expect 2 "data sets are equal" "$inspect" --diff "$work/onto.h5" "$work/again.h5"
if "$inspect" --diff "$work/onto.h5" "$work/again.h5" 2>/dev/null | grep -q '^/tensors/'; then
    echo "the merged folder holds other weights" >&2
    failures=$((failures + 1))
fi

[[ $failures == 0 ]]
