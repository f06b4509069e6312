#!/usr/bin/env bash
# QP_TEST: labels=slow
# Every precision, packing, target and schedule trains: no error, no warning, a lower held-out loss.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5
for precision in llm_int8 bf16 fp32; do make_base $precision.h5 tiny --precision $precision; done
make_data data
make_deck

falls() { # the last eval_loss of a run is well below its first
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "eval_loss") c = i; next }
             $c != "" { last = $c; if (first == "") first = last }
             END { exit !(last < first - 0.1) }' "runs/$1/metrics.csv"
}
number=0
trains() { # trains --set ...
    number=$((number + 1))
    quipu_on 1 "mode$number" --set optim.steps=8 --set optim.lr=0.02 --set checkpoint.every_steps=0 "$@"
    check "$*: ends well" test "$code" -eq 0
    check "$*: no warning" not logged "[warn"
    check "$*: the loss falls" falls "mode$number"
}
trains --set base.activation=bf16
trains --set base.gradient=bf16
trains --set device.compute=fp32
trains --set device.recompute=layer
for precision in llm_int8 bf16 fp32; do
    trains --set base.file=$precision.h5
    trains --set base.file=$precision.h5 --set device.compute=fp32
done
trains --set base.file=llm_int8.h5 --set base.activation=bf16
trains --set base.file=llm_int8.h5 --set base.outlier_threshold=0.5
for packing in isolated contaminated none; do
    trains --set data.packing=$packing
    trains --set data.packing=$packing --set data.completion_only=true
done
trains --set data.overlong=drop --set data.packing=none --set data.seq_length=110
for what in train eval; do
    check "what is left out of data.$what is logged" test \
        "$(grep -cE "data.$what: data.overlong = \"drop\" leaves out [1-9][0-9]* of [0-9]+ samples" log)" -eq 1
done
trains --set lora.use_rslora=true
trains --set lora.dropout=0.5
trains --set 'lora.targets=[ "q_proj", "v_proj" ]'
trains --set lora.targets=down_proj
for schedule in linear cosine; do trains --set optim.schedule=$schedule; done
end_test
