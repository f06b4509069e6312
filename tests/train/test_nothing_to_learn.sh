#!/usr/bin/env bash
# QP_TEST: labels=slow
# Data that teach nothing: a set without any target is refused in the dry run, single samples are counted,
# a step without targets is left out, and no 0/0 becomes a number in a file.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5
make_data data
make_deck
only=(--set data.completion_only=true --set data.packing=none)

prepare() { # prepare NAME OPTIONS...: rows of stdin
    cat >"$1.jsonl"
    quipu-prep jsonl "$1.jsonl" --base base.h5 --out "$1" --eval-fraction 0 "${@:2}" >prep.log 2>&1
}
# In the completion loss only the prompt's end would tell; cut at 16 tokens nothing of a completion is left.
for i in $(seq 1 40); do
    echo "{\"prompt\": \"$i: a question that is longer than sixteen tokens\", \"completion\": \" yes $i\"}"
done | prepare long
short='{"prompt": "ab", "completion": "cdef"}'
for i in $(seq 1 20); do echo "$short"; done | prepare short

# Cut, every row of the long ones ends before its completion: step after step has nothing to learn.
cut=(--set data.train=long-sft-train.h5 --set data.eval=long-sft-train.h5 --set data.seq_length=16 "${only[@]}")
quipu_on 2 cut "${cut[@]}" --set optim.steps=4
check "cut away: ends well (got $code)" test "$code" -eq 0
check "cut away: each step says so" test "$(grep -c 'has nothing to learn: none of its' log)" -eq 4
check "cut away: no number of nothing in metrics.csv" not grep -qiE 'nan|inf' runs/cut/metrics.csv
check "cut away: the steps are counted as skipped" grep -q '^4,.*,4,' runs/cut/metrics.csv
quipu_on 1 cut-long "${cut[@]}" --set optim.steps=40
check "cut away: ten in a row end the run (got $code)" test "$code" -eq 2
check "cut away: it says why" logged "10 steps in a row had nothing to learn"
check "cut away: the log has no number either" not grep -qi "nan" log

cat >eval.cfg <<'DECK'
job  = { method = "eval"; name = "eval"; };
base = { file = "base.h5"; };
data = { eval = [ "long-sft-train.h5" ]; seq_length = 16; packing = "none"; completion_only = true; };
DECK
deck=eval.cfg quipu_on 2 eval
check "an evaluation of nothing ends well" test "$code" -eq 0
check "an evaluation of nothing is null" grep -q '"eval_loss": null, "eval_perplexity": null, "n_target": 0' runs/eval/eval.json

# A step with some targets is a step; the others take part in nothing.
quipu_on 1 mixed --set 'data.train=["long-sft-train.h5","short-sft-train.h5"]' --set data.seq_length=16 "${only[@]}"
check "mixed: ends well" test "$code" -eq 0
check "mixed: finite losses" not grep -qiE 'nan|inf' runs/mixed/metrics.csv
end_test
