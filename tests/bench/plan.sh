#!/usr/bin/env bash
# quipu --plan-for beside measured steps: a small random model on 1, 2, 4 and 8 ranks of this machine,
# which share its cores where there are fewer, and PPO on 1 and 2. See tests/bench/run.
#   QUIPU_PLAN_STEPS=5    steps of a run; of QUIPU_REPEAT runs in turns the best counts
# The machine is described by what is measured here: memory and messages by bench_link, operations/s by
# the ops of one rank that trains another model, a smaller one; nothing of what is predicted is put in.
# Times are processor time, since others may use the machine; what the clock says stands beside it.
set -euo pipefail
# shellcheck source=tests/bench/common.sh
. "$(dirname "$0")/common.sh"
n_step=${QUIPU_PLAN_STEPS:-5}
cores=$(env -u OMP_NUM_THREADS nproc)
cd "$work"

# A random model with texts and queries of its own: NAME.h5, NAME-sft-train.h5, NAME-prompt-train.h5.
make_model() { # name, shape
    quipu-import --synthetic "$2" "$1.h5" 2>import.log || quit "$(reason import.log)"
    awk 'BEGIN { srand(1); for (i = 0; i < 400; i++) { s = ""; for (j = 0; j < 200; j++) s = s sprintf("%c", 97 + int(26 * rand()))
        printf "{\"prompt\": \"%.20s\", \"completion\": \"%s\"}\n", s, s } }' >texts.jsonl
    sed 's/"prompt": "[a-z]*", "completion": "\([a-z]\{64\}\).*/"prompt": "\1"}/' texts.jsonl >queries.jsonl
    for file in texts queries; do
        quipu-prep jsonl $file.jsonl --base "$1.h5" --out "$1" --eval-fraction 0 2>prep.log || quit "$(reason prep.log)"
    done
    cat >"$1.cfg" <<DECK
job   = { method = "sft"; name = "$1"; restart = "never"; output = "$work/runs"; };
base  = { file = "$1.h5"; };
lora  = { r = 8; alpha = 16.0; dropout = 0.05; targets = [ "q_proj", "v_proj" ]; };
data  = { train = [ "$1-sft-train.h5" ]; seq_length = 128; packing = "contaminated"; };
batch = { global_sequences = 8; micro_sequences = 1; };
optim = { steps = $n_step; };
eval  = { at_start = false; at_end = false; };
checkpoint = { every_steps = 0; };
device = { threads = 1; recompute = "none"; };
log   = { every_steps = 1; };
DECK
    sed -e 's/"sft"/"ppo"/; s/sft-train/prompt-train/; s/seq_length = 128; packing = "contaminated"/seq_length = 64/' \
        -e 's/^batch.*/batch = { global_sequences = 8; micro_sequences = 4; };/' "$1.cfg" >"$1-ppo.cfg"
    cat >>"$1-ppo.cfg" <<DECK
ppo   = { ppo_epochs = 2; stop_at_eos = false; };
generate     = { max_new_tokens = 32; };
reward_model = { command = [ "sed", "-u", "s/.*/{\\"reward\\": 1.0}/" ]; };
DECK
}

# Processor time of a run of so many steps, all ranks together.
processor_time() { # steps, ranks, deck, quipu arguments...
    local many=$1 ranks=$2 deck=$3
    shift 3
    rm -rf runs
    /usr/bin/time -o time -f '%U %S' mpirun -n "$ranks" --oversubscribe --bind-to none \
        quipu "$@" --set "optim.steps=$many" "$deck.cfg" >run.log 2>&1 </dev/null || quit "$(reason run.log)"
    awk '{ print $1 + $2 }' time
}

# Of a step: seconds by the clock, the best of them (without rewards of a program), and processor time
# divided by the cores that the ranks have: what the clock would say if nobody else were here.
measure() { # ranks, deck, quipu arguments...
    local all one
    one=$(processor_time 1 "$@")
    all=$(processor_time "$n_step" "$@")
    awk -F, -v cpu="$(calc "($all - $one) / ($n_step - 1) / ($1 < $cores ? $1 : $cores)" %.4f)" '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; score = "time/ppo/score" in at; next }
        { t = $at["step_time"] - (score ? $at["time/ppo/score"] : 0) } NR == 2 || t < best { best = t }
        END { printf "%.4f\t%s\n", best, cpu }' runs/*/metrics.csv
}

# --- the machine ----------------------------------------------------------------------------------

# Which share of the ops' time is of which class, over all steps: "int8 0.53" and so on.
shares_of_classes() { # log
    awk '/ s .* calls$/ { class = "rows"
             if ($3 ~ /^linear_/) class = "int8"
             if ($3 ~ /^matmul/) class = "adapter"
             if ($3 ~ /^attention_/) class = "attention"
             if ($3 ~ /^lm_head/) class = "head"
             if ($3 ~ /^(upload|download|weight_pack|samples|data|gradient|optimiser|checkpoint)/) next
             t[class] += $4; sum += $4 }
         END { for (c in t) print c, t[c] / sum }' "$1"
}

