#!/usr/bin/env bash
# The example programs of input/ppo-command: a line of reward for each answer, at once.
set -euo pipefail
cd "${QUIPU_SOURCE:?}/input/ppo-command"
failures=0
rewards() { # COMMAND... -> rewards of the lines below
    "$@" <<'E2' | sed 's/{"reward": \(.*\)}/\1/' | xargs printf '%.3f '
{"prompt": "a \"response\": \"x\"}", "response": "one two th"}
{"prompt": "a", "response": ""}
{"prompt": "a", "response": "say \"}"}
{"prompt": "a", "response": "a b c d e f g h i j k l m"}
E2
}
expect() { # WHAT FOUND EXPECTED
    [ "$2" = "$3" ] && return
    echo "$1: expected $3, found $2"
    failures=$((failures + 1))
}
expect "length.sh" "$(rewards ./length.sh 10)" "1.000 0.000 0.700 -0.500 "
for shell in bash dash; do
    command -v $shell >/dev/null && expect $shell "$(rewards $shell length.sh 20)" "0.500 0.000 0.350 0.750 "
done
if command -v python3 >/dev/null; then
    expect "length.py" "$(rewards python3 length.py 3)" "1.000 0.000 0.667 -2.333 "
fi
# Answers come while the input is still open.
for program in ./length.sh "$(command -v python3 >/dev/null && echo ./length.py)"; do
    [ -n "$program" ] || continue
    coproc "$program"
    echo '{"prompt": "a", "response": "b"}' >&"${COPROC[1]}"
    line=
    read -r -t 10 line <&"${COPROC[0]}" || true
    [[ $line == '{"reward": '* ]] || expect "$program with its input open" "$line" "a reward"
    eval "exec ${COPROC[1]}>&-"
    wait "$COPROC_PID"
done
echo "$failures failures"
[ "$failures" -eq 0 ]
