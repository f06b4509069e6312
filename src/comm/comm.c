/* Start and end of MPI, who is where, and agreed decisions. */
#include "comm/comm.h"

#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "comm/comm_impl.h"
#include "comm/launch.h"

/* A node counts by its lowest world rank. */
static qp_error_t count_nodes(qp_comm_t *comm)
{
    int leader = comm->rank;
    QP_TRY(QP_MPI(MPI_Bcast(&leader, 1, MPI_INT, 0, comm->node)));
    int *leaders = QP_NEW("comm", int, comm->size);
    qp_error_t error = QP_MPI(MPI_Allgather(&leader, 1, MPI_INT, leaders, 1, MPI_INT, comm->world));
    for (int r = 0; r < comm->size && error == NULL; r++)
        comm->n_node += leaders[r] == r;
    qp_free(leaders);
    return error;
}

/* Of several tasks only one says what is wrong. */
static qp_error_t refuse_as(const qp_launch_t *launch, qp_error_t error)
{
    if (error != NULL)
        qp_log_init(qp_log_level(), (int)launch->rank);
    return error;
}

static bool is_alone(const qp_launch_t *launch)
{
    /* A PMIx launcher need not say how many it has started. */
    return launch->by != NULL ? launch->size == 1 : qp_env("PMIX_RANK") == NULL;
}

static qp_error_t init_mpi(int *provided)
{
    const qp_launch_t launch = qp_launch_read();
    const bool alone = is_alone(&launch);
    qp_str_t hidden = {0};
    int size = 1;
    QP_TRY(refuse_as(&launch, qp_launch_check(&launch)));
    if (alone)
        qp_launch_hide(&hidden);
    qp_error_t error = QP_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, provided));
    qp_launch_restore(&hidden);
    QP_TRY(error);
    QP_TRY(QP_MPI(MPI_Comm_size(MPI_COMM_WORLD, &size)));
    return refuse_as(&launch, qp_launch_check_size(&launch, size));
}

static qp_error_t start_mpi(bool *started)
{
    int initialized = 0, provided = 0;
    QP_TRY(QP_MPI(MPI_Initialized(&initialized)));
    *started = !initialized;
    if (initialized)
        QP_TRY(QP_MPI(MPI_Query_thread(&provided)));
    else
        QP_TRY(init_mpi(&provided));
    if (provided < MPI_THREAD_MULTIPLE)
        return QP_ERROR(QP_INTERNAL,
                        "this MPI library gives thread level %d, Quipu needs "
                        "MPI_THREAD_MULTIPLE (%d)",
                        provided, MPI_THREAD_MULTIPLE);
    return NULL;
}

static qp_error_t split(qp_comm_t *comm)
{
    QP_TRY(QP_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &comm->world)));
    QP_TRY(QP_MPI(MPI_Comm_set_errhandler(comm->world, MPI_ERRORS_RETURN)));
    QP_TRY(QP_MPI(MPI_Comm_rank(comm->world, &comm->rank)));
    QP_TRY(QP_MPI(MPI_Comm_size(comm->world, &comm->size)));
    QP_TRY(QP_MPI(MPI_Comm_split_type(comm->world, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL,
                                      &comm->node)));
    QP_TRY(QP_MPI(MPI_Comm_set_errhandler(comm->node, MPI_ERRORS_RETURN)));
    QP_TRY(QP_MPI(MPI_Comm_rank(comm->node, &comm->node_rank)));
    QP_TRY(QP_MPI(MPI_Comm_size(comm->node, &comm->node_size)));
    return count_nodes(comm);
}

qp_error_t qp_comm_create(qp_comm_t **out)
{
    qp_comm_t *comm = QP_NEW("comm", qp_comm_t, 1);
    comm->world = comm->node = MPI_COMM_NULL;
    qp_error_t error = start_mpi(&comm->finalize);
    if (error == NULL)
        error = split(comm);
    if (error != NULL) {
        qp_free(comm);
        return error;
    }
    qp_tree_init(&comm->tree, comm->world, false);
    qp_log_init(qp_log_level(), comm->rank);
    *out = comm;
    return NULL;
}

void qp_comm_destroy(qp_comm_t **comm)
{
    if (*comm == NULL)
        return;
    qp_tree_fini(&(*comm)->tree);
    QP_MPI_MUST(MPI_Comm_free(&(*comm)->node));
    QP_MPI_MUST(MPI_Comm_free(&(*comm)->world));
    if ((*comm)->finalize)
        QP_MPI_MUST(MPI_Finalize());
    QP_FREE(*comm);
}

void qp_comm_abort(qp_comm_t *comm, int code)
{
    fflush(NULL);
    MPI_Abort(comm ? comm->world : MPI_COMM_WORLD, code);
    __builtin_unreachable();
}

int qp_comm_rank(const qp_comm_t *comm)
{
    return comm->rank;
}

int qp_comm_size(const qp_comm_t *comm)
{
    return comm->size;
}

int qp_comm_node_rank(const qp_comm_t *comm)
{
    return comm->node_rank;
}

int qp_comm_node_size(const qp_comm_t *comm)
{
    return comm->node_size;
}

int qp_comm_n_node(const qp_comm_t *comm)
{
    return comm->n_node;
}

const void *qp_comm_mpi(const qp_comm_t *comm)
{
    return &comm->world;
}

/* The message as the other ranks should read it: who failed, and where in the code if it is a bug.
 */
static char *message_of(const qp_comm_t *comm, const qp_error_t error)
{
    const char *text = error->message ? error->message : "out of memory";
    char *place = error->code == QP_INTERNAL ? qp_format(" (at %s:%d)", error->file, error->line)
                                             : qp_strdup("");
    char *message = comm->rank > 0 ? qp_format("rank %d: %s%s", comm->rank, text, place)
                                   : qp_format("%s%s", text, place);
    qp_free(place);
    return message;
}

qp_error_t qp_comm_agree(qp_comm_t *comm, qp_error_t local)
{
    if (comm->size == 1)
        return local;
    int first = local != NULL ? comm->rank : comm->size;
    QP_MPI_MUST(MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, comm->world));
    if (first == comm->size)
        return NULL;
    int64_t code = 0;
    void *message = NULL;
    size_t n_bytes = 0;
    if (local != NULL && first == comm->rank) {
        code = (int64_t)local->code;
        message = message_of(comm, local);
        n_bytes = strlen(message) + 1;
    }
    qp_comm_bcast(comm, &code, 1, QP_I64, first);
    qp_comm_bcast_block(comm, &message, &n_bytes, first);
    qp_error_destroy(&local);
    qp_error_t agreed = QP_ERROR((qp_code_t)code, "%s", (const char *)message);
    qp_free(message);
    return agreed;
}

uint64_t qp_comm_agree_bits(qp_comm_t *comm, uint64_t bits)
{
    QP_MPI_MUST(MPI_Allreduce(MPI_IN_PLACE, &bits, 1, MPI_UINT64_T, MPI_BOR, comm->world));
    return bits;
}
