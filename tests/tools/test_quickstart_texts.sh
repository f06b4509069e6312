#!/usr/bin/env bash
# QP_TEST:
# The texts of tools/quickstart --rlhf: which questions are held out, what an answer is cut to, what
# the reward model's worse sides are, and what is shown at the end.
set -euo pipefail
. "${QUIPU_SOURCE:?}/tools/quickstart_texts.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failures=0
check() { # NAME COMMAND...
    if ! "${@:2}"; then
        echo "failed: $1"
        failures=$((failures + 1))
    fi
}
same() { diff -u "$1" - >&2; }

# Eight questions; the third again, with another answer; one that is too long.
long=$(printf 'why %.0s' {1..60})
{
    for i in 1 2 3 4 5 6 7 8; do
        printf '{"prompt":"Question: \\"%s\\"?\\n\\nAnswer:","completion":" It is number %s of \\"them all\\", in v1.2. So it was written. And then\\n\\n- a list.","id":%s}\n' $i $i $i
        [ $i -ne 3 ] || echo '{"prompt":"Question: \"3\"?\n\nAnswer:","completion":" Another answer to it that is whole, and long enough to be taken.","id":9}'
        [ $i -ne 4 ] || echo "{\"prompt\":\"$long\",\"completion\":\" Whole and long enough, but to a question that is not.\"}"
    done
    echo '{"prompt":"Question: list?\n\nAnswer:","completion":" - no sentence that comes to an end\n- in the list that this answer is\n"}'
} >rows.jsonl
short_answers one 1 <rows.jsonl
short_answers two 2 <rows.jsonl
numbers() { grep -o 'Question: [^?]*' "$1" | sed 's/[^0-9a-z]//g; s/uestion//' | tr '\n' ' '; }
check "one in four is held out" test "$(numbers one-held-questions.jsonl)" = "4 8 "
check "the others are asked, each once" test "$(numbers one-train-questions.jsonl)" = "1 2 3 5 6 7 list "
check "another seed holds others out" test "$(numbers two-held-questions.jsonl)" = "3 7 "
check "an answer without a sentence is none" test "$(numbers one-train-answers.jsonl)" = "1 2 3 5 6 7 "
check "answers are their first sentences" same <(head -n 1 one-train-answers.jsonl) <<'E2'
{"prompt":"Question: \"1\"?\n\nAnswer:","completion":" It is number 1 of \"them all\", in v1.2. So it was written."}
E2

# What the model said: nothing, a sentence and a half, no end; then as many again.
for _ in 1 2; do
    echo '{"prompt":"","completion":"","n_token":1,"stopped":true}'
    echo '{"prompt":"","completion":" Yes.\nIt is \"so\" and","n_token":9,"stopped":false}'
    echo '{"prompt":"","completion":" never ending","n_token":9,"stopped":false}'
done >one-train-said.jsonl
pair_up one-train
worse() { sed 's/.*,"rejected":"\(.*\)"}$/\1/' "one-train-$1.jsonl"; }
check "drawn answers are cut to whole sentences" same <(worse drawn | head -n 3) < <(printf '\n Yes.\n never ending\n')
check "stubs are one word to half of them, with a full stop" same <(worse stubs) <<'E2'
 It is.
 It is number.
 It is number 3.
 It is number 5 of.
 It is number 6 of \"them.
 It is number 7 of \"them all\".
E2
for kind in drawn stubs; do
    check "$kind: the written answer is the better one" test "$(sed 's/,"rejected":.*//; s/"chosen"/"completion"/; s/$/}/' \
        one-train-$kind.jsonl | diff - one-train-answers.jsonl | wc -l)" -eq 0
done

line() { printf '{"role":"%s","answer":%s,"score":%s,"query":"Q %s\\n?","response":"%s","n_token":3,"stopped":true}\n' "$@"; }
{
    for q in 1 2 3 4; do line policy 0 0.5 $q "\\\"new\\\" $q"; done
    for q in 1 2 3 4; do line policy 1 0.7 $q "other"; done
    for q in 1 2 3 4; do line rival 0 -1.25 $q "old\\nof $q"; done
} >answers.jsonl
check "three questions are shown, with the first answers" same <(before_and_after answers.jsonl) < <(
    for q in 1 2 3; do printf 'Q %s ?\n  before (-1.25) old of %s\n  after  (0.50) "new" %s\n\n' $q $q $q; done)
exit $((failures > 0))
