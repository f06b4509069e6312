# Support of the tests of whole decks on the CUDA backend: runs on it, and beside the CPU's.
# Sourced by tests/train/test_cuda_*.sh, which a build with the backend has (label cuda). Where it is
# emulated, a hundred tokens take half a second: decks are as small as they can be.
# shellcheck shell=bash
# shellcheck source=tests/train/rlhf.sh
. "$(dirname "${BASH_SOURCE[0]}")/rlhf.sh"

# on BACKEND RANKS NAME ARGUMENTS...
on() { quipu_on "$2" "$3" --set "device.backend=\"$1\"" "${@:4}"; }

# ends_well RANKS NAME ARGUMENTS...: a run on GPUs
ends_well() {
    on cuda "$@"
    check "$2 on $1 GPUs ends well" test "$code" -eq 0
}

# close RUN RUN COLUMN ROWS LIMIT: its values agree to a relative limit, and there are so many.
close() {
    paste <(column "$3" "$1") <(column "$3" "$2") | awk -v limit="$5" -v rows="$4" '
        NF == 2 { n++; d = $1 - $2; size = $2 < 0 ? -$2 : $2; if (d < 0) d = -d
                  if (!(d <= limit * size)) { bad = 1; print "row " n ": " $1 " against " $2 } }
        END { if (n != rows) print n " rows"; exit bad || n != rows }'
}
