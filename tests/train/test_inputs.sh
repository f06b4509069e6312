#!/usr/bin/env bash
# QP_TEST: labels=slow
# What a run is made from is known by its contents: a continued run takes moved and renamed files, and
# refuses other ones by name; changed numbers of steps are said; what is no file is no obstacle.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/e2e.sh"

make_base base.h5
make_data data
make_deck
sed 's/malt/corn/' data.jsonl >other.jsonl
quipu-prep jsonl other.jsonl --base base.h5 --out other --eval-fraction 0.1 >/dev/null 2>&1
head -n 80 data.jsonl >half.jsonl
quipu-prep jsonl half.jsonl --base base.h5 --out half --eval-fraction 0 >/dev/null 2>&1

alone() { # alone NAME OPTIONS...: without a launcher
    code=0
    quipu --set "job.name=$1" "${@:2}" deck.cfg >log 2>&1 || code=$?
}

alone whole
alone part --set checkpoint.stop_after_steps=3
check "a part" test "$code" -eq 10

# refused NAME MESSAGE --set ...: as a dry run and as a run, before anything is loaded.
refused() {
    local name=$1 message=$2
    shift 2
    alone part --dry-run "$@"
    check "$name, a dry run: exit code 2 (got $code)" test "$code" -eq 2
    check "$name, a dry run: says \"$message\"" logged "$message"
    quipu_on 2 part "$@"
    check "$name: exit code 2 (got $code)" test "$code" -eq 2
    check "$name: says \"$message\"" logged "$message"
    check "$name: nothing is loaded" not logged "base loaded"
}
refused "other training data" 'data.train: other-sft-train.h5 (contents ' --set data.train=other-sft-train.h5
refused "other held-out data" 'data.eval: other-sft-eval.h5 (contents ' --set data.eval=other-sft-eval.h5
refused "another shard more" 'is not among the files that the run began with' \
    --set 'data.train=["data-sft-train.h5","half-sft-train.h5"]'
mkdir kept
mv data-sft-train.h5 kept/
cp other-sft-train.h5 data-sft-train.h5
refused "other data under the old name" 'data.train: data-sft-train.h5 (contents '
check "it says which it was" logged ', which was data-sft-train.h5 (contents '
rm data-sft-train.h5

# Moved and renamed; the same bits as one that was left alone.
mv kept/data-sft-train.h5 'kept/a new [name].h5'
mv data-sft-eval.h5 kept/
moved=(--set 'data.train=["kept/a new [name].h5"]' --set data.eval=kept/data-sft-eval.h5)
alone part --dry-run "${moved[@]}"
check "moved: a dry run says where it goes on" logged "checkpoints/step-000003.h5: 3 steps are done"
quipu_on 2 part "${moved[@]}"
check "moved: continues" logged "continuing after step 3"
check "moved: ends well" test "$code" -eq 0
check "moved: the same adapter" same_adapter part whole
check "moved: the same metrics" same_results part whole
mv 'kept/a new [name].h5' data-sft-train.h5
mv kept/data-sft-eval.h5 .

# Two shards whose names sort the other way: another order of the samples.
cp half-sft-train.h5 a.h5
cp data-sft-train.h5 b.h5
alone two --set 'data.train=["a.h5","b.h5"]' --set checkpoint.stop_after_steps=3
mv a.h5 c.h5
quipu_on 2 two --set 'data.train=["b.h5","c.h5"]'
check "renamed into another order: goes on" test "$code" -eq 0
mv c.h5 a.h5
alone two-whole --set 'data.train=["a.h5","b.h5"]'
check "renamed into another order: as if nothing had happened" same_adapter two two-whole

# A shard that is written into while the run reads it.
cp data-sft-train.h5 live.h5
mpirun --oversubscribe --bind-to none -n 2 quipu --set job.name=live --set data.train=live.h5 \
    --set optim.steps=100000 --set checkpoint.every_steps=1000000 deck.cfg >first 2>&1 &
run=$!
until [ -e runs/live/metrics.csv ] && grep -q '^3,' runs/live/metrics.csv; do kill -0 "$run" || break; done
touch live.h5
n=$(tail -n 1 runs/live/metrics.csv | cut -d, -f1)
until grep -q "^$((n + 20))," runs/live/metrics.csv; do kill -0 "$run" || break; done
check "a shard that is touched stays the same" kill -0 "$run"
cat other-sft-train.h5 >live.h5
code=0
wait "$run" || code=$?
cp first log
check "a shard that is written into: exit code 2 (got $code)" test "$code" -eq 2
check "a shard that is written into: named" logged "live.h5"

