#!/usr/bin/env bash
# The checks of tests/gpu/run, which starts each by name in a process of its own:
#   checks.sh CHECK [ARGUMENTS...]
# with the bundle in $root, the working folder at the files that all share, and the sizes in $small.
# What is printed last behind "= " goes into the table. Exit code 77: cannot be checked here.
set -euo pipefail
: "${root:?}" "${small:?}" "${results:?}"
PATH=$root/bin:$PATH
export QUIPU_SOURCE=$root QUIPU_BIN=$root/bin
# shellcheck source=tests/texts.sh
. "$(dirname "$0")/../texts.sh"

say() { echo "= $*"; }
stop() {
    say "$*"
    exit 1
}

# --- what they work on ---------------------------------------------------------------------------

# Random bases of one small shape in each precision, shards, and a deck of each method.
material() {
    local shape=135m,n_layer=4,n_vocab=8192 length=256 steps=20 precision method
    if "$small"; then shape=tiny length=96 steps=3; fi
    for precision in int8 llm_int8 bf16 fp32; do
        quipu-import --precision $precision --synthetic $shape "$precision.h5"
    done
    texts 12345 600 4 9 | awk -F'\t' '{
        prompt = "{\"prompt\": \"Question: " $1 "?\""
        printf "%s, \"completion\": \" Answer: %s.\"}\n", prompt, $1 >"rows.jsonl"
        printf "%s, \"chosen\": \" %s is %s\", \"rejected\": \" %s\"}\n", prompt, $1, $2, $3 >"pairs.jsonl"
        print prompt "}" >"prompts.jsonl"
        if (NR <= 8) print prompt "}" >"few.jsonl"
        if (NR <= 64) print prompt "}" >"many.jsonl"
    }'
    local rows
    for rows in rows pairs prompts; do
        quipu-prep jsonl $rows.jsonl --base fp32.h5 --out data --eval-fraction 0.1
    done
    for method in sft reward dpo ppo eval generate; do
        cat >$method.cfg <<DECK
job   = { method = "$method"; seed = 3; };
log   = { every_steps = 1; };
device = { backend = "cuda"; };
DECK
        [ $method = generate ] || echo "batch = { global_sequences = 8; micro_sequences = 2; };" >>$method.cfg
    done
    for method in sft reward dpo ppo; do
        cat >>$method.cfg <<DECK
lora  = { r = 8; alpha = 16.0; dropout = 0.1; targets = "all-linear"; };
optim = { lr = 0.002; schedule = "constant"; steps = $([ $method = sft ] && echo $steps || echo 2); };
checkpoint = { every_steps = 0; };
DECK
    done
    echo "data = { train = \"data-sft-train.h5\"; seq_length = $length; };" >>sft.cfg
    echo "data = { eval = \"data-sft-eval.h5\"; seq_length = $length; };" >>eval.cfg
    echo 'data = { train = "data-reward-train.h5"; seq_length = 96; };' | tee -a reward.cfg >>dpo.cfg
    cat >>ppo.cfg <<DECK
data = { train = "data-prompt-train.h5"; seq_length = 96; };
generate = { max_new_tokens = 16; };
ppo = { mini_batch_sequences = 4; ppo_epochs = 2; };
reward_model = { adapter = "runs/reward-cuda/adapter"; };
DECK
    echo 'prompts = { input = "few.jsonl"; };' >>generate.cfg
    quipu --version
    say "$shape, $(wc -c <rows.jsonl) bytes of text"
}

# run NAME DECK PRECISION [quipu's arguments...]: one run; its log is in NAME.log.
run() {
    local name=$1 deck=$2 precision=$3
    shift 3
    quipu --set "job.name=$name" --set "base.file=$precision.h5" "$@" "$deck.cfg" >"$name.log" 2>&1 || {
        local code=$?
        tail -n 12 "$name.log"
        return "$code"
    }
}
# The same on both: the CPU in fp32, as the more exact one.
on_both() { # METHOD PRECISION [arguments...]: runs METHOD-cpu and METHOD-cuda
    local method=$1 precision=$2
    shift 2
    run "$method-cpu" "${method%%-*}" "$precision" --set device.backend=cpu --set device.compute=fp32 "$@"
    run "$method-cuda" "${method%%-*}" "$precision" "$@"
}

