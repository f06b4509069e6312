#!/usr/bin/env bash
# quipu-prep on wrong input, wrong arguments, full disks and signals: one clear message, the right exit
# code, nothing half-written.
set -euo pipefail
prep=$QUIPU_BIN/quipu-prep
work=$(mktemp -d)
trap 'umount "$work/small" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
mkdir hf
cp "$QUIPU_SOURCE/tests/golden/tokenizers/smollm.json" hf/tokenizer.json
echo '{"eos_token": "<|im_end|>"}' >hf/tokenizer_config.json

# refuses CODE "part of the message" arguments...
refuses() {
    local code=$1 message=$2 found=0
    shift 2
    "$@" >log 2>&1 || found=$?
    if [ "$found" -ne "$code" ] || ! grep -qF -- "$message" log; then
        printf 'expected exit code %s and "%s", got %s and:\n' "$code" "$message" "$found" >&2
        cat log >&2
        exit 1
    fi
    if compgen -G 'o-*' >/dev/null; then
        echo "left behind after \"$message\":" o-* >&2
        exit 1
    fi
}
common=(--tokenizer hf --out o)
row='<row Id="1" PostTypeId="1" Body="q"/>'

# arguments
refuses 2 'a source and at least one file' "$prep"
refuses 2 'source "stackexchang": expected one of stackexchange, jsonl' "$prep" stackexchang x "${common[@]}"
refuses 2 'either --base or --tokenizer' "$prep" jsonl x --out o
refuses 2 '--out is needed' "$prep" jsonl x --tokenizer hf
refuses 2 '--evil: no such option' "$prep" jsonl x "${common[@]}" --evil
refuses 2 '--eval-fraction "2": expected a number from 0 to 1' "$prep" jsonl x "${common[@]}" --eval-fraction 2
refuses 2 '--kinds "sftt": expected one of sft, reward, prompt' "$prep" jsonl x "${common[@]}" --kinds reward,sftt
for list in '' ',' 'sft,' ,sft sft,,prompt; do # an empty item is none of the three
    refuses 2 '--kinds "": expected one of sft, reward, prompt' "$prep" jsonl x "${common[@]}" --kinds "$list"
done
wrong_number() { # "what is expected" OPTION VALUES...
    local value
    for value in "${@:3}"; do
        refuses 2 "--$2 \"$value\": expected $1" "$prep" stackexchange x "${common[@]}" "--$2" "$value"
    done
}
wrong_number 'a number from 0 to 1' max-bad '' 1e -1 nan inf 101%
wrong_number 'a number from 0 to 1' eval-fraction nan 0.5x
wrong_number 'an integer from 0 to 1000000000' max-tokens '' 1.5 1e3
wrong_number 'an integer from 0 to 1000000' max-pairs -1 1%
wrong_number 'an integer from 0 to 4294967295' seed 4294967296 99999999999999999999
refuses 2 '--pairs "score": expected one of scores, mismatched' "$prep" stackexchange x "${common[@]}" --pairs score
refuses 2 'nowhere' "$prep" jsonl x --tokenizer nowhere --out o
refuses 2 'absent.jsonl: cannot be opened' "$prep" jsonl absent.jsonl "${common[@]}"
"$prep" --help | grep -q '^usage: quipu-prep'

refuses 2 '--out is needed' "$prep" jsonl x --tokenizer hf --out ''
refuses 2 '--max-bad "2": expected a number from 0 to 1' "$prep" jsonl x "${common[@]}" --max-bad 2
refuses 2 'the argument "x\ny" holds a control character' "$prep" jsonl $'x\ny' "${common[@]}"
refuses 2 'holds a control character' "$prep" jsonl x --tokenizer hf --out $'o-\n'
refuses 2 'is a folder, expected a file' "$prep" jsonl hf "${common[@]}"
refuses 2 'nowhere.jinja' "$prep" jsonl x "${common[@]}" --chat-template nowhere.jinja

mkfifo fifo # nobody will ever open its other end
for source in jsonl stackexchange html text; do
    refuses 2 'fifo: not a regular file, but a pipe' "$prep" "$source" fifo "${common[@]}"
done