# Steps: more of them stretch the schedule; fewer than there are leave nothing to do.
cosine=(--set optim.schedule=cosine)
alone steps "${cosine[@]}"
alone steps "${cosine[@]}" --set optim.steps=12
check "more steps: said" logged "optim.steps was 6, is 12: the schedule stretches with it, so the learning rate of step 7 is"
check "more steps: made" test "$code" -eq 0
alone steps "${cosine[@]}" --set optim.steps=5
check "fewer steps: said" logged "optim.steps = 5 is less than the 12 steps of the checkpoint"
check "fewer steps: nothing is done" logged "all 12 steps are done already"
check "fewer steps: exit code 0" test "$code" -eq 0
alone steps "${cosine[@]}" --set optim.steps=5 --dry-run
check "fewer steps: a dry run says it too" logged "optim.steps = 5 is less than"
alone constant
alone constant --set optim.steps=8
check "a constant rate does not change: nothing is said" not logged "[warn"

# What is no checkpoint among checkpoints, and no file where one is named.
folder=runs/constant/checkpoints
mkfifo "$folder/step-000099.h5" "$folder/step-000010.h5.part"
mkdir "$folder/step-000010.h5" "$folder/step-000098.h5"
ln -s nowhere "$folder/step-000097.h5"
echo text >"$folder/step-000096.h5"
touch "$folder/notes.txt"
quipu_on 2 constant --set optim.steps=10
check "foreign things among checkpoints: goes on" test "$code" -eq 0
for n in 96 97 98 99; do
    check "step-0000$n.h5 is passed over in a line" test "$(grep -c "checkpoint passed over: .*step-0000$n.h5" log)" -eq 1
done
check "the checkpoint of step 10 is written" test -f "$folder/step-000010.h5"
check "what stood under its name is kept" compgen -G "$folder/step-000010.h5.aside*" >/dev/null
mkfifo pipe
mkdir folder
logged_both() { grep -F -- "$1" log | grep -qF -- "$2"; }
for key in base.file data.train data.eval lora.init; do
    alone wrong --dry-run --set $key=pipe
    check "$key names a pipe: exit code 2 (got $code)" test "$code" -eq 2
    check "$key names a pipe: says so" logged_both "$key: pipe: " "a pipe"
    alone wrong --dry-run --set $key=folder
    check "$key names a folder: exit code 2 (got $code)" test "$code" -eq 2
    check "$key names a folder: says so" logged_both "$key: folder: " " folder"
    alone wrong --dry-run --set "$key=\"a\\nb\""
    check "$key holds a newline: named" logged 'the name "a\nb" holds a control character'
done
alone wrong --dry-run --set lora.init=deck.cfg
check "lora.init names a file: says so" logged "lora.init: deck.cfg: is a file, expected a folder"

# Where a run writes: what is in the way is said before the work, in a dry run too.
ln -s nowhere broken
in_the_way() { # in_the_way MESSAGE EXIT-CODE KEY=VALUE
    for dry in --dry-run ""; do
        alone wrong ${dry:+"$dry"} --set "$3"
        check "$3 $dry: exit code $2 (got $code)" test "$code" -eq "$2"
        check "$3 $dry: says \"$1\"" logged "$1"
    done
}
in_the_way "job.output: broken: is a link to nowhere" 2 job.output=broken
in_the_way "job.output: broken: is a link to nowhere" 2 job.output=broken/far/away/
in_the_way "job.output: deck.cfg: exists already and is not a folder, but a file" 2 job.output=deck.cfg
in_the_way "job.output: /proc/quipu/wrong: cannot be made in /proc: " 3 job.output=/proc/quipu
ln -s nowhere runs/linked
in_the_way "job.output: runs/linked: is a link to nowhere" 2 job.name=linked
for name in quipu.log used.cfg metrics.csv samples.jsonl curves.svg; do
    mkdir -p "runs/under-$name/$name"
    in_the_way "runs/under-$name/$name: exists already and is not a file, but a folder" 2 "job.name=under-$name"
done
for name in checkpoints adapter; do
    mkdir -p "runs/under-$name"
    : >"runs/under-$name/$name"
    in_the_way "runs/under-$name/$name: exists already and is not a folder, but a file" 2 "job.name=under-$name"
done
check "nothing was made" not test -e nowhere
check "nothing is left behind" not compgen -G 'runs/*/.quipu-*'
alone fresh --dry-run --set job.output=new/and/deep
check "folders that are to be made are no hindrance" test "$code" -eq 0
check "a dry run makes none" not test -e new

for tool in "quipu-inspect" "quipu-import --out x.h5" "quipu-merge base.h5 lora" "quipu"; do
    for argument in pipe folder $'a\nb'; do
        code=0
        # shellcheck disable=SC2086 # its options
        timeout 60 $tool "$argument" >log 2>&1 || code=$?
        check "$tool '$argument': refused (got $code)" test "$code" -eq 2
    done
done
end_test
