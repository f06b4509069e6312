# A job of PBS, as its user asked for it, once more; sourced by quipu.pbs.
#
# A job cannot go back into the queue by itself: qrerun is for managers and operators, and no exit code
# means "again". So requeue submits a new job with the options that qstat -f says the old one has had, and
# with its variables. Values that qsub's -v takes differently from version to version (with commas,
# quotes, backslashes, line ends) go in hexadecimal, as QUIPU_HEX_NAME.
# Of quipu.pbs it uses deck, started, script and deleted.
# shellcheck shell=bash disable=SC2154

# read_job: sets job to what qstat -f says, one line for an attribute: PBS folds long ones, and values may
# have line ends of their own.
read_job() {
    local text
    text=$(qstat -f "$PBS_JOBID") || return
    job=$(awk '/^    [A-Za-z0-9_.-]+ = / { printf "\n%s", $0; next }
               { sub(/^\t/, ""); printf "%s", $0 }' <<<"$text")
}

# attribute NAME: its value, empty without any.
attribute() { sed -n "/^    $1 = /{s///p;q}" <<<"$job"; }

# The time that the job may take and when it began, in seconds. PBS's clock is believed where it agrees
# with the one here.
seconds_of() { awk -F: '{ for (i = 1; i <= NF; i++) s = 60 * s + $i } END { print s + 0 }' <<<"$1"; }
began() {
    local time
    time=$(date -d "$(attribute stime)" +%s 2>/dev/null) || time=0
    if [ "$time" -gt "$started" ] || [ "$time" -lt "$((started - 600))" ]; then time=$started; fi
    echo "$time"
}

# Sets job_end, empty where there is no limit, and PBS_WALLTIME to what is left now. A limit that comes
# with the job (TORQUE's PBS_WALLTIME) counts, too.
own_walltime=${PBS_WALLTIME:-}
set_walltime() {
    local limit
    read_job || true
    limit=${own_walltime:-$(attribute Resource_List.walltime)}
    job_end=''
    unset PBS_WALLTIME
    if [ -n "$limit" ]; then
        job_end=$(($(began) + $(seconds_of "$limit")))
        PBS_WALLTIME=$(seconds_left)
        if [ "$PBS_WALLTIME" -le 0 ]; then PBS_WALLTIME=1; fi
        export PBS_WALLTIME
    fi
}
seconds_left() { echo "$((${job_end:-9999999999} - $(date +%s)))"; }

# Variables of the job: qsub's own (PBS_*) are made anew.
restore_variables() {
    local name value
    for name in "${!QUIPU_HEX_@}"; do
        printf -v value %b "$(sed 's/../\\x&/g' <<<"${!name}")"
        export "${name#QUIPU_HEX_}=$value"
        unset "$name"
    done
}
# add_variable NAME VALUE: to variables, the argument of -v.
add_variable() {
    local name=$1 value=$2
    if [[ $value == *[,\'\"\\[:cntrl:]]* ]]; then
        name=QUIPU_HEX_$name
        value=$(printf %s "$value" | od -An -v -tx1 | tr -d ' \n')
    fi
    variables+=${variables:+,}$name=$value
}
find_variables() {
    local name list
    list=,$(attribute Variable_List)
    variables=''
    while read -r name; do
        case $name in
        PBS_* | DECK | QUIPU_REQUEUED) continue ;;
        esac
        case $list in
        *",$name="* | *",QUIPU_HEX_$name="*) add_variable "$name" "${!name}" ;;
        esac
    done < <(compgen -e)
    add_variable DECK "$deck"
    add_variable QUIPU_REQUEUED "$((${QUIPU_REQUEUED:-0} + 1))"
}

# Sets resources, NAME=VALUE each. Of a select the server adds up the chunks and shows the sums, which nobody
# may ask for beside it.
find_resources() {
    local name value select nodes shrinks
    select=$(attribute Resource_List.select)
    nodes=$(attribute Resource_List.nodes)
    shrinks=$(attribute Resource_List.min_walltime)
    resources=()
    while IFS='=' read -r name value; do
        case $name in
        nodect | neednodes | nchunk | ncpus | mem | vmem | mpiprocs | ompthreads | ngpus | naccelerators) continue ;;
        select | place) if [ -n "$nodes" ]; then continue; fi ;;
        walltime) if [ -n "$shrinks" ]; then continue; fi ;;
        *) if [[ $select == *:$name=* ]]; then continue; fi ;;
        esac
        if [[ $value == *,* ]]; then value=\"$value\"; fi
        resources+=("$name=$value")
    done < <(sed -n 's/^    Resource_List\.\([^ ]*\) = /\1=/p' <<<"$job")
}

