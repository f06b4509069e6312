#!/usr/bin/env bash
# QP_TEST: labels=slow
# The module file of an installation, under Environment Modules or Lmod, whichever is there (skips without
# either): programs and job scripts are found and gone again, wherever the installation lies and through links;
# modules that the build names are loaded first.
set -euo pipefail
for init in /usr/share/modules/init/bash /usr/share/lmod/lmod/init/bash none; do
    [ ! -f "$init" ] || break
done
[ "$init" != none ] || { echo "skipped: neither Environment Modules nor Lmod is here" && exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
build=${QUIPU_BIN%/bin}
# The executor of CUDA kernels on the CPU is a library of the tests, and installed nowhere.
if grep -q '^QUIPU_CUDA:.*=EMULATED' "$build/CMakeCache.txt"; then exit 77; fi
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:.*=//p' "$build/CMakeCache.txt")
cmake --install "$build" --prefix "$work/first-place" >/dev/null
mv first-place second-place
installed="$work/second-place"

# in_shell COMMANDS: in a shell of its own with these modules alone.
in_shell() {
    (
        set +u
        export MODULEPATH=''
        unset QUIPU_ROOT LOADEDMODULES _LMFILES_ LMOD_CMD MODULESHOME
        # shellcheck disable=SC1090
        . "$init"
        module use "${folder:-$installed/share/modulefiles}"
        eval "$1"
    ) >log 2>&1
}
failures=0
check() { # check NAME COMMANDS: they print what was expected
    in_shell "$2" || true
    if [ "$(tail -n 1 log)" != "$3" ]; then
        echo "failed: $1; expected $3"
        sed 's/^/    /' log
        failures=$((failures + 1))
    fi
}
check "the program is found" 'module load quipu && command -v quipu' "$installed/bin/quipu"
check "it starts" 'module load quipu && quipu --version' "$("$QUIPU_BIN/quipu" --version)"
check "by its version" "module load quipu/$version && command -v quipu-prep" "$installed/bin/quipu-prep"
# shellcheck disable=SC2016
check "job scripts are found" 'module load quipu && ls "$QUIPU_ROOT/jobscripts/slurm/quipu.sbatch"' \
    "$installed/share/quipu/jobscripts/slurm/quipu.sbatch"
# shellcheck disable=SC2016
check "nothing is left of it" 'module load quipu; module unload quipu
    case $PATH in *second-place*) echo left ;; *) echo "${QUIPU_ROOT-unset}" ;; esac' unset
check "help names the programs" 'module help quipu 2>&1 | grep -o quipu-merge' quipu-merge
check "whatis" 'module whatis quipu 2>&1 | grep -o "fine-tuning of LLaMA-family models"' "fine-tuning of LLaMA-family models"

# A folder of the site with links to module files, and another version that is in the way.
mkdir -p site/quipu
ln -s "$installed/share/modulefiles/quipu/$version" site/quipu/
sed 's|^set root .*|set root /nowhere|' "$installed/share/modulefiles/quipu/$version" >site/quipu/99.0
folder=$work/site
check "through a link" "module load quipu/$version && command -v quipu" "$installed/bin/quipu"
# shellcheck disable=SC2016
check "one version at a time" "module load quipu/99.0; module load quipu/$version 2>/dev/null; tr : '\n' <<<\"\$PATH\" | grep -cE 'nowhere|second-place'" 1

# What QUIPU_MODULES of the build makes of it: two modules of the site.
mkdir -p site/mpi site/hdf5
printf '#%%Module1.0\nsetenv SITE_MPI 4\n' >site/mpi/4
printf '#%%Module1.0\nsetenv SITE_HDF5 1\n' >site/hdf5/1
cat >site.cmake <<CMAKE
set(PROJECT_VERSION $version)
set(QUIPU_MODULES_LOAD "module load mpi/4 hdf5/1")
configure_file("$QUIPU_SOURCE/tools/packaging/modulefile.in" "$work/site/quipu/$version-site" @ONLY)
CMAKE
cmake -P site.cmake
# shellcheck disable=SC2016
check "modules of the site come with it" "module load quipu/$version-site && echo \$SITE_MPI\$SITE_HDF5" 41
exit $((failures > 0))