# One damaged row or document costs itself alone, in an array too.
costs() { # costs "line of the log" SAMPLES arguments...
    "$prep" "${@:3}" "${common[@]}" --eval-fraction 0 --max-bad 1 >log 2>&1
    if ! grep -qF -- "$1" log || ! grep -qF "sft: $2 train" log; then
        printf 'expected "%s" and %s samples, got\n' "$1" "$2" >&2
        cat log >&2
        exit 1
    fi
    rm o-*
}
good='{"text": "good"}'
printf '[%s,\n %s,\n {"text": "no quote},\n %s,\n %s]\n' "$good" "$good" "$good" "$good" >quote.json
printf '[\n  %s,\n  {"text": "no brace",\n  %s,\n  %s\n]\n' "$good" "$good" "$good" >brace.json
printf '[\n {\n  "text": ["list\n },\n {\n  "text": "good"\n },\n {\n  "text": "[{"\n }\n]\n' >lines.json
costs '1 skipped: not JSON (first: quote.json: row 3' 4 jsonl quote.json
costs '1 skipped: not JSON (first: brace.json: row 2' 3 jsonl brace.json
costs '1 skipped: not JSON (first: lines.json: row 1' 2 jsonl lines.json
nested() { # N TEXT
    head -c "$1" /dev/zero | tr '\0' "$2"
}
deep="{\"text\": \"deep\", \"x\": $(nested 2047 '[')$(nested 2047 ']')}"
flat="{\"text\": \"flat\", \"x\": $(nested 2046 '[')$(nested 2046 ']')}"
printf '%s\n' "$good" "$deep" "$flat" >deep.jsonl
printf '[%s,\n%s,\n%s]\n' "$good" "$deep" "$flat" >deep.json
printf '%s\n{"conversations": [{"from": "a\x7fb", "value": "c"}]}\n' "$good" >raw.jsonl
printf '%s\n{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\n' "$good" >two.jsonl
printf '{{ raise_exception("two\\nlines") }}' >two.jinja
printf '%s\n{\n  "text": "x"\n}\n{\n' "$good" >pretty.jsonl
printf '%s\n[\n  {"text": "x"},\n  {"text": "y"},\n' "$good" >list.jsonl
printf '[\n  %s,\n%s\n' "$good" "$good" >cut.json
printf '[%s,\n%s]\n[%s,\n%s]\n' "$good" "$good" "$good" "$good" >arrays.json
costs '1 skipped: rows of JSON that nest too deep to be read (first: deep.jsonl:2: nested deeper than 2047 lists' \
    2 jsonl deep.jsonl
costs '1 skipped: rows of JSON that nest too deep to be read (first: deep.json: row 2' 2 jsonl deep.json
# What a row or a template says stays within a line of the log.
costs '(first: raw.jsonl:2: from is "a\x7fb", expected' 1 jsonl raw.jsonl
costs 'does not take (first: two.jsonl:2: two.jinja: line 1: two\nlines)' 1 jsonl two.jsonl --chat-template two.jinja
# Rows over several lines, and an array that does not end: what is there, and what is read.
array='an array begins in this line and does not end in it: expected JSON lines'
costs "4 skipped: not JSON (first: pretty.jsonl:2: an object begins in this line and does not end in it: expected JSON lines, a row a line, or one JSON array that is the whole file)" \
    1 jsonl pretty.jsonl
costs "3 skipped: not JSON (first: list.jsonl:2: $array" 1 jsonl list.jsonl
costs '1 skipped: not JSON (first: arrays.json: row 2: something ends in this row that does not begin in it: expected' \
    2 jsonl arrays.json
costs '2 skipped: not JSON (first: cut.json:1: the array that begins here does not end with the file: expected' \
    1 jsonl cut.json
printf '%s\n' "$good" '{"text": NaN}' '{"prompt": "x", "completion": NaN}' '{"text": "t", "x": NaN}' >nan.jsonl
costs '4 rows' 2 jsonl nan.jsonl
printf 'one\n\nb\xe9d\n\ntwo\n' >latin1.txt
costs '1 skipped: documents that are not UTF-8 (first: latin1.txt' 2 text latin1.txt

# files that are packed in another way, or another thing
packed() { # "what it is" source bytes
    printf "$3" >packed
    refuses 2 "packed: is $1" "$prep" "$2" packed "${common[@]}"
}
packed 'a 7z archive: unpack it (7z x)' stackexchange "7z\xbc\xaf\x27\x1c rest"
packed 'packed with bzip2: unpack it (bunzip2)' stackexchange 'BZh91AY&SY rest'
packed 'packed with xz' jsonl '\xfd7zXZ\0 rest'
packed 'a zip archive' html 'PK\3\4 rest'
packed 'packed with zstd' text '\x28\xb5\x2f\xfd rest'
packed 'a Parquet file' jsonl 'PAR1 rest'
packed 'UTF-16, expected UTF-8' jsonl '\xff\xfe{\0}\0'

