#!/usr/bin/env bash
# What jobscripts/pbs/again.sh makes of answers of qstat that the jobs of test_life.sh do not get, and what
# it does where PBS does not answer.
set -euo pipefail
source=${QUIPU_SOURCE:?}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
check() { # check NAME TEXT: the last call of qsub has the line; with "not" before it, it has not
    local name=$1 found=true
    shift
    if [ "$1" = not ]; then
        found=false
        shift
    fi
    if grep -qxF -- "$1" "$work/asked"; then
        "$found" && return
    else
        "$found" || return 0
    fi
    echo "failed: $name"
    sed 's/^/    /' "$work/asked" "$work/log"
    failures=$((failures + 1))
}

mkdir "$work/bin"
PATH=$work/bin:$PATH
printf '#!/bin/sh\ncat "%s/answer"\n' "$work" >"$work/bin/qstat"
# qsub notes each argument in a line, and the directory; it refuses what stands in the file refused.
cat >"$work/bin/qsub" <<END
#!/bin/sh
{ pwd; printf '%s\n' "\$@"; } >"$work/asked"
for one; do
    if [ "\$one" = "\$(cat "$work/refused")" ]; then
        echo "qsub: Cannot set attribute, read only or insufficient permission  Resource_List.\${one%%=*}" >&2
        exit 167
    fi
done
echo 13.server
END
chmod +x "$work"/bin/*

# again [VARIABLE=VALUE...]: the job of the answer is put back.
again() {
    code=0
    : >"$work/asked"
    # shellcheck disable=SC2016
    env PBS_JOBID=12.server PBS_O_WORKDIR="$work" PBS_ENVIRONMENT=PBS_BATCH "$@" bash -c '
        set -euo pipefail
        deck=my.cfg started=1000000000 script=/spool/12.SC deleted=${deleted:-false}
        . "$0/jobscripts/pbs/again.sh"
        restore_variables
        set_walltime
        echo "left: ${PBS_WALLTIME:-no limit}"
        requeue' "$source" >"$work/log" 2>&1 || code=$?
}
answer() { # answer LINE...: attributes
    printf 'Job Id: 12.server\n' >"$work/answer"
    printf '    %s\n' 'Job_Name = a name' "$@" >>"$work/answer"
}
echo nothing >"$work/refused"

answer 'Resource_List.nodect = 2' 'Resource_List.nodes = 2:ppn=4' 'Resource_List.place = scatter' \
    'Resource_List.select = 2:ncpus=4:mpiprocs=4' 'Resource_List.ncpus = 8' 'queue = fast' \
    'Output_Path = host:/home/a name.o12' 'Error_Path = host:/home/a name.o120'
again
check "the name may have spaces" "a name"
check "nodes as they were asked for" nodes=2:ppn=4
check "select is PBS's own beside nodes" not "select=2:ncpus=4:mpiprocs=4"
check "sums are not asked for" not ncpus=8
check "the queue" fast
check "a file that PBS has named is the next job's to name" not host:/home/a\ name.o12
check "another file stays" host:/home/a\ name.o120
check "the script" /spool/12.SC
check "the folder" "$work"
grep -qx 'left: no limit' "$work/log" || { echo "failed: no wall time is no limit"; failures=$((failures + 1)); }
again PBS_O_QUEUE=routing
check "the queue that was asked for" routing

answer 'Resource_List.select = 1:ncpus=4' 'Resource_List.min_walltime = 01:00:00' \
    'Resource_List.max_walltime = 05:00:00' 'Resource_List.walltime = 02:30:00' 'Resource_List.files = home,work' \
    'Resource_List.software = x' 'Rerunable = False' 'queue = fast'
again
check "a job that may shrink" max_walltime=05:00:00
check "the time that it got is not what was asked for" not walltime=02:30:00
check "a list is quoted" 'files="home,work"'
check "not rerunnable" n
echo software=x >"$work/refused"
again
check "a resource that is refused is left out" not software=x
check "and nothing else" 'files="home,work"'

# A signal ends sleep, and with it the second try.
printf '#!/bin/sh\nexit 1\n' >"$work/bin/sleep"
chmod +x "$work/bin/sleep"
echo select=1:ncpus=4 >"$work/refused"
again
[ "$code" -ne 0 ] || { echo "failed: without its select it would be another job"; failures=$((failures + 1)); }
echo nothing >"$work/refused"
printf '#!/bin/sh\nexit 1\n' >"$work/bin/qstat"
again
[ "$code" -eq 10 ] || { echo "failed: without qstat nothing is submitted"; failures=$((failures + 1)); }
check "without qstat nothing is submitted" not "$work"

echo "$failures failures"
[ "$failures" -eq 0 ]
