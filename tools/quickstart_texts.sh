# What tools/quickstart --rlhf does with texts: rows of JSON in, rows of JSON or what is shown out;
# sourced.
# shellcheck shell=bash

# For awk: what stands inside a string of a line of JSON, escapes as they are; and the whole
# sentences that a text begins with, on its first line ("" if it begins with none).
reading='
    function inside(line, key) {
        if (!match(line, "\"" key "\":\"([^\"\\\\]|\\\\.)*\"")) return ""
        return substr(line, RSTART + length(key) + 4, RLENGTH - length(key) - 5)
    }
    function sentences(text) {
        if (!match(text " ", /^([^\\]|\\["*_`])*[.!?][ \\]/)) return ""
        return substr(text, 1, RLENGTH - 1)
    }'

# Of rows with prompt and completion: an answer to each of the shortest questions, and of that the
# first sentences, which is what can be learned and read in minutes. One question in four is held
# out; which ones, the seed says. Makes PREFIX-{train,held}-questions.jsonl and, of those whose
# answer begins with whole sentences, -answers.jsonl.
short_answers() { # prefix, seed
    rm -f "$1"-{train,held}-{questions,answers}.jsonl
    awk "$reading"'
        {
            question = inside($0, "prompt")
            if (question in seen) next
            seen[question]
            printf "%d\t%s\t%s\n", length(question), question,
                sentences(substr(inside($0, "completion"), 1, 140))
        }' | sort -n -s | awk -F '\t' -v out="$1" -v seed="$2" '
        NR <= 96 {
            part = out ((NR + seed) % 4 == 0 ? "-held" : "-train")
            printf "{\"prompt\":\"%s\"}\n", $2 > (part "-questions.jsonl")
            if (length($3) > 40)
                printf "{\"prompt\":\"%s\",\"completion\":\"%s\"}\n", $2, $3 > (part "-answers.jsonl")
        }'
}

# Pairs of PREFIX-answers.jsonl: a written answer is better than
#   drawn    what the fine-tuned model said to the question (PREFIX-said.jsonl), of that, too, the
#            first sentences, if it came to the end of one
#   stubs    its own first words, at most half of them
#   silence  nothing; of every Nth question
# From drawn answers alone a reward model learns that every word is a risk, and likes silence best.
# Makes PREFIX-{drawn,stubs,silence}.jsonl.
pair_up() { # prefix, N
    paste "$1-answers.jsonl" "$1-said.jsonl" | awk -F '\t' -v out="$1" -v every="$2" "$reading"'
        function pair(kind, worse) {
            printf "{\"prompt\":\"%s\",\"chosen\":\"%s\",\"rejected\":\"%s\"}\n",
                inside($1, "prompt"), inside($1, "completion"), worse > (out "-" kind ".jsonl")
        }
        {
            said = inside($2, "completion")
            whole = sentences(said)
            pair("drawn", whole == "" ? said : whole)
            n = split(inside($1, "completion"), word, " ")
            stub = ""
            for (i = 1; i <= 1 + NR % (1 + int(n / 2)) && i < n; i++) stub = stub " " word[i]
            sub(/[.,:;!?]+$/, "", stub)
            pair("stubs", stub ".")
            if (NR % every == 0) pair("silence", "")
        }'
}

# Three of the compared questions, evenly spread, with an answer of each policy: of its answers to the
# question the one with the middle reward, since single draws are better or worse by luck.
before_and_after() { # answers.jsonl of job.method = "eval"
    awk "$reading"'
        function plain(text) { # on one line
            gsub(/\\[ntr]/, " ", text); gsub(/\\"/, "\"", text); gsub(/\\\\/, "\\", text)
            return text
        }
        function middle(role, question,    i, k, n, m, below) {
            n = number[role, question]
            for (i = 1; i <= n; i++) {
                below = 0
                for (k = 1; k <= n; k++)
                    below += score[role, question, k] < score[role, question, i] ||
                        (k < i && score[role, question, k] == score[role, question, i])
                if (below == int((n - 1) / 2)) m = i
            }
            return sprintf("(%.2f) %s", score[role, question, m], said[role, question, m])
        }
        {
            role = inside($0, "role")
            question = plain(inside($0, "query"))
            k = ++number[role, question]
            said[role, question, k] = plain(inside($0, "response"))
            match($0, /"score":[-0-9.e]+/)
            score[role, question, k] = substr($0, RSTART + 8, RLENGTH - 8) + 0
            if (role == "policy" && k == 1) asked[++n_asked] = question
        }
        END {
            for (i = 1; i <= 3; i++) {
                question = asked[1 + int((i - 0.5) * n_asked / 3)]
                printf "%s\n  before %s\n  after  %s\n\n", question, middle("rival", question),
                    middle("policy", question)
            }
        }' "$1"
}
