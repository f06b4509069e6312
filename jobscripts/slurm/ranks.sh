# How many ranks a job of Slurm starts and how many cores each of them gets; sourced by quipu.sbatch. By
# itself a step has one rank with one core on each node, however much the job was given.
# shellcheck shell=bash

# each LIST: the numbers of Slurm's short form, node by node: "8(x2),4" is 8 8 4.
each() {
    local part times
    for part in ${1//,/ }; do
        times=1
        if [[ $part =~ \(x([0-9]+)\) ]]; then times=${BASH_REMATCH[1]}; fi
        for (( ; times > 0; times--)); do echo "${part%%(*}"; done
    done
}

# least_share CPUS RANKS: the least number of CPUs for a rank, where both are such lists.
least_share() {
    paste -d ' ' <(each "$1") <(each "$2") |
        awk 'NR == 1 || $1 / $2 < least { least = $1 / $2 } END { print least < 1 ? 1 : int(least) }'
}

# Whether somebody has asked for a number of ranks. If not, Slurm says one for each node, and 65535.
ranks_are_asked_for() {
    local per
    for per in NODE SOCKET GPU CORE; do
        per=SLURM_NTASKS_PER_$per
        if [ "${!per:-65535}" -ne 65535 ]; then return 0; fi
    done
    [ "${SLURM_NTASKS:-$SLURM_JOB_NUM_NODES}" -ne "$SLURM_JOB_NUM_NODES" ]
}

# GPUs of a node that somebody has asked for, of all nodes in SLURM_GPUS (perhaps with their type) or of
# each. A job that has a node alone has all of its GPUs, but its steps see no others: so one says.
gpus_asked_for() {
    local on_node=${SLURM_GPUS_ON_NODE:-0} all=${SLURM_GPUS:-}
    all=${all##*:}
    if [ "$on_node" -eq 0 ]; then
        echo 0
    elif [ -n "$all" ]; then
        echo $((all < on_node ? all : on_node))
    else
        # shellcheck disable=SC2016
        srun --nodes=1 --ntasks=1 sh -c 'echo "${SLURM_GPUS_ON_NODE:-0}"'
    fi
}

# Sets cores_of_socket and cores_of_node, of the node on which the script runs. Where the job was not told
# to leave the threads of a core alone, Slurm counts these.
look_at_node() {
    local node threads=1
    node=$(scontrol -o show node "$SLURMD_NODENAME" | tr ' ' '\n')
    if [ "${SLURM_HINT:-}" != nomultithread ]; then threads=$(sed -n 's/^ThreadsPerCore=//p' <<<"$node"); fi
    cores_of_socket=$(($(sed -n 's/^CoresPerSocket=//p' <<<"$node") * threads))
    cores_of_node=$((cores_of_socket * $(sed -n 's/^Sockets=//p' <<<"$node")))
}

# Sets ranks, the options of srun.
find_ranks() {
    local cores gpus per_node per_rank=${SLURM_CPUS_PER_TASK:-}
    look_at_node
    if ranks_are_asked_for; then
        per_node=${SLURM_TASKS_PER_NODE}
        per_rank=${per_rank:-$(least_share "$SLURM_JOB_CPUS_PER_NODE" "$SLURM_TASKS_PER_NODE")}
        ranks=()
    else
        cores=$(each "$SLURM_JOB_CPUS_PER_NODE" | sort -n | head -n 1)
        gpus=$(gpus_asked_for)
        per_node=$(((cores + cores_of_socket - 1) / cores_of_socket))
        if [ -n "$per_rank" ]; then per_node=$((cores > per_rank ? cores / per_rank : 1)); fi
        if [ "$gpus" -gt 0 ]; then per_node=$gpus; fi
        per_rank=${per_rank:-$((cores > per_node ? cores / per_node : 1))}
        ranks=("--ntasks=$((SLURM_JOB_NUM_NODES * per_node))" "--ntasks-per-node=$per_node")
        if [ "$gpus" -gt 0 ] && [ -n "${SLURM_GPUS:-}" ]; then # in all, which may be fewer on some nodes
            ranks=("--ntasks=${SLURM_GPUS##*:}" --ntasks-per-gpu=1)
        fi
    fi
    ranks+=("--cpus-per-task=$per_rank")
    echo "job: ranks on a node: $per_node, cores of a rank: $per_rank"
    if [ "${SLURM_CPUS_ON_NODE:?}" -lt "$cores_of_node" ]; then
        echo "job: the job has $SLURM_CPUS_ON_NODE of the $cores_of_node cores of $SLURMD_NODENAME"
    fi
}
