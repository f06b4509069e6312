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

# Eight questions; the third again, with another answer; a longer one first, whose answer has no
# sentence; and a hundred long ones.
{
    echo '{"prompt":"Question: listing?\n\nAnswer:","completion":" - no sentence that comes to an end\n- in the list that this answer is\n"}'
    for i in 1 2 3 4 5 6 7 8; do
        printf '{"prompt":"Question: \\"%s\\"?\\n\\nAnswer:","completion":" It is number %s of \\"them all\\", in v1.2. So it was written. And then\\n\\n- a list.","id":%s}\n' $i $i $i
        [ $i -ne 3 ] || echo '{"prompt":"Question: \"3\"?\n\nAnswer:","completion":" Another answer to it that is whole, and long enough to be taken.","id":9}'
    done
    for i in {100..199}; do
        echo "{\"prompt\":\"Question: $i, and why at such a length?\",\"completion\":\" Whole, but nobody asks: 96 are taken.\"}"
    done
} >rows.jsonl
short_answers one 1 <rows.jsonl
short_answers two 2 <rows.jsonl
numbers() { grep -o 'Question: [^?,]*' "$1" | sed 's/[^0-9a-z]//g; s/uestion//' | tr '\n' ' '; }
check "96 questions" test "$(cat one-*-questions.jsonl | sort -u | wc -l)" -eq 96
check "one in four is held out" test "$(numbers one-held-questions.jsonl | cut -c 1-8)" = "3 7 101 "
check "the others are asked, the shortest first" test "$(numbers one-train-questions.jsonl | cut -c 1-20)" = "1 2 4 5 6 8 listing "
check "another seed holds others out" test "$(numbers two-held-questions.jsonl | cut -c 1-4)" = "2 6 "
check "an answer without a sentence is none" test "$(numbers one-train-answers.jsonl)" = "1 2 4 5 6 8 "
check "answers are their first sentences" same <(head -n 1 one-train-answers.jsonl) <<'E2'
{"prompt":"Question: \"1\"?\n\nAnswer:","completion":" It is number 1 of \"them all\", in v1.2. So it was written."}
E2

# What the model said: nothing, a sentence and a half, no end; then as many again.
for _ in 1 2; do
    echo '{"prompt":"","completion":"","n_token":1,"stopped":true}'
    echo '{"prompt":"","completion":" Yes.\nIt is \"so\" and","n_token":9,"stopped":false}'
    echo '{"prompt":"","completion":" never ending","n_token":9,"stopped":false}'
done >one-train-said.jsonl
pair_up one-train 3
worse() { sed 's/.*,"rejected":"\(.*\)"}$/\1/' "one-train-$1.jsonl"; }
check "drawn answers are cut to whole sentences" same <(worse drawn | head -n 3) < <(printf '\n Yes.\n never ending\n')
check "stubs are one word to half of them, with a full stop" same <(worse stubs) <<'E2'
 It is.
 It is number.
 It is number 4.
 It is number 5 of.
 It is number 6 of \"them.
 It is number 8 of \"them all\".
E2
check "silence is nothing, to every third question" same <(worse silence) < <(printf '\n\n')
for kind in drawn stubs; do
    check "$kind: the written answer is the better one" test "$(sed 's/,"rejected":.*//; s/"chosen"/"completion"/; s/$/}/' \
        one-train-$kind.jsonl | diff - one-train-answers.jsonl | wc -l)" -eq 0
done

line() { printf '{"role":"%s","answer":%s,"score":%s,"query":"Q %s\\n?","response":"%s","n_token":3,"stopped":true}\n' "$@"; }
for q in 1 2 3 4 5 6; do
    line policy 0 1.5 $q "best of $q"
    line policy 1 -1e-1 $q "worst of $q"
    line policy 2 0.5 $q "\\\"new\\\" $q"
    line rival 0 -1.25 $q "old\\nof $q"
    line rival 1 -1.25 $q "the same of $q"
    line rival 2 -1.5 $q "older"
done >answers.jsonl
check "three questions are shown, with the middle answers" same <(before_and_after answers.jsonl) < <(
    for q in 2 4 6; do printf 'Q %s ?\n  before (-1.25) old of %s\n  after  (0.50) "new" %s\n\n' $q $q $q; done)
exit $((failures > 0))
