#!/usr/bin/env bash
# QP_TEST:
# quipu --plan-for: tables to 1,024 ranks for 7B, 13B and 65B whose weights are nowhere, for every
# method that trains; what does not fit, what is not modelled and wrong machines end with exit code 2.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5
make_data data
make_deck
cat >machine.cfg <<'MACHINE'
machine   = { name = "sixteen"; nodes = 128; };
node      = { processors = 8; memory = 512.0; link = 20.0; };
processor = { kind = "cpu"; cores = 8; int8 = 8.0; bf16 = 4.0; fp32 = 2.0; bandwidth = 60.0; };
network   = { latency = 2.0; bandwidth = 25.0; };
storage   = { read = 2.0; write = 1.0; read_all = 40.0; };
MACHINE

# plan NAME=VALUE...: of deck.cfg on machine.cfg; tables in tables, messages in log, exit code in code.
plan() {
    local set sets=()
    for set; do sets+=(--set "$set"); done
    code=0
    quipu --plan-for machine.cfg "${sets[@]}" "${deck:-deck.cfg}" >tables 2>log || code=$?
}
# column TABLE NAME: a column of the strong or the weak table, whose rows begin with nodes and ranks.
column() {
    awk -v table="$1" -v want="$2" '
        BEGIN { n = split("nodes ranks rows step waiting tokens efficiency start s hours nodehours memory", name, " ")
                for (i = 1; i <= n; i++) at[name[i]] = i }
        / scaling:/ { on = $1 == table } on && /^[ *] *[0-9]/ { sub(/^[ *] */, ""); print $at[want] }' tables
}
# holds TABLE NAME CONDITION: of each value x and the one before it (was).
holds() { column "$1" "$2" | awk "{ sub(/%/, \"\"); x = \$1 + 0 } NR > 1 && !($3) { bad = 1 } { was = x } END { exit bad || NR < 2 }"; }
# ranks TABLE: all of them on a line.
ranks() { column "$1" ranks | xargs; }

for shape in 7b 13b 65b; do make_base "$shape.h5" "$shape" --no-weights; done
awk 'BEGIN { for (i = 0; i < 2048; i++) printf "{\"prompt\": \"Question %d?\", \"completion\": \" It is %d.\"}\n", i, 7 * i }' >many.jsonl
quipu-prep jsonl many.jsonl --base base.h5 --out many --eval-fraction 0 >/dev/null 2>&1
wide=(data.train=many-sft-train.h5 data.packing=none batch.global_sequences=1024 data.eval=many-sft-train.h5)
for shape in 7b 13b 65b; do
    plan "base.file=$shape.h5" "${wide[@]}"
    check "$shape: exit code 0 (got $code)" test "$code" -eq 0
    check "$shape: no line is longer than 100 columns" test "$(awk '{ if (length > n) n = length } END { print n }' tables)" -le 100
    for table in strong weak; do
        check "$shape, $table: 1 to 1,024 ranks" test "$(ranks $table)" = "1 2 4 8 16 32 64 128 256 512 1024"
        check "$shape, $table: efficiency never above 1, and never rises" holds $table efficiency 'x <= 1 && x <= was'
        check "$shape, $table: more ranks, more tokens/s" holds $table tokens 'x > was'
        check "$shape, $table: and more waiting" holds $table waiting 'x >= was'
        [ $table = strong ] || continue
        check "$shape: steps get shorter" holds strong step 'x < was'
        column strong tokens | head -n 1 >"$shape.speed"
    done
done
check "larger models are slower" test "$(cat 7b.speed 13b.speed 65b.speed)" = "$(sort -rn 7b.speed 13b.speed 65b.speed)"
check "weak scaling: 16 rows a rank, 16,384 in all" test "$(column weak rows | tail -n 1)" = 16384
check "nothing was written" test ! -e runs

# The machine's values on the command line: fewer nodes, fewer ranks; cores that ranks share.
plan base.file=7b.h5 "${wide[@]}" machine.nodes=2
check "2 nodes have 16 ranks" test "$(ranks strong)" = "1 2 4 8 16"
check "which is said" grep -q 'ends here: sixteen has 16 ranks' tables
plan base.file=7b.h5 "${wide[@]}" machine.nodes=1 node.processors=2 node.ranks=8
check "8 ranks on 2 processors are no faster than 2" test "$(column strong tokens | sed -n 2p)" -ge "$(column strong tokens | sed -n 4p)"
plan base.file=7b.h5 "${wide[@]}" batch.global_sequences=8
check "no more ranks than micro-batches" test "$(ranks strong)" = "1 2 4 8"

# Memory is what a dry run plans on as many ranks.
same=(base.file=7b.h5 "${wide[@]}" device.compute=fp32 device.recompute=none)
plan "${same[@]}" machine.nodes=1 node.ranks=2
column strong memory >planned
mapfile -t sets < <(printf -- '--set\n%s\n' "${same[@]}")
for n in 1 2; do
    mpirun --oversubscribe --bind-to none -n $n quipu --dry-run "${sets[@]}" deck.cfg >log 2>&1 || true
    sed -n 's/.* together *\([0-9.]*\) MB per node.*/\1/p' log
