#!/usr/bin/env bash
# QP_TEST: labels=slow
# The archive of tools/bundle in a root that has glibc, a shell and readlink, and nothing else: import,
# preparation, training on one rank and on two, through links and from a folder with a space in its
# name. A reward program of the system sees nothing of the bundle's libraries.
# Skips without root (of a user namespace, at least) or without patchelf.
# shellcheck source=tests/train/rlhf.sh
. "$(dirname "$0")/../train/rlhf.sh"
command -v patchelf >/dev/null || exit 77
alone=(unshare --mount --pid --fork --kill-child)
[ "$(id -u)" -eq 0 ] || alone+=(--map-root-user)
"${alone[@]}" true 2>/dev/null || exit 77

XZ_OPT=-0 "$QUIPU_SOURCE/tools/bundle" "${QUIPU_BIN%/bin}" . >log 2>&1 || true
archive=$(echo quipu-*.tar.xz)
check "the bundle is made" test -f "$archive"

# The root: a shell, readlink, what these and the bundle want of glibc. The other programs of the
# checks are the bundle's own.
mkdir -p "root/opt/a folder" root/{bin,tmp,dev,proc,sys,lib64,work}
cp -L "$(command -v dash || command -v sh)" root/bin/sh
cp -L "$(command -v readlink)" root/bin
tar -xJf "$archive" -C "root/opt/a folder"
folder=$(echo "root/opt/a folder"/quipu-*)
folder=${folder#root}
glibc=$(dirname "$(realpath "$(ldd /bin/sh | awk '$1 == "libc.so.6" { print $3 }')")")
mkdir -p "root$glibc"
cp -L /lib64/ld-linux-x86-64.so.2 root/lib64
for library in c m pthread dl rt resolv util; do
    cp -L "$glibc"/lib$library.so.[0-9] "root$glibc"
done
ln -s "$folder/bin/quipu" root/bin/tune
ln -s tune root/bin/tune2

make_base base.h5
make_data data
make_pairs data
make_decks
make_deck
sed -i 's|^reward_model = .*|reward_model = { command = "./judge"; };|' ppo.cfg
cp data*.jsonl ./*.cfg root/work
# A program of the system: it tells which of the bundle's settings it sees.
cat >root/work/judge <<'END'
#!/bin/sh
echo "${LD_LIBRARY_PATH-none} ${LD_PRELOAD-none}" >seen
while read -r line; do echo '{"reward": 0.5}'; done
END
chmod +x root/work/judge

# inside COMMAND...: in the root, with an environment of its own; output in log, exit code in code.
inside() {
    code=0
    "${alone[@]}" sh -c '
        for device in null zero urandom; do : >root/dev/$device; mount --bind /dev/$device root/dev/$device; done
        mount -t proc proc root/proc
        mount --rbind /sys root/sys
        mkdir -p root/dev/shm && mount -t tmpfs shm root/dev/shm
        exec env -i PATH=/bin HOME=/work OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 \
            OMP_WAIT_POLICY=passive OMPI_MCA_mpi_yield_when_idle=1 \
            "$(command -v chroot)" root /bin/sh -c "cd /work && exec \"\$@\"" sh "$@"' sh "$@" >log 2>&1 || code=$?
}
works() { # NAME COMMAND...
    inside "${@:2}"
    check "$1" test "$code" -eq 0
}
works "a program starts" "$folder/bin/quipu" --version
works "through links" tune2 --version
works "by a relative path" "../${folder#/}/bin/quipu-inspect" --help
works "a base" "$folder/bin/quipu-import" --synthetic tiny base.h5
for rows in data data-prompts; do
    works "$rows" "$folder/bin/quipu-prep" jsonl $rows.jsonl --base base.h5 --out data --eval-fraction 0.1
done
works "one rank" tune --set 'job.name="one"' deck.cfg
works "two ranks" "$folder/bin/mpirun" --oversubscribe -n 2 tune --set 'job.name="two"' deck.cfg
check "no complaint of Open MPI" not grep -qiE 'mca|orte|pmix|openmpi' log
check "two were joined" logged "ranks: 2"
check "one rank and two give the same" cmp -s root/work/runs/{one,two}/adapter/adapter_model.safetensors
works "a reward program" tune --set optim.steps=1 ppo.cfg
check "which sees nothing of the bundle's libraries" test "$(cat root/work/seen)" = "none none"
end_test