# column NAME RUN: that column of its metrics, of all steps.
column() {
    awk -F, -v name="$1" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i; next }
        $1 > 0 && c { print $c }' "runs/$2/metrics.csv"
}

# alike NAME LIMIT RUN RUN: the columns differ by no more than so much of their values.
alike() {
    column "$1" "$3" >a.txt
    column "$1" "$4" >b.txt
    paste a.txt b.txt | awk -v name="$1" -v limit="$2" '
        $1 !~ /^-?[0-9]/ || $2 !~ /^-?[0-9]/ { bad = 1; next }
        { size = $1 < 0 ? -$1 : $1; d = $1 - $2; if (d < 0) d = -d; d /= size > 1e-3 ? size : 1e-3
          if (d > worst) worst = d }
        END {
            if (NR == 0 || bad) print "= " name ": not a number in each step"
            else printf "= %s: %d steps, at most %.1e apart (limit %.0e)\n", name, NR, worst, limit
            exit NR == 0 || bad || worst > limit
        }'
}

# --- checks --------------------------------------------------------------------------------------

card() {
    command -v nvidia-smi >/dev/null || exit 77
    nvidia-smi
    say "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -n 1)"
}

# program NAME [ARGUMENTS...]: a test program.
program() {
    # shellcheck source=/dev/null
    . "$root/libexec/environment"
    "$root/libexec/$1" "${@:2}" 2>&1 | tee last.txt
    say "$(tail -n 1 last.txt)"
}

# What was looked at until the time is over counts, too.
sanitizer() { # TOOL PROGRAM
    command -v compute-sanitizer >/dev/null || exit 77
    local code=0
    # shellcheck source=/dev/null
    . "$root/libexec/environment"
    timeout -k 2 25 compute-sanitizer --tool "$1" --report-api-errors no --print-limit 5 --error-exitcode 99 \
        "$root/libexec/$2" >last.txt 2>&1 || code=$?
    tail -n 25 last.txt
    if [ "$code" -eq 124 ] && ! grep -qE '^=+ .*(Invalid|[Rr]ace|[Hh]azard|Error)' last.txt; then
        say "nothing found in the first 25 s"
        return 0
    fi
    say "$(grep -m 1 SUMMARY last.txt || tail -n 1 last.txt)"
    return "$code"
}

sft() { # PRECISION LIMIT
    on_both "sft-$1" "$1" "${@:3}"
    alike loss "$2" "sft-$1-cpu" "sft-$1-cuda"
}

same_adapter() { cmp "runs/$1/adapter/adapter_model.safetensors" "runs/$2/adapter/adapter_model.safetensors"; }

# The same run again gives the same bits.
repeat() {
    run sft-again sft int8
    same_adapter sft-int8-cuda sft-again || stop "another adapter"
    [ "$(column loss sft-int8-cuda)" = "$(column loss sft-again)" ] || stop "other losses"
    say "adapter and losses have the same bits"
}

# Steps in two starts are the steps of one.
restart() {
    local code=0
    run sft-parts sft int8 --set checkpoint.every_steps=1 --set checkpoint.stop_after_steps=2 || code=$?
    [ "$code" -eq 10 ] || stop "exit code $code instead of 10"
    run sft-parts sft int8 --set checkpoint.every_steps=1
    grep -q 'continuing after step 2' sft-parts.log || stop "not continued"
    same_adapter sft-int8-cuda sft-parts || stop "another adapter"
    say "2 steps and the rest give the bits of all in one"
}

# A pair of steps of a method against the CPU.
method() { # METHOD COLUMN LIMIT
    on_both "$1" fp32 --set device.compute=fp32
    alike "$2" "$3" "$1-cpu" "$1-cuda"
}

