# Support of the end-to-end tests of reward, dpo and ppo: pairs, prompts and a deck of each method.
# Sourced by tests/train/test_*.sh.
# shellcheck shell=bash
# shellcheck source=tests/train/e2e.sh
. "$(dirname "${BASH_SOURCE[0]}")/e2e.sh"

# As that of e2e.sh, but code is that of every rank, or all of them if they differ. (It is faster, too:
# mpirun takes a second or two to end a job that has failed.)
quipu_on() {
    local ranks=$1 name=$2
    shift 2
    rm -f code.*
    # shellcheck disable=SC2016
    mpirun --oversubscribe --bind-to none -n "$ranks" sh -c \
        'code=0; quipu "$@" || code=$?; echo $code >code.$OMPI_COMM_WORLD_RANK' sh \
        --set "job.name=$name" "$@" "${deck:-deck.cfg}" >log 2>&1 || echo "$?" >code.mpirun
    code=$(sort -nu code.* | paste -sd '')
}

# make_pairs PREFIX: pairs of answers, of which the chosen one is the longer, and prompts alone.
make_pairs() {
    texts 54321 96 2 5 | awk -F'\t' -v name="$1" '{
        prompt = "{\"prompt\": \"Question: " $1 "?\\n\\nAnswer: \""
        printf "%s, \"chosen\": \"%s is %s\", \"rejected\": \"%s\"}\n", prompt, $1, $2, $3 >(name "-pairs.jsonl")
        print prompt "}" >(name "-prompts.jsonl")
    }'
    quipu-prep jsonl "$1-pairs.jsonl" --base base.h5 --out "$1" --eval-fraction 0.1 >/dev/null 2>&1
    quipu-prep jsonl "$1-prompts.jsonl" --base base.h5 --out "$1" --eval-fraction 0.1 >/dev/null 2>&1
}

# make_decks: reward.cfg, dpo.cfg and ppo.cfg; PPO takes the reward adapter of the run "reward".
make_decks() {
    local method
    for method in reward dpo ppo; do
        cat >$method.cfg <<DECK
job   = { method = "$method"; name = "$method"; seed = 3; };
base  = { file = "base.h5"; };
lora  = { r = 4; alpha = 8.0; dropout = 0.1; targets = "all-linear"; };
batch = { global_sequences = 8; micro_sequences = 1; };
optim = { lr = 0.01; schedule = "constant"; steps = 3; };
checkpoint = { every_steps = 1; keep = 9; };
device = { threads = 1; };
log   = { every_steps = 1; };
DECK
    done
    tee -a reward.cfg >>dpo.cfg <<'DECK'
data  = { train = "data-reward-train.h5"; eval = "data-reward-eval.h5"; seq_length = 96; };
DECK
    cat >>ppo.cfg <<'DECK'
data  = { train = "data-prompt-train.h5"; seq_length = 96; };
generate = { max_new_tokens = 12; };
reward_model = { adapter = "runs/reward/adapter"; };
ppo = { mini_batch_sequences = 4; ppo_epochs = 2; };
DECK
}

# column NAME RUN: that column of its metrics.csv, one value per step.
column() {
    awk -F, -v name="$1" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i; next }
        $1 > 0 && c { print $c }' "runs/$2/metrics.csv"
}

same_run() { # same_run RUN RUN: all that it leaves behind
    same_adapter "$1" "$2" && same_results "$1" "$2" &&
        same_file "$1" "$2" adapter/value_head.safetensors && same_file "$1" "$2" samples.jsonl
}
same_file() { [ ! -e "runs/$1/$3" ] && [ ! -e "runs/$2/$3" ] || cmp -s "runs/$1/$3" "runs/$2/$3"; }
