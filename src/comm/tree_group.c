/* The tree sum for a helper thread, on a communicator of its own. */
#include "base/mem.h"
#include "comm/comm_impl.h"

struct qp_tree_group {
    MPI_Comm comm;
    qp_tree_t tree;
};

qp_error_t qp_tree_group_create(qp_comm_t *comm, qp_tree_group_t **group)
{
    MPI_Comm duplicate;
    *group = NULL;
    QP_TRY(QP_MPI(MPI_Comm_dup(comm->world, &duplicate)));
    *group = QP_NEW("comm", qp_tree_group_t, 1);
    (*group)->comm = duplicate;
    qp_tree_init(&(*group)->tree, duplicate, true);
    return NULL;
}

void qp_tree_group_sum_f32(qp_tree_group_t *group, float *data, int64_t n)
{
    qp_tree_sum(&group->tree, data, n, QP_F32);
}

void qp_tree_group_destroy(qp_tree_group_t **group)
{
    if (*group == NULL)
        return;
    qp_tree_fini(&(*group)->tree);
    QP_MPI_MUST(MPI_Comm_free(&(*group)->comm));
    QP_FREE(*group);
}
