#!/usr/bin/env bash
# tools/check-layers names every include against the order of modules and rooms, and folders that are
# none, and lets the others pass.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tools" "$work"/src/{base,engine/{low,high,back/in,back/out}}
cp "$QUIPU_SOURCE/tools/check-layers" "$work/tools/"
cd "$work"
git init -q .
cat > CMakeLists.txt <<'LIST'
quipu_module(base THIRD x::y)
quipu_module(engine  ROOMS low high back/in
                           back/out
                     DEPENDS base THIRD x::y)
LIST
file() { # path, headers that it includes
    local path=$1
    shift
    printf '#include "%s"\n' "$@" > "src/$path"
}
good() {
    file base/a.h base/b.h
    file engine/contract.h base/a.h
    file engine/top.c engine/contract.h engine/high/h.h engine/back/back.h engine/back/out/o.h
    file engine/low/l.h engine/contract.h base/a.h
    file engine/low/l.c engine/low/l.h
    file engine/high/h.h engine/low/l.h
    file engine/back/back.h engine/contract.h engine/high/h.h
    file engine/back/in/i.h engine/back/back.h engine/low/l.h
    file engine/back/out/o.h engine/back/in/i.h
    file engine/back/top.c engine/back/out/o.h
    git add -A
}
good
tools/check-layers

n=0
refused() { # text that is expected; the file has been spoilt
    git add -A
    if tools/check-layers > out; then
        echo "passed, but expected: $1" >&2
        exit 1
    fi
    grep -qF -- "$1" out || { echo "expected: $1; found:" >&2; cat out >&2; exit 1; }
    [ "$(wc -l < out)" = 1 ] || { echo "more than one line:" >&2; cat out >&2; exit 1; }
    good
    n=$((n + 1))
}
file base/a.h engine/contract.h; refused "src/base/a.h:1: base may not include engine"
file engine/low/l.h engine/high/h.h; refused "src/engine/low/l.h:1: may not include engine/high/h.h"
file engine/low/l.c engine/low/l.h engine/back/back.h; refused "src/engine/low/l.c:2: may not include engine/back/back.h"
file engine/contract.h engine/low/l.h; refused "src/engine/contract.h:1: may not include engine/low/l.h"
file engine/back/back.h engine/back/in/i.h; refused "src/engine/back/back.h:1: may not include engine/back/in/i.h"
file engine/back/in/i.h engine/back/out/o.h; refused "src/engine/back/in/i.h:1: may not include engine/back/out/o.h"
mkdir src/engine/new
file engine/new/n.c base/a.h; refused "src/engine/new/n.c:1: its folder is no room of engine"
[ "$n" = 7 ]
