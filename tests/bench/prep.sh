#!/usr/bin/env bash
# quipu-prep on one rank and on two: a Stack Exchange dump ($QUIPU_DUMP), or 60 MB of text made of
# the FAQ's sentences. Rates are of the uncompressed source. See tests/bench/run.
set -euo pipefail
# shellcheck source=tests/bench/common.sh
. "$(dirname "$0")/common.sh"
make_base
if [ -n "${QUIPU_DUMP:-}" ]; then
    kind=stackexchange
    source=$QUIPU_DUMP
    what=$(basename "$source")
else
    kind=jsonl
    source=$work/texts.jsonl
    what="generated JSON lines"
    [ -f "$source" ] || python3 tests/bench/material.py texts "$(debian_faq "$work")" 60 >"$source"
fi
case "$source" in *.gz) bytes=$(zcat "$source" | wc -c) ;; *) bytes=$(stat -Lc %s "$source") ;; esac

for ((i = 1; i <= repeat; i++)); do
    for ranks in 1 2; do
        begin=$(date +%s.%N)
        on_ranks "$ranks" quipu-prep "$kind" "$source" --base "$base" --out "$work/prepared" \
            >"$work/prep.log" 2>&1 </dev/null || quit "$(reason "$work/prep.log")"
        printf '%s\t%s\n' "$ranks" "$(calc "$bytes / 1e6 / ($(date +%s.%N) - $begin)")"
        rm -f "$work"/prepared-*
    done
done >"$work/rows"
awk -F'\t' '{ if ($2 > best[$1]) best[$1] = $2 }
            END { printf "1 rank\t%s\t\n2 ranks\t%s\t%.2f\n", best[1], best[2], best[2] / best[1] }' "$work/rows" |
    table "quipu-prep, $what, $(calc "$bytes / 1e6" %.1f) MB" "" "MB/s" "times one rank"
