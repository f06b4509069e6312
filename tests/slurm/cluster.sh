# A Slurm of its own for tests: slurmctld and two slurmd (nodes n1 and n2) on this host, everything of it
# in the folder of the test. Sourced by tests/slurm/test_*.sh after tests/train/e2e.sh.
# shellcheck shell=bash
: "${work:?}"
for program in slurmctld slurmd sbatch srun scontrol squeue scancel; do
    if ! command -v "$program" >/dev/null; then
        echo "skipped: no $program (Debian packages slurmctld, slurmd and slurm-client)"
        exit 77
    fi
done
script=$QUIPU_SOURCE/jobscripts/slurm/quipu.sbatch
export QUIPU_ROOT=$QUIPU_SOURCE SLURM_CONF=$work/slurm/slurm.conf
unset "${!SBATCH_@}" "${!SRUN_@}" SLURM_MPI_TYPE

# processes VARIABLE=VALUE: those that have it in their environment. Of this cluster it is SLURM_CONF, which
# is in that of slurmctld, slurmd, slurmstepd and all that they start; of a node SLURMD_NODENAME as well.
processes() {
    grep -lzxF "$1" /proc/[0-9]*/environ 2>/dev/null | sed 's,/proc/\(.*\)/environ,\1,'
}
daemons=()
of_cluster() { processes "SLURM_CONF=$SLURM_CONF" | sort; }
of_node() { comm -12 <(of_cluster) <(processes "SLURMD_NODENAME=$1" | sort); }

end_cluster() {
    local pid
    kill "${daemons[@]}" 2>/dev/null || true
    wait "${daemons[@]}" 2>/dev/null || true
    for pid in $(of_cluster); do kill -KILL "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    finish
}

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000)) # below those that the kernel hands out
        (: <"/dev/tcp/localhost/$port") 2>/dev/null || break
    done
    echo "$port"
}

# start_cluster "OPTIONS OF THE NODES": Sockets=..., and so on.
start_cluster() {
    local user host
    user=$(id -un) host=$(hostname -s)
    mkdir -p slurm/state slurm/n1 slurm/n2
    cat >slurm/slurm.conf <<CONF
ClusterName=quipu
SlurmctldHost=$host(localhost)
SlurmctldPort=$(free_port)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=pmix
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=0
KillWait=10
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
StateSaveLocation=$work/slurm/state
SlurmdSpoolDir=$work/slurm/%n
TmpFS=$work/slurm/%n
SlurmctldPidFile=$work/slurm/slurmctld.pid
SlurmdPidFile=$work/slurm/slurmd.%n.pid
NodeName=n1 NodeHostname=$host NodeAddr=localhost Port=$(free_port) $1
NodeName=n2 NodeHostname=$host NodeAddr=localhost Port=$(free_port) $1
PartitionName=all Nodes=n1,n2 Default=yes MaxTime=INFINITE State=UP
CONF
    echo "Name=gpu File=/dev/tty[0-3]" >slurm/gres.conf # nobody opens them
    trap end_cluster EXIT
    (cd slurm && exec slurmctld -D -c >slurmctld.log 2>&1) &
    daemons+=($!)
    start_node n1
    start_node n2
    until_true both_idle || {
        echo "failed: Slurm does not start" && tail -n 20 slurm/*.log
        exit 1
    }
}
start_node() {
    (cd slurm && SLURMD_NODENAME=$1 exec slurmd -D -N "$1" >>"$1.log" 2>&1) &
    daemons+=($!)
}
both_idle() { [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ]; }

# until_true CONDITION...: waits for it, five minutes at most.
until_true() {
    local end=$((SECONDS + ${QUIPU_TEST_WAIT:-300}))
    until "$@"; do
        if [ "$SECONDS" -gt "$end" ]; then
            echo "failed: waited in vain for: $*"
            scontrol show job "${job:-}" || true
            tail -n 5 log.* slurm/*.log
            return 1
        fi
        sleep 0.1
    done
}

# A node that is lost: slurmctld knows it, and all that runs there is gone, slurmd as well.
lose_node() {
    local pid
    scontrol update nodename="$1" state=down reason=lost
    for pid in $(of_node "$1"); do kill -KILL "$pid" 2>/dev/null || true; done
}

restore_node() {
    start_node "$1"
    scontrol update nodename="$1" state=resume
    until_true both_idle
}

# submit NAME [OPTION OF SBATCH...] -- ARGUMENTS OF THE SCRIPT...: the log is log.NAME, the number $job.
submit() {
    local name=$1 options=()
    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    job=$(sbatch --parsable --output="log.$name" "${options[@]}" "$script" "${@:2}")
}
field() { scontrol -o show job "$job" | tr ' ' '\n' | sed -n "s/^$1=//p"; }
state() { field JobState; }
in_state() { [[ $(state) =~ ^($1)$ ]]; }
ended() { in_state 'COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL|DEADLINE|OUT_OF_MEMORY|BOOT_FAIL'; }

# start_again N: waits until the job was put back into the queue for the Nth time, and lets it start then;
# by itself it would wait for two minutes. A node takes no start of a job within the second in which it has
# ended the last one.
put_back() { [ "$(state)" = PENDING ] && [ "$(field Restarts)" = "$1" ]; }
start_again() {
    until_true put_back "$1"
    sleep 2
    scontrol update job="$job" StartTime=now
}
