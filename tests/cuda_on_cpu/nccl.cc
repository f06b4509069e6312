/*
 * The stand-in for NCCL: messages go by MPI, when the stream gets there. As there, a call that does
 * not block says at first that it is in progress, and a group is one piece of work.
 *
 * CUDA_ON_CPU_NCCL="stop 1 40" makes a fault: rank 1 stops in its 40th piece of work, as if its
 * node had; "fail 1 40": from there on its communicator reports an error, and nothing gets through.
 */
#include "checker.h"
#include "executor.h"

#include <mpi.h>
#include <nccl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

struct cuda_on_cpu_nccl {
    MPI_Comm comm;
    int rank, size;
    int n_settled; /* look-ups of the state until a call is no longer in progress */
    int n_work;
    bool broken;
};

namespace
{

struct message_t {
    ncclComm_t comm;
    cudaStream_t stream;
    void *data;
    size_t n;
    int peer;
    bool send;
};

thread_local int depth;
thread_local std::vector<message_t> group;

/* The fault of the environment, if this is its rank and its time. */
void meet_fault(ncclComm_t comm)
{
    char kind[8] = "";
    int rank = -1, at = 0;
    const char *fault = getenv("CUDA_ON_CPU_NCCL");
    comm->n_work++;
    if (fault == NULL || sscanf(fault, "%7s %d %d", kind, &rank, &at) != 3 || rank != comm->rank ||
        at != comm->n_work)
        return;
    if (strcmp(kind, "stop") == 0)
        raise(SIGSTOP);
    comm->broken = strcmp(kind, "fail") == 0;
    while (comm->broken)
        cuda_on_cpu::pause_host();
}

/* The host can be asked of other things meanwhile: on a card it is not there at all. */
void wait_for(std::vector<MPI_Request> *request)
{
    for (;;) {
        int done;
        MPI_Testall((int)request->size(), request->data(), &done, MPI_STATUSES_IGNORE);
        if (done)
            return;
        cuda_on_cpu::pause_host();
    }
}

void exchange(const std::vector<message_t> &all)
{
    meet_fault(all[0].comm);
    std::vector<MPI_Request> request(all.size());
    for (size_t i = 0; i < all.size(); i++) {
        const message_t &m = all[i];
        cuda_on_cpu::checker_range(m.data, m.n * sizeof(float), !m.send);
        if (m.send)
            MPI_Isend(m.data, (int)m.n, MPI_FLOAT, m.peer, 0, m.comm->comm, &request[i]);
        else
            MPI_Irecv(m.data, (int)m.n, MPI_FLOAT, m.peer, 0, m.comm->comm, &request[i]);
    }
    wait_for(&request);
}

ncclResult_t add(const message_t &m)
{
    if (m.peer < 0 || m.peer >= m.comm->size || m.n == 0)
        return ncclInvalidArgument;
    group.push_back(m);
    if (depth == 0)
        return ncclInvalidUsage; /* alone a send would wait for its receiver */
    return ncclSuccess;
}

} // namespace

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    memset(id, 0x5a, sizeof *id);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    int n, me;
    for (char c : id.internal)
        if (c != 0x5a)
            return ncclInvalidArgument;
    MPI_Comm_size(MPI_COMM_WORLD, &n);
    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    if (n != size || me != rank || config->blocking != 0)
        return ncclInvalidUsage;
    *comm = new cuda_on_cpu_nccl();
    (*comm)->rank = rank;
    (*comm)->size = size;
    (*comm)->n_settled = 3;
    MPI_Comm_dup(MPI_COMM_WORLD, &(*comm)->comm);
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    *error = comm->broken ? ncclRemoteError : comm->n_settled-- > 0 ? ncclInProgress : ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    MPI_Comm_free(&comm->comm);
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void)
{
    depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (depth == 0)
        return ncclInvalidUsage;
    if (--depth > 0 || group.empty())
        return ncclSuccess;
    const std::vector<message_t> all = group;
    group.clear();
    all[0].comm->n_settled = 1;
    cuda_on_cpu::put_task(
        "ncclGroupEnd", all[0].stream, [all] { exchange(all); }, true);
    return ncclInProgress;
}

ncclResult_t ncclSend(const void *from, size_t n, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add({comm, stream, const_cast<void *>(from), n, peer, true});
}

ncclResult_t ncclRecv(void *to, size_t n, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add({comm, stream, to, n, peer, false});
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t, ncclRedOp_t,
                           ncclComm_t comm, cudaStream_t stream)
{
    comm->n_settled = 1;
    cuda_on_cpu::put_task(
        "ncclAllReduce", stream,
        [=] {
            cuda_on_cpu::checker_range(from, n * sizeof(float), false);
            cuda_on_cpu::checker_range(to, n * sizeof(float), true);
            std::vector<MPI_Request> request(1);
            meet_fault(comm);
            MPI_Iallreduce(from == to ? MPI_IN_PLACE : from, to, (int)n, MPI_FLOAT, MPI_SUM,
                           comm->comm, &request[0]);
            wait_for(&request);
        },
        true);
    return ncclInProgress;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const text[] = {"no error",
                                       "unhandled cuda error",
                                       "unhandled system error",
                                       "internal error",
                                       "invalid argument",
                                       "invalid usage",
                                       "remote process exited or there was a network error",
                                       "NCCL operation in progress"};
    return text[result];
}