# dumps: a bad row is left out, and many of them are too many
two=$(printf '%s\n<row Id="2" PostTypeId="1" Body="r"/>' "$row")
many_bad() { # "reason" rows
    printf '<posts>\n%s\n%s\n</posts>' "$two" "$2" >bad.xml
    refuses 2 "bad.xml: 2 of 4 are bad, more than --max-bad 0.01; a larger share leaves them out; $1" \
        "$prep" stackexchange bad.xml "${common[@]}"
    "$prep" stackexchange bad.xml --tokenizer hf --out kept --max-bad 0.5 --eval-fraction 0 >log 2>&1
    grep -qF "$1" log
    grep -q 'prompt: 2 train' log
    rm kept-*
}
many_bad '2 skipped: damaged rows (first: bad.xml:4: ' '<row Id="3" PostTypeId="2"
<row Id="4" PostTypeId="2" ParentId="1" Body="&nbsp;"/>'
many_bad '2 skipped: posts with an attribute missing or wrong (first: bad.xml:4: Id="x7" is not an integer)' \
    '<row Id="x7" PostTypeId="1"/><row PostTypeId="1"/>'
many_bad '2 skipped: posts with an attribute missing or wrong (first: bad.xml:4: no ParentId)' \
    '<row Id="3" PostTypeId="2"/><row Id="3" PostTypeId="2" ParentId="1" Score="abc"/>'
many_bad '2 skipped: posts with an attribute missing or wrong (first: bad.xml:4: no Score)' \
    '<row Id="3" PostTypeId="2" ParentId="1" Body="a"/><row Id="4" PostTypeId="2" ParentId="1" Score="x"/>'
many_bad '2 skipped: posts with the Id of another (first: bad.xml: post 1)' \
    '<row Id="1" PostTypeId="1" Body="z"/><row Id="1" PostTypeId="1" Body="z"/>'
damage() { # "what is wrong" row
    printf '<posts>\n%s\n%s\n</posts>' "$two" "$2" >bad.xml
    "$prep" stackexchange bad.xml --tokenizer hf --out kept --max-bad 0.5 --eval-fraction 0 >log 2>&1
    if ! grep -qF "1 skipped: damaged rows (first: bad.xml:4: $1)" log; then
        printf 'expected "%s", got\n' "$1" >&2
        cat log >&2
        exit 1
    fi
    grep -q 'prompt: 2 train' log
    rm kept-*
}
damage "Entity 'nbsp' not defined" '<row Id="3" PostTypeId="1" Body="a&nbsp;b"/>'
damage 'Attribute Id redefined' '<row Id="3" PostTypeId="1" Id="4"/>'
damage 'a value without quotes' '<row Id=3 PostTypeId="1"/>'
damage 'an attribute without a value' '<row Id PostTypeId="1"/>'
damage 'a value with a "<", or without its closing quote' '<row Id="3" PostTypeId="1" Body="a <p>b</p>"/>'
damage 'an "&" that begins no entity' '<row Id="3" PostTypeId="1" Body="a & b"/>'
damage 'no space behind a value, or a quote in it' '<row Id="3"PostTypeId="1"/>'
damage 'the row does not end' '<row Id="3" PostTypeId="1"'
refuses_behind() { # "what stands there" text
    printf '<posts>\n%s\n</posts>\n%s\n' "$two" "$2" >bad.xml
    refuses 2 "bad.xml:5: behind </posts>, after 2 rows, stands $1: expected one dump" \
        "$prep" stackexchange bad.xml "${common[@]}"
}
refuses_behind '<?xml version="1.0"?>' "<?xml version=\"1.0\"?><posts>$row</posts>"
refuses_behind '<posts>' "<posts>$row</posts>"
refuses_behind '<row Id="1" PostTypeId="1" Body="q"/>' "$row"
printf '<posts>\n%s\n</posts>\n<!-- <row/> --><?end?>\n' "$two" >commented.xml
"$prep" stackexchange commented.xml --tokenizer hf --out kept --eval-fraction 0 >log 2>&1
rm kept-*
# The end of an element in a damaged row is not the end of the dump.
printf '<posts>\n%s\n<row Id="3" PostTypeId="1" Body="<p>a</p>"/>\n' "$two" >cut.xml
refuses 2 'the XML ends early, after 3 rows' "$prep" stackexchange cut.xml "${common[@]}"
printf '<rss></rss>' >bad.xml
refuses 2 'bad.xml: no <row> in it' "$prep" stackexchange bad.xml "${common[@]}"
printf '<posts>\n<row Id="1" PostTypeId="1" Body=""/></posts>' >bad.xml
refuses 2 'nothing in it makes a sample' "$prep" stackexchange bad.xml "${common[@]}"
for i in $(seq 2000); do echo "<row Id=\"$i\" PostTypeId=\"1\" Body=\"$RANDOM $RANDOM\"/>"; done >rows
(echo '<posts>' && cat rows && echo '</posts>') | gzip >whole.xml.gz
head -c 9000 whole.xml.gz >cut.xml.gz
refuses 2 'cut.xml.gz:' "$prep" stackexchange cut.xml.gz "${common[@]}"
refuses 2 'cut.xml.gz:' mpirun --oversubscribe -n 2 "$prep" stackexchange cut.xml.gz "${common[@]}"
head -c 9000 whole.xml.gz | gzip -dc 2>/dev/null >cut.xml || true
refuses 2 'the XML ends early, after ' "$prep" stackexchange cut.xml "${common[@]}"
(cat whole.xml.gz && echo junk) >junk.xml.gz
refuses 2 'junk.xml.gz: behind gzip member 1 stands something else' "$prep" stackexchange junk.xml.gz "${common[@]}"
printf '<?xml version="1.0" encoding="iso-8859-1"?>\n<posts>%s</posts>' "$row" >bad.xml
refuses 2 'bad.xml: is in iso-8859-1, expected UTF-8' "$prep" stackexchange bad.xml "${common[@]}"
refuses 2 'one dump at a time' "$prep" stackexchange whole.xml.gz whole.xml.gz "${common[@]}"

