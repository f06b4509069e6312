# Support of the end-to-end tests: a tiny random base, shards made of generated text, a deck, runs.
# Sourced by tests/train/test_*.sh.
# shellcheck shell=bash
set -euo pipefail
: "${QUIPU_BIN:?}" "${QUIPU_SOURCE:?}"
PATH=$QUIPU_BIN:$PATH
work=$(mktemp -d)
failures=0
export code=0 # exit code of the last run

finish() {
    rm -rf "$work"
}
trap finish EXIT
# shellcheck source=tests/texts.sh
. "$QUIPU_SOURCE/tests/texts.sh"
cd "$work"

# check NAME COMMAND...: the command must succeed; otherwise the last log is shown.
check() {
    local name=$1
    shift
    if ! "$@"; then
        echo "failed: $name"
        [ ! -e log ] || tail -n 15 log | sed 's/^/    /'
        failures=$((failures + 1))
    fi
}
not() { ! "$@"; }
logged() { grep -qF -- "$1" log; }

# make_base FILE [SHAPE [quipu-import options...]]
make_base() {
    local file=$1 shape=${2:-tiny}
    quipu-import "${@:3}" --synthetic "$shape" "$file" >/dev/null 2>&1
}

# make_data PREFIX: some hundred short prompts and completions, always the same.
make_data() {
    texts 12345 160 4 9 | awk -F'\t' '{
        printf "{\"prompt\": \"Question: %s?\", \"completion\": \" Answer: %s.\"}\n", $1, $1
    }' >"$1.jsonl"
    quipu-prep jsonl "$1.jsonl" --base base.h5 --out "$1" --eval-fraction 0.1 >/dev/null 2>&1
}

make_deck() {
    cat >deck.cfg <<'DECK'
job   = { method = "sft"; name = "run"; seed = 3; };
base  = { file = "base.h5"; };
lora  = { r = 4; alpha = 8.0; dropout = 0.1; targets = "all-linear"; };
data  = { train = [ "data-sft-train.h5" ]; eval = [ "data-sft-eval.h5" ]; seq_length = 128; };
batch = { global_sequences = 8; micro_sequences = 1; };
optim = { lr = 0.01; schedule = "constant"; warmup_steps = 2; steps = 6; };
checkpoint = { every_steps = 2; keep = 2; };
device = { threads = 1; };
log   = { every_steps = 1; };
DECK
}

# quipu_on RANKS NAME ARGUMENTS...: one run of deck.cfg under that name; output in log, exit code in code.
quipu_on() {
    local ranks=$1 name=$2
    shift 2
    code=0
    mpirun --oversubscribe --bind-to none -n "$ranks" quipu --set "job.name=$name" "$@" \
        "${deck:-deck.cfg}" >log 2>&1 || code=$?
}

# The columns of metrics.csv that do not depend on the clock.
results() {
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) keep[i] = $i !~ /^(tokens_per_second$|step_time$|time\/)/ }
             { line = ""; for (i = 1; i <= NF; i++) if (keep[i]) line = line "," $i; print line }' \
        "runs/$1/metrics.csv"
}
same_adapter() { cmp -s "runs/$1/adapter/adapter_model.safetensors" "runs/$2/adapter/adapter_model.safetensors"; }
same_results() { diff <(results "$1") <(results "$2") >/dev/null; }

end_test() {
    echo "$failures failures"
    [ "$failures" -eq 0 ]
}
