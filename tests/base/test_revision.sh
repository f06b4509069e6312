#!/usr/bin/env bash
# QP_TEST:
# A program knows the commit that it was built from, without configuring again; a commit compiles the one file
# that says it, and no commit compiles nothing. On a small project around cmake/revision.cmake.
set -euo pipefail
for tool in git cmake ninja cc; do command -v $tool >/dev/null || exit 77; done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >CMakeLists.txt <<CMAKE
cmake_minimum_required(VERSION 3.25)
project(small C)
include($QUIPU_SOURCE/cmake/revision.cmake)
add_library(base STATIC version.c other.c)
quipu_revision(base \${CMAKE_SOURCE_DIR}/version.c)
add_executable(small main.c)
target_link_libraries(small base)
CMAKE
printf '#include "revision.h"\nconst char *revision(void)\n{\n    return QUIPU_REVISION;\n}\n' >version.c
echo 'int other;' >other.c
printf '#include <stdio.h>\nconst char *revision(void);\nint main(void)\n{\n    puts(revision());\n}\n' >main.c
printf "/build\n/log\n" >.gitignore
commit() { git add -A && git -c user.name=t -c user.email=t@example.org commit -qm "$1" --allow-empty; }
build() { ninja -C build >log || { cat log && false; }; }
compiled() { grep -c 'Building C object' log || true; }
check() { # check WHAT COMMAND...
    local what=$1
    shift
    "$@" || { echo "failed: $what" && exit 1; }
}
git init -q .
commit first
cmake -S . -B build -G Ninja >/dev/null
build
check "the first commit" test "$(build/small)" = "$(git describe --always)"
check "all is compiled" test "$(compiled)" -eq 3
build
check "nothing new, nothing compiled" test "$(compiled)" -eq 0
commit second
build
check "the second commit" test "$(build/small)" = "$(git describe --always)"
check "one file is compiled" test "$(compiled)" -eq 1
echo 'int another;' >>other.c
build
check "a tree with changes says so" test "$(build/small)" = "$(git describe --always)-dirty"
rm -rf .git
build
check "no repository" test "$(build/small)" = unknown