# drop_resource MESSAGE: leaves out the resource that qsub refuses by name. A queue or a hook of the site has
# set it then.
drop_resource() {
    local name one kept=()
    if [[ ! $1 =~ Resource_List\.([A-Za-z0-9_-]+) ]]; then return 1; fi
    name=${BASH_REMATCH[1]}
    for one in "${resources[@]}"; do
        case $one in
        select=* | nodes=* | place=* | walltime=*) kept+=("$one") ;;
        "$name="*) ;;
        *) kept+=("$one") ;;
        esac
    done
    if [ ${#kept[@]} -eq ${#resources[@]} ]; then return 1; fi
    resources=("${kept[@]}")
    echo "job: once more without the resource $name" >&2
}

# The option of qsub for an attribute. What is left out is what PBS says where nobody asked.
attributes='Job_Name -N|Account_Name -A|project -P|Priority -p|Join_Path -j|Keep_Files -k|Remove_Files -R
Mail_Points -m|Mail_Users -M|Shell_Path_List -S|User_List -u|Checkpoint -c
group_list -W|umask -W|sandbox -W|stagein -W|stageout -W|tolerate_node_failures -W'
find_options() {
    local name option value index=${PBS_ARRAY_INDEX:-}
    asked=()
    while read -r name option; do
        value=$(attribute "$name")
        case $name=$value in
        *= | project=_pbs_project_default | Priority=0 | Checkpoint=u) continue ;;
        esac
        if [ "$option" = -W ]; then value=$name=$value; fi
        asked+=("$option" "$value")
    done < <(tr '|' '\n' <<<"$attributes")
    add_path -o Output_Path o
    add_path -e Error_Path e
    case $(attribute Rerunable) in
    False) asked+=(-r n) ;;
    *) asked+=(-r y) ;;
    esac
    asked+=(-q "${PBS_O_QUEUE:-$(attribute queue)}") # the one that was asked for, which may route
    if [ -n "$index" ]; then
        asked+=(-J "$index-$((index + 1)):2") # an array of this number alone; no job depends on a part of one
    else
        asked+=(-W "depend=afterany:$PBS_JOBID")
    fi
}
# add_path OPTION ATTRIBUTE LETTER: a file of the job's output, unless its name is PBS's own.
add_path() {
    local path own
    path=$(attribute "$2")
    own=$(attribute Job_Name).$3${PBS_JOBID%%[^0-9]*}
    case $path in
    '' | */"$own" | */"$own.^array_index^") ;;
    *) asked+=("$1" "$path") ;;
    esac
}

# submit: qsub; sets id, that of the new job.
submit() {
    local said one list
    while true; do
        list=()
        for one in "${resources[@]}"; do list+=(-l "$one"); done
        if said=$(cd "$PBS_O_WORKDIR" && qsub "${asked[@]}" "${list[@]}" -v "$variables" "$script" 2>&1); then
            break
        fi
        echo "$said" >&2
        if "$deleted"; then exit 10; fi
        drop_resource "$said" || return
    done
    id=$(grep -E '^[0-9]' <<<"$said" | tail -n 1)
}

requeue() {
    local id refused=''
    if "$deleted"; then
        refused="deleted, or started again by PBS"
    elif [ "${PBS_ENVIRONMENT:-}" = PBS_INTERACTIVE ]; then
        refused=interactive
    elif ! read_job && [ -z "$job" ]; then
        refused="qstat does not say what was asked for"
    fi
    if [ -n "$refused" ]; then
        echo "job: $refused: not put back into the queue" >&2
        exit 10
    fi
    find_options
    find_resources
    find_variables
    submit || { sleep 20 && submit; } # the server may be away for a moment
    echo "job: put back into the queue as $id"
    if "$deleted"; then qdel "$id"; fi # while it was submitted
}
job='' job_end=''
