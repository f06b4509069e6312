#!/usr/bin/env bash
# How fast a base is read at the start, beside dd reading the same file. Before each reading the
# system is told to drop the file's pages; the bytes that then come from storage show whether it did,
# and that no rank reads what another one has read. See tests/bench/run.
set -euo pipefail
# shellcheck source=tests/bench/common.sh
. "$(dirname "$0")/common.sh"
make_random_base "${QUIPU_SHAPE:-7b}"
megabytes=$(stat -c %s "$random" | awk '{ print $1 / 1e6 }')
echo '{"prompt": "a"}' >"$work/one.jsonl"
cat >"$work/startup.cfg" <<DECK
job      = { method = "generate"; name = "startup"; output = "$work/runs"; };
base     = { file = "$random"; };
prompts  = { input = "$work/one.jsonl"; };
generate = { max_new_tokens = 1; };
DECK

forget() {
    python3 -c 'import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
os.fsync(file)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)' "$random"
}

read_with_dd() { # name, dd arguments...
    forget
    local name=$1 seconds
    shift
    seconds=$(LC_ALL=C dd if="$random" of=/dev/null bs=16M "$@" 2>&1 | sed -n 's/.*, \([0-9.e-]*\) s, .*/\1/p')
    printf '%s\t%s\t\n' "$name" "$(calc "$megabytes / 1000 / $seconds")"
}

read_with_quipu() { # ranks
    forget
    python3 tests/bench/watch.py "$work/startup.log" mpirun -n "$1" --oversubscribe --bind-to none \
        quipu "$work/startup.cfg" >"$work/peak" || quit "$(reason "$work/startup.log")"
    local seconds
    seconds=$(sed -n 's/.*base loaded in \([0-9.]*\) s.*/\1/p' "$work/startup.log")
    printf 'quipu, ranks: %s\t%s\t%s\n' "$1" "$(calc "$megabytes / 1000 / $seconds")" \
        "$(calc "$(cut -f 3 "$work/peak") / $megabytes")"
}

for ((i = 1; i <= repeat; i++)); do
    read_with_dd "dd bs=16M"
    read_with_quipu 1
    read_with_dd "dd bs=16M iflag=direct" iflag=direct
    read_with_quipu 2
done >"$work/rows"
# The best of each; the faster dd is what the file system can do.
awk -F'\t' '
    { if (!($1 in best)) name[++n] = $1; if ($2 > best[$1]) { best[$1] = $2; share[$1] = $3 }
      if ($1 ~ /^dd/ && $2 > fastest) fastest = $2 }
    END { for (i = 1; i <= n; i++)
              printf "%s\t%s\t%s\t%s\n", name[i], best[name[i]],
                     name[i] ~ /^dd/ ? "" : sprintf("%.2f (bar: 0.80)", best[name[i]] / fastest),
                     share[name[i]] }' "$work/rows" |
    table "Start, $(calc "$megabytes / 1000" %.1f) GB, cold" "" "GB/s" "share of the faster dd" \
        "read from storage / size of the file"
