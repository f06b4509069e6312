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
refuses 2 '--eval-fraction 2: expected a number from 0 to 1' "$prep" jsonl x "${common[@]}" --eval-fraction 2
refuses 2 '--kinds "sftt": expected one of sft, reward, prompt' "$prep" jsonl x "${common[@]}" --kinds reward,sftt
refuses 2 '--pairs "score": expected one of scores, mismatched' "$prep" stackexchange x "${common[@]}" --pairs score
refuses 2 'nowhere' "$prep" jsonl x --tokenizer nowhere --out o
refuses 2 'absent.jsonl: cannot be opened' "$prep" jsonl absent.jsonl "${common[@]}"
"$prep" --help | grep -q '^usage: quipu-prep'

# dumps
printf '<posts>\n%s\n<row Id="2" PostTypeId="2"\n</posts>' "$row" >bad.xml
refuses 2 'bad.xml:4: ' "$prep" stackexchange bad.xml "${common[@]}"
printf '<posts>\n%s\n<row Id="x7" PostTypeId="1"/></posts>' "$row" >bad.xml
refuses 2 'bad.xml:3: Id="x7" is not an integer' "$prep" stackexchange bad.xml "${common[@]}"
printf '<posts>\n%s\n<row Id="3" PostTypeId="2"/></posts>' "$row" >bad.xml
refuses 2 'bad.xml:3: a row has no ParentId' "$prep" stackexchange bad.xml "${common[@]}"
printf '<posts>\n<row Id="1" PostTypeId="1" Body="caf\xe9 \xff"/></posts>' >bad.xml
refuses 2 'bad.xml:2: Input is not proper UTF-8' "$prep" stackexchange bad.xml "${common[@]}"
printf '<rss></rss>' >bad.xml
refuses 2 'bad.xml: no <row> in it' "$prep" stackexchange bad.xml "${common[@]}"
printf '<posts>\n<row Id="1" PostTypeId="1" Body=""/></posts>' >bad.xml
refuses 2 'nothing in it makes a sample' "$prep" stackexchange bad.xml "${common[@]}"
for i in $(seq 2000); do echo "<row Id=\"$i\" PostTypeId=\"1\" Body=\"$RANDOM $RANDOM\"/>"; done >rows
(echo '<posts>' && cat rows && echo '</posts>') | gzip >whole.xml.gz
head -c 9000 whole.xml.gz >cut.xml.gz
refuses 2 'cut.xml.gz:' "$prep" stackexchange cut.xml.gz "${common[@]}"
refuses 2 'cut.xml.gz:' mpirun --oversubscribe -n 2 "$prep" stackexchange cut.xml.gz "${common[@]}"
refuses 2 'one dump at a time' "$prep" stackexchange whole.xml.gz whole.xml.gz "${common[@]}"

# rows
printf '{"text": "a"}\n{"text": }\n' >bad.jsonl
refuses 2 'bad.jsonl:2: column' "$prep" jsonl bad.jsonl "${common[@]}"
printf '{"text": "a"}\n\n{"text": 3}\n' >bad.jsonl
refuses 2 'bad.jsonl:3: "text" is something else, expected a string' "$prep" jsonl bad.jsonl "${common[@]}"
printf '{"prompt": "a", "chosen": "b", "rejected": null}\n' >bad.jsonl
refuses 2 'bad.jsonl:1: "rejected"' "$prep" jsonl bad.jsonl "${common[@]}"
printf '["text"]\n' >bad.jsonl
refuses 2 'bad.jsonl:1: expected an object with "text"' "$prep" jsonl bad.jsonl "${common[@]}"
printf '{"text": "\xff"}\n' >bad.jsonl
refuses 2 'bad.jsonl:1: column' "$prep" jsonl bad.jsonl "${common[@]}"
printf '{"messages": [{"role": "user"}]}\n' >bad.jsonl
refuses 2 'bad.jsonl:1: "content" is missing' "$prep" jsonl bad.jsonl "${common[@]}"
printf '{"messages": [{"role": "user", "content": "x"}]}\n' >bad.jsonl
refuses 2 'bad.jsonl:1: ' "$prep" jsonl bad.jsonl "${common[@]}" # hf has no chat template
printf '{"prompt": ""}\n{"prompt": " "}\n' >bad.jsonl
refuses 2 'jsonl bad.jsonl: nothing in it makes a sample' "$prep" jsonl bad.jsonl "${common[@]}"
refuses 2 'jsonl bad.jsonl: nothing in it makes a sample' mpirun --oversubscribe -n 3 "$prep" jsonl bad.jsonl "${common[@]}"
printf '{"text": "a"}\n{"text": ]\n' >bad.jsonl
refuses 2 'bad.jsonl:2: ' mpirun --oversubscribe -n 2 "$prep" jsonl bad.jsonl "${common[@]}"

# places to write to
refuses 3 'nowhere/o' "$prep" stackexchange whole.xml.gz --tokenizer hf --out nowhere/o
touch o-sft-train-00001-of-00002.h5
found=0
"$prep" jsonl bad.jsonl "${common[@]}" >log 2>&1 || found=$?
[ "$found" -eq 2 ] && grep -q 'from a run on another number of ranks' log
rm o-sft-train-00001-of-00002.h5

# A disk that fills up, while samples are collected and while shards are written.
mkdir small
for kilobytes in 64 200 400; do
    if mount -t tmpfs -o size=${kilobytes}k none small 2>/dev/null; then
        refuses 3 'No space left on device' "$prep" stackexchange whole.xml.gz --tokenizer hf --out small/o
        [ -z "$(ls -A small)" ]
        umount small
    fi
done

# A signal: the input is a pipe that nobody closes, so that it surely comes in the middle.
mkfifo pipe
"$prep" jsonl pipe "${common[@]}" >log 2>&1 &
program=$!
exec 3>pipe
echo '{"text": "a"}' >&3
kill -TERM "$program"
echo '{"text": "b"}' >&3
found=0
wait "$program" || found=$?
exec 3>&-
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