# rows: one is left out, two of three are too many
bad_rows() { # "reason" row
    printf '{"text": "one\\n"}\n\n%s\n%s\n' "$2" "$2" >bad.jsonl
    refuses 2 "jsonl bad.jsonl: 2 of 3 are bad, more than --max-bad 0.01; a larger share leaves them out; 2 skipped: $1" \
        "$prep" jsonl bad.jsonl "${common[@]}"
    printf '{"text": "one\\n"}\n\n%s\n' "$2" >bad.jsonl
    "$prep" jsonl bad.jsonl --tokenizer hf --out kept --eval-fraction 0 >log 2>&1
    grep -qF "1 skipped: $1" log
    grep -q 'sft: 1 train' log
    rm kept-*
}
bad_rows 'not JSON (first: bad.jsonl:3: unexpected token near' '{"text": }'
refuses 2 '1 of 2 are bad, more than --max-bad 0;' "$prep" jsonl bad.jsonl "${common[@]}" --max-bad 0
bad_rows 'not JSON (first: bad.jsonl:3: unable to decode byte 0xff' $'{"text": "\xff"}'
bad_rows 'not JSON (first: bad.jsonl:3: holds half of a surrogate pair' '{"text": "\ud83d"}'
bad_rows 'rows with a value of the wrong type (first: bad.jsonl:3: text is 3, expected a string)' '{"text": 3}'
bad_rows 'rows with a value of the wrong type (first: bad.jsonl:3: messages is "x", expected a list of messages)' '{"messages": "x"}'
bad_rows 'rows with a value of the wrong type (first: bad.jsonl:3: content of a turn is missing)' '{"messages": [{"role": "user"}]}'
bad_rows 'rows of no known form (first: bad.jsonl:3: expected an object with' '["text"]'
bad_rows 'rows of no known form (first: bad.jsonl:3: expected an object with' '{"chosen": "b", "rejected": null}'
bad_rows 'conversations with an unknown role (first: bad.jsonl:3: from is "narrator", expected' \
    '{"conversations": [{"from": "narrator", "value": "x"}]}'
bad_rows 'conversations that the chat template does not take (first: bad.jsonl:3: ' \
    '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}' # there is none
