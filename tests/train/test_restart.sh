#!/usr/bin/env bash
# QP_TEST: labels=slow check=0,1,2
# A step is a function of the deck and its number: n steps + restart + the rest give the bits of the
# whole, on any of 1, 2, 4 ranks, in int8 with bf16 products and in fp32; 3 ranks agree to rounding.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5
make_base fp32.h5 tiny --precision fp32
make_data data
make_deck

samples=(--set 'samples.prompts=[ "Question: hop?" ]' --set samples.every_steps=1 --set samples.max_new_tokens=4)
quipu_on 1 one "${samples[@]}"
check "a run on 1 rank ends well" test "$code" -eq 0
check "it writes an adapter" test -s runs/one/adapter/adapter_model.safetensors
check "it writes used.cfg" test -s runs/one/used.cfg

for ranks in 2 4; do
    quipu_on "$ranks" "on$ranks"
    check "a run on $ranks ranks ends well" test "$code" -eq 0
    check "1 and $ranks ranks: same adapter bits" same_adapter one "on$ranks"
    check "1 and $ranks ranks: same metrics" same_results one "on$ranks"
done

# 3 steps on 2 ranks, 1 step on 4 ranks, the rest on 1 rank; checkpoints at steps that are not due.
quipu_on 2 parts --set checkpoint.stop_after_steps=3 "${samples[@]}"
check "stopped after 3 steps: exit code 10" test "$code" -eq 10
check "stopped after 3 steps: says so" logged "stopped after step 3 of 6"
quipu_on 4 parts --set checkpoint.stop_after_steps=1 "${samples[@]}"
check "continued from step 3" logged "continuing after step 3"
quipu_on 1 parts "${samples[@]}"
check "continued to the end" test "$code" -eq 0
check "parts and whole: same adapter bits" same_adapter one parts
check "parts and whole: same metrics" same_results one parts
check "parts and whole: same samples" cmp -s runs/one/samples.jsonl runs/parts/samples.jsonl
check "used.cfg is a deck with the same hash" quipu --dry-run runs/parts/used.cfg 2>/dev/null
deck=runs/parts/used.cfg quipu_on 1 parts
check "a finished run has nothing to do" logged "all 6 steps are done already"
check "a finished run stays finished" same_adapter one parts

# Rows that a crash left behind the newest checkpoint are cut.
cp -r runs/parts runs/crashed
rm runs/crashed/checkpoints/step-000006.h5
quipu_on 2 crashed "${samples[@]}"
check "after a crash: same samples" cmp -s runs/one/samples.jsonl runs/crashed/samples.jsonl
check "after a crash: continued from an older checkpoint" logged "continuing after step 4"
check "after a crash: same metrics" same_results one crashed
check "after a crash: same adapter bits" same_adapter one crashed

fp32=(--set base.file=fp32.h5 --set device.compute=fp32 --set optim.steps=20)
for ranks in 1 2 3; do
    quipu_on "$ranks" "fp32-$ranks" "${fp32[@]}"
    check "fp32 on $ranks ranks ends well" test "$code" -eq 0
done
check "fp32: 1 and 2 ranks: same adapter bits" same_adapter fp32-1 fp32-2
close() { # relative difference of the loss at every step
    paste -d, "runs/$1/metrics.csv" "runs/$2/metrics.csv" | awk -F, -v limit="$3" '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == "loss") column[++n] = i; next }
        $column[1] != "" { rows++; d = $column[1] / $column[2] - 1; if (d > limit || -d > limit) bad = 1 }
        END { exit bad || n != 2 || rows != 20 }'
}
check "fp32: 1 and 3 ranks agree to 1e-5" close fp32-1 fp32-3 1e-5
for ranks in 1 3; do
    quipu_on "$ranks" "int8-$ranks" --set optim.steps=20
done
check "int8: 1 and 3 ranks agree to 1e-2" close int8-1 int8-3 1e-2
end_test
