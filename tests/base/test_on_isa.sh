#!/usr/bin/env bash
# Tests of instructions that a CPU lacks are skipped, by name; where they are there, the test runs under their cap.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export QUIPU_CPUINFO=$work/cpuinfo
bad=0
avx512="avx512f avx512bw avx512vl avx512dq"
row() { # row FLAGS ISA CODE: what tests/on-isa makes of a test on a CPU with these flags
    local code=0 cap
    printf 'processor\t: 0\nflags\t\t: fpu sse %s\n' "$1" >"$QUIPU_CPUINFO"
    # shellcheck disable=SC2016
    cap=$("$QUIPU_SOURCE/tests/on-isa" "$2" sh -c 'echo "$ONEDNN_MAX_CPU_ISA"') || code=$?
    if [ "$code" != "$3" ] || { [ "$code" = 0 ] && [ "$cap" != "$2" ]; }; then
        echo "failed: $2 on \"$1\": exit code $code, expected $3: $cap"
        bad=1
    fi
}
row "avx2 fma" AVX2 0
row "avx" AVX2 77
row "avx2 fma" AVX2_VNNI 77
row "avx2 avx_vnni" AVX2_VNNI 0
row "avx2 fma" AVX512_CORE 77
row "$avx512" AVX512_CORE 0
row "$avx512" AVX512_CORE_VNNI 77
row "$avx512 avx512_vnni" AVX512_CORE_VNNI 0
row "$avx512 avx512_vnni" AVX512_CORE_BF16 77
row "$avx512 avx512_vnni avx512_bf16 amx_tile" AVX512_CORE_BF16 0
row "avx2" AVX1024 2
exit $bad