printf '%s\n' '{"text": "one"}' '{' '{' '{}' '{}' >bad.jsonl
refuses 2 '2 skipped: not JSON (first: bad.jsonl:2: ' mpirun --oversubscribe -n 3 "$prep" jsonl bad.jsonl "${common[@]}"
refuses 2 '2 skipped: rows of no known form (first: bad.jsonl:4: ' mpirun --oversubscribe -n 2 "$prep" jsonl bad.jsonl "${common[@]}"
printf '{"prompt": ""}\n{"prompt": " "}\n' >bad.jsonl
nothing='jsonl bad.jsonl: nothing in it makes a sample; 2 skipped: rows or documents without text (first: bad.jsonl:1)'
refuses 2 "$nothing" "$prep" jsonl bad.jsonl "${common[@]}"
refuses 2 "$nothing" mpirun --oversubscribe -n 3 "$prep" jsonl bad.jsonl "${common[@]}"
seq 3000 | sed 's/.*/{"text": "a&"}/' | gzip >whole.jsonl.gz
head -c 2000 whole.jsonl.gz >cut.jsonl.gz
refuses 2 'cut.jsonl.gz: the gzip stream is cut' "$prep" jsonl cut.jsonl.gz "${common[@]}"

# places to write to
refuses 3 'nowhere/o' "$prep" stackexchange whole.xml.gz --tokenizer hf --out nowhere/o
for source in jsonl text; do # before anything is read
    refuses 3 'nowhere/o' "$prep" "$source" absent --tokenizer hf --out nowhere/o
    refuses 3 'fifo/o' "$prep" "$source" absent --tokenizer hf --out fifo/o
done
for name in k-sft-train.h5 k-reward-eval.h5 k-sft-train.h5.part; do
    mkdir "$name"
    refuses 2 "$name: exists already and is not a file, but a folder" "$prep" jsonl absent --tokenizer hf --out k
    rmdir "$name"
done
mkdir k-sft-eval-00002-of-00002.h5
refuses 2 'k-sft-eval-00002-of-00002.h5: exists already' mpirun --oversubscribe -n 2 "$prep" jsonl absent --tokenizer hf --out k
rmdir k-sft-eval-00002-of-00002.h5
touch o-sft-train-00001-of-00002.h5
found=0
"$prep" jsonl bad.jsonl "${common[@]}" >log 2>&1 || found=$?
[ "$found" -eq 2 ] && grep -q 'from a run on another number of ranks' log
rm o-sft-train-00001-of-00002.h5
# A prefix is no pattern, and "-of-" in it no number of ranks.
printf '{"text": "a b"}\n' >one.jsonl
touch k-of-a-sft-train-00001-of-00002.h5
for prefix in 'k-of-[a]' 'k-of-?' 'k-*' k-of-b; do
    "$prep" jsonl one.jsonl --tokenizer hf --out "$prefix" --eval-fraction 0 >log 2>&1
    "$prep" jsonl one.jsonl --tokenizer hf --out "$prefix" --eval-fraction 0 >log 2>&1
    test -f "$prefix-sft-train.h5"
done

# A disk that fills up, while samples are collected and while shards are written.
mkdir small
for kilobytes in 64 200 400; do
    if mount -t tmpfs -o size=${kilobytes}k none small 2>/dev/null; then
        refuses 3 'No space left on device' "$prep" stackexchange whole.xml.gz --tokenizer hf --out small/o
        [ -z "$(ls -A small)" ]
        umount small
    fi
done

# A signal: more rows than a pipe holds are read before it comes, and one more comes behind it.
rows() {
    yes "$good" | head -n 20000 || true
    touch begun
    until [ -e signalled ]; do sleep 0.05; done
    echo "$good"
}
"$prep" jsonl <(rows) "${common[@]}" >log 2>&1 &
program=$!
until [ -e begun ]; do sleep 0.05; done
kill -TERM "$program"
touch signalled
found=0
wait "$program" || found=$?
[ "$found" -eq 3 ] && grep -q 'interrupted; nothing was written' log
if compgen -G 'o-*' >/dev/null; then exit 1; fi

# A post of 12 MB, and a run again over what is there.
{ printf '<posts><row Id="1" PostTypeId="1" Body="'
  yes 'a line of words ' | head -c 12000000 || true
  printf '"/></posts>'; } >huge.xml
"$prep" stackexchange huge.xml "${common[@]}" --eval-fraction 0 >log 2>&1
"$prep" stackexchange huge.xml "${common[@]}" --eval-fraction 0 >log 2>&1
grep -q '1 train and 0 eval samples' log
[ "$(echo o-*)" = o-prompt-train.h5 ]
