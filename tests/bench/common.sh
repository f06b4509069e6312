# Shared by the parts of tests/bench: what is measured with, and how figures become tables. Sourced
# with the build folder as $1.
# shellcheck shell=bash
build=$(realpath "${1:?usage: $0 BUILD_FOLDER}")
cd "$(dirname "$0")/../.." || exit
. tools/common.sh
PATH=$build/bin:$PATH
work=${QUIPU_WORK:-$build/bench}
mkdir -p "$work"
work=$(realpath "$work")
steps=${QUIPU_STEPS:-8}
export repeat=${QUIPU_REPEAT:-3}
gguf=$QUIPU_REAL/SmolLM2-135M-Instruct.Q4_1.gguf
base=$work/base.h5

quit() { # why the part cannot be measured
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# Why a program ended, from its log.
reason() { # log
    grep '^\[error' "$1" | tail -n 1 || tail -n 1 "$1"
}

# SmolLM2-135M in int8: $base, made by the program that is measured.
make_base() {
    [ -f "$gguf" ] || quit "no $gguf: tools/setup --real fetches it"
    [ "$base" -nt "$build/bin/quipu-import" ] || quipu-import "$gguf" "$base" 2>"$work/import.log"
}

# A random base of a shape; large, so that one of an earlier run is taken.
make_random_base() { # shape -> $random
    random=$work/random-$1.h5
    [ -f "$random" ] && return 0
    quipu-import --synthetic "$1" "$random" 2>"$work/import.log" ||
        quit "$(reason "$work/import.log") ($(df -h --output=avail "$work" | tail -n 1) free)"
}

# Rows that are full: texts of the Debian FAQ, joined and cut as TRL does it. Step count and sizes
# are those of the peers; parts change them by --set.
make_training() { # name, base -> $work/NAME.cfg
    local faq
    faq=$(debian_faq "$work")
    quipu-prep html "$faq"/*.en.html --base "$2" --out "$work/$1" --eval-fraction 0 \
        2>"$work/prep.log" || quit "$(reason "$work/prep.log")"
    cat >"$work/$1.cfg" <<DECK
job   = { method = "sft"; name = "$1"; restart = "never"; output = "$work/runs"; };
base  = { file = "$2"; };
lora  = { r = 16; alpha = 32.0; dropout = 0.05; targets = [ "q_proj", "v_proj" ]; };
data  = { train = [ "$work/$1-sft-train.h5" ]; seq_length = 1024; packing = "contaminated"; };
batch = { global_sequences = 4; micro_sequences = 4; };
optim = { lr = 1.0e-4; steps = $steps; };
eval  = { at_start = false; at_end = false; };
checkpoint = { every_steps = 0; };
DECK
}

on_ranks() { # ranks, command...
    local ranks=$1
    shift
    mpirun -n "$ranks" --oversubscribe --bind-to none "$@"
}

# Best value of a column of a run's metrics.csv.
best() { # run, column
    awk -F, -v want="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == want) c = i; next }
                          $c > v { v = $c } END { printf "%.1f", v }' "$work/runs/$1/metrics.csv"
}

# One run of SmolLM2's training: prints tokens/s of the best step and the peak in MB.
train_quipu() { # program
    rm -rf "$work/runs/train"
    /usr/bin/time -o "$work/peak" -f %M "$1" "$work/train.cfg" >"$work/train.log" 2>&1 </dev/null ||
        quit "$(reason "$work/train.log")"
    echo "$(best train tokens_per_second) $(awk '{ printf "%.0f", $1 * 1.024e-3 }' "$work/peak")"
}

# Adds the lines of a script of the peers to $work/peers; says which could not be measured.
run_peers() { # script, arguments...
    if [ ! -x "$QUIPU_PEERS/bin/python" ]; then
        echo "$(basename "$0"): no peers in $QUIPU_PEERS: tools/setup --peers makes them" >&2
        return 0
    fi
    "$QUIPU_PEERS/bin/python" "$@" >>"$work/peers" 2>"$work/peers.log" || tail -n 1 "$work/peers.log" >&2
    grep '^not measured' "$work/peers.log" >&2 || true
}

# A number from an expression of awk.
calc() { # expression [format]
    awk "BEGIN { printf \"${2:-%.2f}\", $1 }"
}

# Markdown from rows of cells that are separated by tabs.
table() { # title, header cells...
    local title=$1 cell
    shift
    printf '\n**%s**\n\n|' "$title"
    for cell in "$@"; do printf ' %s |' "$cell"; done
    printf '\n|'
    for cell in "$@"; do printf -- '---|'; done
    echo
    awk -F'\t' '{ line = "|"; for (i = 1; i <= NF; i++) line = line " " $i " |"; print line }'
    echo
}

# Training beside peers, lines "name, tokens/s, MB": Quipu's ratios take the slower and larger of its
# two runs.
training_table() { # title, "tokens/s MB" before, after the peers, bar of the speed
    awk -F'\t' -v before="$2" -v after="$3" -v bar="$4" '
        function row(name, speed, mb, faster, smaller) {
            printf "%s\t%.0f\t%.2f\t%s\t%s\n", name, speed, mb / 1000, faster, smaller
        }
        { name[NR] = $1; speed[NR] = $2; mb[NR] = $3; if ($2 > fastest) fastest = $2 }
        END {
            split(before, b, " "); split(after, a, " ")
            slow = a[1] < b[1] ? a[1] : b[1]; large = a[2] > b[2] ? a[2] : b[2]
            row("Quipu int8, before the peers", b[1], b[2])
            for (i = 1; i <= NR; i++)
                row(name[i], speed[i], mb[i],
                    sprintf("%.2f", slow / speed[i]) (speed[i] == fastest ? " (bar: " bar ")" : ""),
                    sprintf("%.2f", large / mb[i]) (name[i] == "PEFT bf16" ? " (bar: 0.33)" : ""))
            row("Quipu int8, after the peers", a[1], a[2])
        }' |
        table "$1" "" "tokens/s" "peak memory, GB" "Quipu's speed / this" "Quipu's memory / this"
}
