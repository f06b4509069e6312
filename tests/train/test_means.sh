#!/usr/bin/env bash
# QP_TEST: labels=slow
# A step's loss and gradient are means over all targets of the global batch, however it is cut into
# micro-batches of few or many targets, on one rank or two; perplexity is exp of the held-out loss.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5 tiny --precision fp32
make_data data
make_deck
settings=(--set device.compute=fp32 --set optim.steps=4 --set data.packing=none --set data.completion_only=true)
for micro in 1 2 8; do
    quipu_on 1 "micro$micro" "${settings[@]}" --set "batch.micro_sequences=$micro"
    check "micro-batches of $micro: ends well" test "$code" -eq 0
done
quipu_on 2 ranks "${settings[@]}" --set batch.micro_sequences=2
check "2 ranks: ends well" test "$code" -eq 0

# Columns of two runs, row by row: equal to rounding.
near() { # near RUN RUN COLUMN
    paste -d, "runs/$1/metrics.csv" "runs/$2/metrics.csv" | awk -F, -v name="$3" '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) column[++n] = i; next }
        $column[1] != "" { rows++; d = $column[1] / $column[2] - 1; if (d > 1e-4 || -d > 1e-4) bad = 1 }
        END { exit !(n == 2 && rows >= 2 && !bad) }'
}
for run in micro2 micro8 ranks; do
    for column in loss grad_norm eval_loss; do check "$run: the same $column" near micro1 $run $column; done
done
check "perplexity is exp of the loss" awk -F, '
    NR == 1 { for (i = 1; i <= NF; i++) { if ($i == "eval_loss") l = i; if ($i == "eval_perplexity") p = i } next }
    $l != "" { rows++; d = $p / exp($l) - 1; if (d > 1e-6 || -d > 1e-6) bad = 1 }
    END { exit !(l && p && rows >= 2 && !bad) }' runs/micro1/metrics.csv
end_test
