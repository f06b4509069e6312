#!/usr/bin/env bash
# tools/quickstart --rlhf with three seeds, one after another, and what came out as the table of
# doc/results/README.md.
#   tests/real/quickstart_seeds.sh FOLDER [Posts.xml[.gz]]
# FOLDER keeps what the runs make and what each said (seed-N.txt); runs that are done are not done
# again. The seconds are those of a first run, without the build.
set -euo pipefail
folder=$(realpath -m "$1")
dump=${2:+$(realpath "$2")}
cd "$(dirname "$0")/../.."
mkdir -p "$folder"
name=${dump:+dump}
name=${name:-faq}

# A number behind a word of what a run said, from the last line that begins with the first words.
said() { # seed, beginning of the line, sed's pattern with one group
    sed -n "s/^ *$2.*$3.*/\1/p" "$folder/seed-$1.txt" | tail -n 1
}

number='\(-\{0,1\}[0-9][0-9.]*\)'
echo '| seed | pairs ranked right: drawn, stubs, silence | reward before | after | change, 95% | KL | largest | tokens | ended by themselves | repetition | empty answers shown | seconds |'
echo '|---|---|---|---|---|---|---|---|---|---|---|---|'
for seed in 1 2 3; do
    [ -f "$folder/seed-$seed.txt" ] || {
        QUIPU_QUICKSTART=$folder tools/quickstart --rlhf --seed "$seed" ${dump:+"$dump"} \
            >"$folder/said"
        mv "$folder/said" "$folder/seed-$seed.txt"
    }
    largest=$(awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "objective/kl") c = i; next }
        $c > most { most = $c } END { printf "%.2f", most }' "$folder/runs/$name-$seed-ppo/metrics.csv")
    printf '| %s | %s%%, %s%%, %s%% | %s | %s | %s | %s | %s | %s -> %s | %s%% -> %s%% | %s -> %s | %s | %s |\n' "$seed" \
        "$(said $seed 'reward model: ' "says in $number%")" \
        "$(said $seed 'reward model: ' "words in $number%")" \
        "$(said $seed 'reward model: ' "silence in $number%")" \
        "$(said $seed before: "reward $number +-")" "$(said $seed after: "reward $number +-")" \
        "$(said $seed change: '\([-+][0-9.]* (95%: [^)]*)\)')" \
        "$(said $seed 'PPO: KL' "-> $number")" "$largest" \
        "$(said $seed before: "; $number tokens")" "$(said $seed after: "; $number tokens")" \
        "$(said $seed before: "tokens, $number% ended")" "$(said $seed after: "tokens, $number% ended")" \
        "$(said $seed before: "repetition $number")" "$(said $seed after: "repetition $number")" \
        "$(grep -cE '^  (before|after) +\([-0-9.]+\) *$' "$folder/seed-$seed.txt" || true)" \
        "$(said $seed 'steps 3 to 10' ": $number seconds")"
done