done >dry
check "a dry run's memory: $(paste planned dry | xargs)" \
    awk 'NR == FNR { gb[NR] = $1; next } { off = gb[FNR] * 1000 / $1; if (off < 0.99 || off > 1.01) bad = 1 }
         END { exit bad || FNR != 2 || gb[2] < 1.1 * gb[1] }' planned dry

# What does not fit.
plan base.file=65b.h5 "${wide[@]}" node.memory=40
check "65B in 40 GB: exit code 2 (got $code)" test "$code" -eq 2
check "65B in 40 GB: says so" logged 'MB on a node, but only 40000.0 MB are available'
check "65B in 40 GB: and still shows the tables" grep -q '^\* .*' tables

# The other methods.
sed 's/.*/&/; s/"completion": \(.*\)}/"chosen": \1, "rejected": " No."}/' many.jsonl >pairs.jsonl
quipu-prep jsonl pairs.jsonl --base base.h5 --out pairs --eval-fraction 0 >/dev/null 2>&1
pairs=(data.train=pairs-reward-train.h5 data.eval=pairs-reward-train.h5 batch.global_sequences=64 base.file=7b.h5)
for method in reward dpo; do
    plan job.method=$method "${pairs[@]}"
    check "$method: exit code 0 (got $code)" test "$code" -eq 0
    column strong step | head -n 1 >$method.step
done
check "DPO also looks at the reference and at the vocabulary" \
    awk 'NR == 1 { reward = $1 } END { exit !($1 > 1.2 * reward) }' reward.step dpo.step
sed 's/, "completion".*/}/' many.jsonl >queries.jsonl
quipu-prep jsonl queries.jsonl --base base.h5 --out queries --eval-fraction 0 >/dev/null 2>&1
cat >ppo.cfg <<'DECK'
job   = { method = "ppo"; name = "ppo"; };
base  = { file = "7b.h5"; };
lora  = { r = 16; targets = [ "q_proj", "v_proj" ]; };
data  = { train = [ "queries-prompt-train.h5" ]; seq_length = 64; };
batch = { global_sequences = 128; micro_sequences = 1; };
optim = { steps = 10; };
ppo   = { mini_batch_sequences = 32; stop_at_eos = false; };
generate     = { max_new_tokens = 32; };
reward_model = { command = [ "cat" ]; };
DECK
deck=ppo.cfg plan
check "ppo: exit code 0 (got $code)" test "$code" -eq 0
check "ppo: to as many ranks as an update has micro-batches" test "$(ranks strong)" = "1 2 4 8 16 32"
check "ppo: answers and updates are in it" grep -q 'answers  32.0 tokens to queries of .*; 16 updates of 32 micro-batches' tables
check "ppo: the program's time is not" grep -q '^are longer than the mean, reward_model.command' tables
check "ppo: efficiency never above 1" holds strong efficiency 'x <= 1'

# refused NAME MESSAGE NAME=VALUE...
refused() {
    local name=$1 message=$2
    shift 2
    plan base.file=7b.h5 "${wide[@]}" "$@"
    check "$name: exit code 2 (got $code)" test "$code" -eq 2
    check "$name: says \"$message\"" logged "$message"
}
refused "too few rows" 'fewer than batch.global_sequences = 4096' batch.global_sequences=4096
refused "an unknown key" 'node.cores' node.cores=8
refused "a negative number" 'node.memory' node.memory=-1
refused "a wrong type" 'processor.int8' 'processor.int8="much"'
refused "another backend" 'device.backend: the processors of sixteen are of kind "cpu"' 'device.backend="check"'
sed -i 's/memory = 512.0;//' machine.cfg
refused "a missing key" 'machine.cfg: node.memory: required key is missing'
sed -i 's/link = 20.0;/memory = -3.0;/' machine.cfg
refused "the line of a wrong value" 'machine.cfg:2: node.memory'
check "help names what a machine may hold" grep -q 'storage.read_all' <(quipu --machine-help)

# Methods that are not modelled, by name.
printf '{"prompt": "a"}\n' >prompts.jsonl
cp "$QUIPU_SOURCE/input/machines/two-sockets.cfg" machine.cfg
printf 'job = { method = "generate"; name = "g"; };\nbase = { file = "7b.h5"; };\nprompts = { input = "prompts.jsonl"; };\n' >generate.cfg
deck=generate.cfg plan
check "generate: exit code 2 (got $code)" test "$code" -eq 2
check "generate: is named" logged 'job.method = "generate" is not modelled'

# The machines that come with the program; GPUs where it knows them.
for file in "$QUIPU_SOURCE"/input/machines/*.cfg; do
    cp "$file" machine.cfg
    plan base.file=7b.h5 "${wide[@]}"
    if [ "$code" -eq 2 ] && logged 'was built without it'; then continue; fi
    check "$(basename "$file"): exit code 0 (got $code)" test "$code" -eq 0
done
end_test
