#!/usr/bin/env bash
# Generation beside llama.cpp and transformers: SmolLM2-135M, 1 and 16 prompts of 128 tokens that
# have nothing in common, 128 new tokens each. See tests/bench/run. All count the time of prompts and
# answers, not of loading; the best of some runs counts. Quipu also draws from the whole
# distribution, as transformers does here; llama.cpp only takes the most probable token.
set -euo pipefail
# shellcheck source=tests/bench/common.sh
. "$(dirname "$0")/common.sh"
make_base
# EOS is not to end an answer early; without the key, the tokens that there are count.
longest=
if quipu --deck-help generate | grep -q min_new_tokens; then
    longest=" min_new_tokens = 128;"
fi

# Quipu's best of some runs -> lines "name, sequences, tokens/s".
generate_quipu() { # name
    local n i
    for n in 1 16; do
        python3 tests/bench/material.py prompts "$gguf" "$n" 128 >"$work/prompts-$n.jsonl"
        cat >"$work/generate.cfg" <<DECK
job      = { method = "generate"; name = "generate"; output = "$work/runs"; };
base     = { file = "$base"; };
prompts  = { input = "$work/prompts-$n.jsonl"; };
generate = { max_new_tokens = 128; do_sample = true;$longest };
DECK
        for ((i = 1; i <= repeat; i++)); do
            quipu --set "job.seed=$i" "$work/generate.cfg" 2>&1 </dev/null | tee "$work/generate.log" |
                sed -n 's/.* \([0-9]*\) tokens, .* s, \([0-9.]*\) tokens\/s: .*/\1\t\2/p'
        done >"$work/generated"
        [ -s "$work/generated" ] || quit "$(reason "$work/generate.log")"
        awk -F'\t' -v name="$1" -v n="$n" -v OFS='\t' \
            '$2 > best { best = $2; tokens = $1 }
             END { if (tokens < n * 128) name = name " (" tokens " of " n * 128 " tokens, then EOS)"
                   print name, n, best }' "$work/generated"
    done
}

generate_quipu "Quipu int8, before the peers" >"$work/peers"
run_peers tests/bench/peer_generate.py --repeat "$repeat"
generate_quipu "Quipu int8, after the peers" >>"$work/peers"

awk -F'\t' '
    BEGIN { n[1] = 1; n[2] = 16; bar["llama.cpp Q8_0", 1] = 1.5; bar["llama.cpp Q8_0", 16] = 4
            bar["transformers bfloat16", 16] = 6 }
    { key = $1; sub(/ \(.*/, "", key); if (!(key in order)) { order[key] = ++n_row; name[n_row] = key }
      speed[key, $2] = $3
      if ($1 != key) note[key] = note[key] substr($1, length(key) + 1)
      if (key ~ /^Quipu/ && (!($2 in slow) || $3 < slow[$2])) slow[$2] = $3 }
    END {
        for (i = 1; i <= n_row; i++) {
            line = name[i] note[name[i]]
            for (j = 1; j <= 2; j++) line = line "\t" speed[name[i], n[j]]
            for (j = 1; j <= 2; j++) {
                peer = name[i] !~ /^Quipu/ && speed[name[i], n[j]] > 0
                line = line "\t" (peer ? sprintf("%.2f", slow[n[j]] / speed[name[i], n[j]]) : "")
                if (peer && (name[i], n[j]) in bar) line = line " (bar: " bar[name[i], n[j]] ")"
            }
            print line
        }
    }' "$work/peers" |
    table "Generation, SmolLM2-135M, 128 + 128 tokens, tokens/s" "" "1 sequence" "16 sequences" \
        "Quipu / this, 1" "Quipu / this, 16"