eval_loss() { sed -n 's/.*eval_loss \([0-9.]*\).*/\1/p' "$1.log" | tail -n 1; }
evaluate() {
    on_both eval fp32 --set device.compute=fp32
    say "eval_loss $(eval_loss eval-cpu) and $(eval_loss eval-cuda)"
    awk -v a="$(eval_loss eval-cpu)" -v b="$(eval_loss eval-cuda)" \
        'BEGIN { exit !(a > 0 && (a - b) / a < 1e-4 && (b - a) / a < 1e-4) }'
}

# Greedy answers: a near tie may fall another way now and then.
generate() {
    on_both generate fp32 --set device.compute=fp32 --set generate.do_sample=false --set generate.max_new_tokens=16
    local same
    same=$(paste -d '\n' runs/generate-{cpu,cuda}/answers.jsonl | sed 's/.*\("response": "[^"]*"\).*/\1/' | uniq -d | wc -l)
    say "$same of 8 answers are the CPU's"
    [ "$same" -ge 7 ]
}

# --- speed ---------------------------------------------------------------------------------------

rates() {
    if "$small"; then program bench_device small; else program bench_device; fi >/dev/null
    cp last.txt "$results/rates.txt"
    say "$(awk '/% of the peak/ && match($0, /[0-9]+% of/) {
        share = substr($0, RSTART, RLENGTH - 4) + 0
        k = /^int8 [0-9]/ ? "int8 linears" : /^bf16 [0-9]/ ? "bf16 linears" : /^attention/ ? "attention" : /^decode/ ? "decode" : ""
        if (k) { if (!(k in low) || share < low[k]) low[k] = share; if (share > high[k]) high[k] = share }
    } END { for (k in low) printf "%s %d-%d%%, ", k, low[k], high[k] }')of the peak; rates.txt" <last.txt
}

# A random base of 7B's shape (made beside the checks), and a deck of each.
large() {
    local shape=$QUIPU_GPU_SHAPE
    if "$small"; then shape=tiny; fi
    quipu-import --synthetic "$shape" large.part.h5
    mv large.part.h5 large.h5
    say "$shape, $(du -h large.h5 | cut -f1)"
}

# Fine-tuning: the best step's tokens/s, and which share of it the products of the model alone would take at the
# card's peak: of int8 for the linears, forward and backward; of bf16 for attention and head.
speed_sft() {
    local arguments=(--set batch.global_sequences=16 --set batch.micro_sequences=4 --set data.seq_length=1024
        --set data.packing=contaminated --set optim.steps=6 --set lora.r=16 --set 'lora.targets=["q_proj","v_proj"]')
    if "$small"; then arguments=(--set optim.steps=2); fi
    run speed sft large "${arguments[@]}"
    column tokens_per_second speed | sort -n | tail -n 1 | awk -v device="$(grep -m 1 -o 'cuda: .*' speed.log)" \
        -v shape="$QUIPU_GPU_SHAPE" '{
            bf16 = device ~ /[HG]?H[12]00/ ? 989e12 : device ~ /A100/ ? 312e12 : device ~ /B200/ ? 2250e12 : 0
            least = 4 * 32 * 4096 * (4 * 4096 + 3 * 11008) / (2 * bf16 + 1e-9)
            least += (4 * 32000 * 4096 + 7 * 32 * 1024 * 4096) / (bf16 + 1e-9)
            printf "= %.0f tokens/s", $1
            if (bf16 && shape == "7b") printf ", %.0f%% of what the peak allows", 100 * $1 * least
            print "; " device
        }'
}

speed_generate() { # SEQUENCES
    local tokens=128
    if "$small"; then tokens=4; fi
    head -n "$1" many.jsonl >some.jsonl
    run "speed-generate-$1" generate large --set prompts.input=some.jsonl --set generate.do_sample=true \
        --set generate.max_new_tokens=$tokens --set generate.min_new_tokens=$tokens
    say "$(grep -o '[0-9]* tokens, .* tokens/s' "speed-generate-$1.log" | tail -n 1)"
}

"$@"
