#!/usr/bin/env bash
# QP_TEST: labels=slow
# What cmake --install and CPack make of a build: programs that run from another place, decks and job scripts
# that find each other, documents whose links hold; and a source tarball without Git that configures by itself
# and knows its revision.
# shellcheck source=tests/train/e2e.sh
. "$(dirname "$0")/../train/e2e.sh"
build=${QUIPU_BIN%/bin}
# The executor of CUDA kernels on the CPU is a library of the tests, and installed nowhere.
if grep -q '^QUIPU_CUDA:.*=EMULATED' "$build/CMakeCache.txt"; then exit 77; fi
generator=$(sed -n 's/^CMAKE_GENERATOR:.*=//p' "$build/CMakeCache.txt")
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:.*=//p' "$build/CMakeCache.txt")

# Programs: of the tarball, unpacked elsewhere.
mkdir packed "another place"
cpack --config "$build/CPackConfig.cmake" -B "$work/packed" >log 2>&1 || true
archive=$(echo packed/quipu-"$version"-linux-*.tar.gz)
check "a tarball of programs" test -f "$archive"
check "and its checksum" sh -c 'cd packed && sha256sum --status -c ./*linux*.sha256'
tar -C "another place" --strip-components=1 -xzf "$archive"
root="$work/another place"
for program in "$QUIPU_BIN"/quipu "$QUIPU_SOURCE"/tools/quipu-*.c; do
    program=$(basename "$program" .c)
    check "$program starts" sh -c '"$0" --help >/dev/null' "$root/bin/$program"
done
check "nothing but these" test "$(find "$root/bin" -type f | wc -l)" -eq 6
PATH="$root/bin:$PATH"
check "those of the tarball are used" test "$(command -v quipu)" = "$root/bin/quipu"
make_base base.h5
make_data data
make_deck
quipu_on 2 run
check "two ranks train" test "$code" -eq 0
for file in "$QUIPU_SOURCE"/input/*/*.cfg "$QUIPU_SOURCE"/jobscripts/*/*; do
    file=${file#"$QUIPU_SOURCE"/}
    check "$file is there" cmp -s "$QUIPU_SOURCE/$file" "$root/share/quipu/$file"
done
check "an adapter's programs can be started" test -x "$root/share/quipu/input/ppo-command/length.sh"
check "the licence" cmp -s "$QUIPU_SOURCE/LICENSE" "$root/share/doc/quipu/LICENSE"
check "documents" cmp -s "$QUIPU_SOURCE/doc/running.md" "$root/share/doc/quipu/doc/running.md"

# The job script of the tarball, submitted from anywhere, finds its other part and the program.
cat >srun <<'END'
#!/bin/sh
while [ "$1" != quipu ]; do shift; done
exec "$@"
END
printf '#!/bin/sh\necho "CoresPerSocket=2 Sockets=1 ThreadsPerCore=1"\n' >scontrol
chmod +x srun scontrol
env PATH="$work:$PATH" QUIPU_ROOT="$root/share/quipu" SLURM_JOB_ID=1 SLURM_SUBMIT_DIR=/ SLURM_JOB_END_TIME="$(($(date +%s) + 9999))" \
    SLURMD_NODENAME=n SLURM_JOB_NUM_NODES=1 SLURM_NTASKS=1 SLURM_TASKS_PER_NODE=1 SLURM_JOB_CPUS_PER_NODE=2 SLURM_CPUS_ON_NODE=2 \
    bash "$root/share/quipu/jobscripts/slurm/quipu.sbatch" deck.cfg >log 2>&1 || code=$?
check "the job script runs a deck" logged "job: exit code 0; newest checkpoint after step 6"

# Sources: configured in a folder that knows no Git, inside the repository of somebody else.
git init -q .
git -c user.name=t -c user.email=t@example.org commit -q --allow-empty -m other
cpack --config "$build/CPackSourceConfig.cmake" -B "$work/packed" >log 2>&1 || true
mkdir source
tar -C source --strip-components=1 -xzf packed/quipu-"$version".tar.gz
check "no more and no less than the tree has" diff <(cd source && find . -type f -o -type l | sort) \
    <(cd "$QUIPU_SOURCE" && git ls-files -co --exclude-standard | sed 's|^|./|' | sort)
elsewhere=()
if command -v h5pcc >/dev/null; then elsewhere=(-DHDF5_ROOT="$(dirname "$(dirname "$(command -v h5pcc)")")"); fi
cmake -S source -B out -G "$generator" -DQUIPU_TESTS=OFF "${elsewhere[@]}" >log 2>&1 || code=$?
check "it configures, with the HDF5 of h5pcc as on a cluster" test "$code" -eq 0
if [ "$generator" = Ninja ]; then
    cmake --build out --target CMakeFiles/quipu_h5.dir/src/h5/h5_attr.c.o >log 2>&1 || code=$?
    check "HDF5 and the MPI that it wants are found" test "$code" -eq 0
fi
cmake --build out --target quipu_base_revision >log 2>&1
revision=$(git -C "$QUIPU_SOURCE" describe --always --dirty 2>/dev/null) ||
    revision=$(cut -d '"' -f 2 "$QUIPU_SOURCE/cmake/exported_revision.h")
check "it knows its revision, $revision" grep -qF "\"$revision\"" out/revision/revision.h
end_test
