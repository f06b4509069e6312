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

# Of rows with prompt and completion: one answer of each short question, and of that the first
# sentences, which is what can be learned and read in minutes. One question in four is held out;
# which ones, the seed says. Makes PREFIX-{train,held}-questions.jsonl and, of those whose answer
# begins with whole sentences, -answers.jsonl.
short_answers() { # prefix, seed
    rm -f "$1"-{train,held}-{questions,answers}.jsonl
    awk -v out="$1" -v seed="$2" -v most=100 "$reading"'
        {
            question = inside($0, "prompt")
            if (length(question) > 220 || question in seen || n == most) next
            seen[question]
            part = out ((n++ + seed) % 4 == 0 ? "-held" : "-train")
            printf "{\"prompt\":\"%s\"}\n", question > (part "-questions.jsonl")
            answer = sentences(substr(inside($0, "completion"), 1, 180))
            if (length(answer) > 40)
                printf "{\"prompt\":\"%s\",\"completion\":\"%s\"}\n", question,
                    answer > (part "-answers.jsonl")
        }'
}

# Pairs of PREFIX-answers.jsonl: a written answer is better than what the fine-tuned model said to the
# question (PREFIX-said.jsonl; of that, too, the first sentences, if it came to the end of one), and
# better than its own first words, at most half of them. From the first kind alone a reward model
# learns that every word is a risk, and likes silence best. Makes PREFIX-{drawn,stubs}.jsonl.
pair_up() { # prefix
    paste "$1-answers.jsonl" "$1-said.jsonl" | awk -F '\t' -v out="$1" "$reading"'
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
        }'
}

# The first questions of the comparison, with the first answer of each policy.
before_and_after() { # answers.jsonl of job.method = "eval"
    awk -v n_shown=3 "$reading"'
        function plain(text) { # on one line
            gsub(/\\[ntr]/, " ", text); gsub(/\\"/, "\"", text); gsub(/\\\\/, "\\", text)
            return text
        }
        /"answer":0,/ {
            role = inside($0, "role")
            query = plain(inside($0, "query"))
            match($0, /"score":[-0-9.e]+/)
            score = substr($0, RSTART + 8, RLENGTH - 8)
            said[role, query] = sprintf("(%.2f) %s", score, plain(inside($0, "response")))
            if (role == "policy" && n < n_shown) asked[++n] = query
        }
        END {
            for (i = 1; i <= n; i++)
                printf "%s\n  before %s\n  after  %s\n\n", asked[i], said["rival", asked[i]],
                    said["policy", asked[i]]
        }' "$1"
}