write_machine() { # int8, real, shares... -> machine.cfg
    local real
    real="fp32 = $2;"
    if grep -q 'ranks: .* bf16$' class.log; then real="bf16 = $2; fp32 = $2;"; fi
    {
        echo "machine   = { name = \"$cores cores\"; nodes = 1; };"
        echo "node      = { processors = $cores; ranks = 8; memory = $(free -b | awk '/^Mem/ { print $2 / 1e9 }');" \
            "$(sed -n 's/^node\.\(.*\)/\1;/p' link.txt | xargs) };"
        echo "processor = { kind = \"cpu\"; cores = 1; int8 = $1; $real" \
            "$(sed -n 's/^processor\.\(.*\)/\1;/p' link.txt) };"
        echo "storage   = { read = 1.0; write = 1.0; };"
        shift 2
        echo "reached   = { $* };"
    } >machine.cfg
}

describe_machine() {
    make_model class n_layer=4,d_model=192,n_head=3,n_kv_head=3,d_ff=512,n_vocab=2048
    on_ranks 2 bench_link >link.txt || quit "bench_link failed"
    local all one
    one=$(processor_time 1 1 class)
    all=$(processor_time "$((4 * n_step))" 1 class --set log.level=stat)
    cp run.log class.log
    write_machine 1 1
    quipu --plan-for machine.cfg class.cfg >class.plan 2>plan.log || quit "$(reason plan.log)"
    # Of a step of 8 micro-batches; 10^9 operations and GB.
    shares_of_classes class.log | awk -v bandwidth="$(sed -n 's/^processor.bandwidth = //p' link.txt)" \
        -v step="$(calc "($all - $one) / (4 * $n_step - 1)" %.5f)" '
        FILENAME == "class.plan" { if ($1 ~ /^(int8|adapter|attention|head|rows)$/ && NF == 4) { ops[$1] = 8 * $2; gb[$1] = 8 * $3 } next }
        { rate[$1] = ops[$1] / ($2 * step); moved[$1] = gb[$1] / ($2 * step) }
        END {
            for (c in rate) if (c != "int8" && c != "rows" && rate[c] > real) real = rate[c]
            share = moved["rows"] / bandwidth
            printf "%.6f %.6f int8 = 1.0; rows = %.4f;", rate["int8"] / 1e3, real / 1e3, share
            for (c in rate) if (c != "int8" && c != "rows") printf " %s = %.4f;", c, rate[c] / real
            print ""
        }' class.plan - >figures
    read -r int8 real shares <figures
    write_machine "$int8" "$real" "$shares"
}

# --- predicted and measured -----------------------------------------------------------------------

# Seconds of a step that the plan says for so many ranks.
predicted() { # ranks, deck, quipu arguments...
    local ranks=$1 deck=$2
    shift 2
    quipu --plan-for machine.cfg "$@" "$deck.cfg" 2>plan.log |
        awk -v n="$ranks" '/^strong/ { on = 1 } /^weak/ { on = 0 } on && $2 == n { print $4; exit }'
}

describe_machine
cat machine.cfg
make_model model n_layer=6,d_model=320,n_head=5,n_kv_head=5,d_ff=896,n_vocab=4096
cases=("1 model" "2 model" "4 model" "8 model" "1 model --set device.recompute=layer"
    "1 model --set data.seq_length=512 --set batch.global_sequences=4" "1 model-ppo" "2 model-ppo")
for ((i = 1; i <= repeat; i++)); do # in turns, so that what else the machine does meets all alike
    for case in "${cases[@]}"; do
        # shellcheck disable=SC2086  # ranks, deck, options
        printf '%s\t%s\n' "$case" "$(measure $case)"
    done
done >measured
for case in "${cases[@]}"; do
    # shellcheck disable=SC2086
    printf '%s\t%s\n' "$case" "$(predicted $case)"
done >predicted
awk -F'\t' 'NR == FNR { if (!($1 in best) || $2 < best[$1]) best[$1] = $2; if (!($1 in cpu) || $3 < cpu[$1]) cpu[$1] = $3; next }
            { what = $1; sub(/ /, " ranks, ", what); gsub(/--set /, "", what)
              printf "%s\t%.3f\t%.3f\t%.3f\t%+.0f%%\n", what, $2, cpu[$1], best[$1], 100 * ($2 / cpu[$1] - 1) }' measured predicted |
    table "Plan of a step and the step, $cores cores" "" "predicted, s" "measured, s of processor time per core" \
        "measured, s by the clock" "predicted / processor time"
