#!/usr/bin/env bash
# QP_TEST: labels=cuda
# Fine-tuning on GPUs: twenty steps on real text have the CPU's losses, in every precision of the base;
# the adapter does not depend on the number of GPUs nor on where a run stops; evaluation, answers.
# shellcheck source=tests/train/cuda.sh
. "$(dirname "$0")/cuda.sh"

# Prose of the documents, a line each.
cat "$QUIPU_SOURCE"/doc/{architecture,numerics,rlhf}.md | grep -v '["\\|`]' | grep -o '[A-Z][a-z ,]\{30,60\}' |
    awk '{ printf "{\"prompt\": \"%s\", \"completion\": \"%s\"}\n", substr($0, 1, 12), substr($0, 13) }' >data.jsonl
for precision in fp32 bf16 int8 llm_int8; do
    make_base "$precision.h5" tiny --precision "$precision"
done
quipu-prep jsonl data.jsonl --base int8.h5 --out data --eval-fraction 0.1 >/dev/null 2>&1
cat >deck.cfg <<'DECK'
job   = { method = "sft"; name = "run"; seed = 3; };
lora  = { r = 4; alpha = 8.0; dropout = 0.1; targets = "all-linear"; };
data  = { train = "data-sft-train.h5"; eval = "data-sft-eval.h5"; eval_rows = 2; seq_length = 64; };
batch = { global_sequences = 4; micro_sequences = 1; };
optim = { lr = 0.002; schedule = "constant"; warmup_steps = 2; steps = 20; };
checkpoint = { every_steps = 20; };
device = { threads = 1; };
log   = { every_steps = 1; };
DECK
for precision in fp32 bf16 int8 llm_int8; do
    settings=(--set "base.file=$precision.h5")
    compute=bf16 limit=2e-3
    [ "$precision" != fp32 ] || compute=fp32 limit=1e-4
    on cpu 1 "cpu-$precision" "${settings[@]}" --set device.compute=fp32
    check "$precision: the CPU's run ends well" test "$code" -eq 0
    ends_well 1 "$precision" "${settings[@]}" --set "device.compute=$compute"
    check "$precision: 20 losses within $limit of the CPU's" close "$precision" "cpu-$precision" loss 20 "$limit"
    check "$precision: the model learns" awk -v first="$(column loss "$precision" | head -n 1)" \
        -v last="$(column loss "$precision" | tail -n 1)" 'BEGIN { exit !(last < 0.95 * first) }'
    check "$precision: the evaluation, too" close "$precision" "cpu-$precision" eval_loss 1 "$limit"
done

# The same bits on any number of GPUs, in one go or in parts.
parts=(--set base.file=int8.h5 --set optim.steps=4 --set checkpoint.every_steps=1 --set samples.every_steps=1
    --set samples.max_new_tokens=4 --set 'samples.prompts=[ "The model" ]')
for ranks in 1 2 4; do
    ends_well "$ranks" "on$ranks" "${parts[@]}"
    check "1 and $ranks GPUs give the same" same_run on1 "on$ranks"
done
on cuda 4 parts "${parts[@]}" --set checkpoint.stop_after_steps=1
on cuda 2 parts "${parts[@]}" --set checkpoint.stop_after_steps=1
check "stopped after step 2: exit code 10" test "$code" = 10
ends_well 1 parts "${parts[@]}"
check "continued" logged "continuing after step 2"
check "parts and whole give the same" same_run on1 parts

# Sums by ncclAllReduce are said to depend on the number of ranks; those by MPI are those of the tree.
ends_well 2 reduced "${parts[@]}" --set device.allreduce=nccl
check "ncclAllReduce: says that bits depend on the ranks" logged "the bits of gradients depend on the number of ranks"
check "ncclAllReduce: near the tree's losses" close reduced on1 loss 4 1e-4
ends_well 2 staged "${parts[@]}" --set device.allreduce=mpi
check "sums through the host: the same bits" same_run on1 staged

# Evaluation and answers of an adapter, in fp32: the CPU's.
cat >shape.txt <<'DECK'
base   = { file = "fp32.h5"; };
lora   = { init = "runs/fp32/adapter"; };
device = { threads = 1; compute = "fp32"; };
DECK
cat - shape.txt >eval.cfg <<'DECK'
job   = { method = "eval"; name = "eval"; };
data  = { eval = "data-sft-eval.h5"; eval_rows = 4; seq_length = 64; };
batch = { micro_sequences = 1; };
DECK
cat - shape.txt >generate.cfg <<'DECK'
job      = { method = "generate"; name = "generate"; seed = 5; };
prompts  = { input = "prompts.jsonl"; };
generate = { max_new_tokens = 12; do_sample = true; temperature = 0.8; top_k = 50; top_p = 0.95; };
DECK
printf '{"prompt": "%s"}\n' "The model" "A step" "Memory of" >prompts.jsonl
deck=eval.cfg
on cpu 1 cpu-eval
ends_well 2 eval
value() { sed -n 's/.*"eval_loss": \([-0-9.e]*\).*/\1/p' "runs/$1/eval.json"; }
check "eval: the CPU's loss" awk -v a="$(value eval)" -v b="$(value cpu-eval)" \
    'BEGIN { exit !(a != "" && a / b - 1 < 1e-5 && b / a - 1 < 1e-5) }'
deck=generate.cfg
on cpu 1 cpu-generate
ends_well 2 generate
check "generate: the CPU's answers" cmp -s runs/generate/answers.jsonl runs/cpu-generate/answers.jsonl

# Kernels of attention are there for heads up to a size.
make_base wide.h5 tiny,head_dim=258
deck=deck.cfg
on cuda 1 wide --set base.file=wide.h5 --dry-run
check "wide heads: exit code 2, in a dry run too" test "$code" -eq 2
check "wide heads: says so" logged 'base.file: heads of 258 features, but attention on "cuda" has 256 at most'
end_test
