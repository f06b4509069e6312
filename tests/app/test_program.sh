#!/usr/bin/env bash
# The program's arguments; help, version and the deck's reference without MPI; quipu-plot.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/../train/e2e.sh"

run() {
    code=0
    "$@" >log 2>&1 || code=$?
}
exits() { # exits CODE TEXT COMMAND...
    local expected=$1 text=$2
    shift 2
    run "$@"
    check "$*: exit code $expected (got $code)" test "$code" -eq "$expected"
    check "$*: says \"$text\"" logged "$text"
}
exits 0 "usage: quipu" quipu --help
exits 0 "quipu 0." quipu --version
for tool in quipu-import quipu-prep quipu-merge quipu-inspect quipu-plot; do
    exits 0 "usage: $tool" "$tool" --help
    check "$tool --help tells the exit codes" logged "Exit codes:"
    exits 0 "$tool 0." "$tool" --version
    exits 2 "--nonsense: no such option" "$tool" --nonsense
    check "$tool: one line says so" test "$(wc -l <log)" -eq 1
    exits 2 "see " "$tool"
done
exits 0 "lora.r" quipu --deck-help lora
exits 0 "checkpoint.every_steps" quipu --deck-help
exits 0 "optim.lr" quipu --deck-markdown
exits 2 "nosuch" quipu --deck-help nosuch
exits 2 "did you mean --dry-run" quipu --dryrun
exits 2 "a deck is expected" quipu
exits 2 "one deck is expected" quipu a.cfg b.cfg
exits 2 "--set: path=value" quipu --set lora.r
exits 2 "--set: its value is missing" quipu deck.cfg --set
exits 2 "--set: path=value is expected, found lora.r" quipu --set=lora.r
exits 2 "--nonsense: no such option" quipu --nonsense=1 deck.cfg
exits 2 "--dry-run: it takes no value" quipu --dry-run=yes deck.cfg
exits 2 "absent.cfg" quipu absent.cfg

make_base base.h5
make_data data
make_deck
exits 0 "runs/run" quipu --run-folder deck.cfg
exits 0 "elsewhere/run" quipu --run-folder --set job.output=elsewhere deck.cfg
exits 0 "elsewhere/run" quipu --run-folder --set=job.output=elsewhere deck.cfg
exits 0 "elsewhere/run" quipu deck.cfg --set=job.output=elsewhere --run-folder
exits 0 "runs/run" quipu --run-folder --set="samples.prompts=one
two" deck.cfg
exits 0 "dry run: everything needed is there" quipu --dry-run deck.cfg
check "a dry run prints the memory plan" logged "workspace"
check "a dry run writes nothing" not test -e runs
exits 2 "micro_sequences" quipu --dry-run --set batch.micro_sequences=3 deck.cfg

# What the plan says of the backend's scratch holds, and is not far above.
within_plan() { # megabytes of the first "scratch" line (plan) and of the last (peak)
    awk '/scratch/ { n++; if (n == 1) plan = $4; else peak = $(NF - 2) }
         END { exit !(n == 2 && peak > 1.0 && peak <= plan && plan <= 2.5 * peak) }' log
}
make_base llm.h5 tiny --precision llm_int8
for base in base.h5 llm.h5; do
    run quipu --set log.level=stat --set optim.steps=2 --set data.seq_length=1024 --set job.name=plan \
        --set batch.micro_sequences=4 --set base.file=$base --set job.restart=never deck.cfg
    check "scratch of $base is as planned" within_plan
    rm -rf runs
done

# Progress and rows of a short run; curves if gnuplot is there.
exits 0 "done: 6 steps" quipu deck.cfg
check "a clean run has no warning" not logged "[warn"
check "quipu.log has the same lines" grep -q "done: 6 steps" runs/run/quipu.log
check "a row per step and one for the start" test "$(wc -l <runs/run/metrics.csv)" -eq 8
exits 2 "not a metrics.csv" quipu-plot deck.cfg -o curves.svg
exits 2 "must end in .svg or .png" quipu-plot runs/run/metrics.csv -o curves.jpg
exits 2 "no such option" quipu-plot runs/run/metrics.csv -x
if command -v gnuplot >/dev/null; then
    check "the run drew its curves" grep -q "</svg>" runs/run/curves.svg
    cp -r runs/run "runs/it's another"
    run quipu-plot runs/run/metrics.csv "runs/it's another/metrics.csv" -o curves.svg
    check "curves of two runs" test "$code" -eq 0
    check "both are named" test "$(grep -c "eval_loss" curves.svg)" -ge 2
fi
PATH=$QUIPU_BIN:$work/empty run /bin/bash -c 'quipu-plot runs/run/metrics.csv -o none.svg'
check "without gnuplot: exit code 2" test "$code" -eq 2
check "without gnuplot: says so" logged "gnuplot: cannot be started"
end_test
