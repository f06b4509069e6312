#include "train/micro/accumulate.h"

#include <string.h>

#include "base/mem.h"
#include "compute/collectives.h"

enum { MAX_DEPTH = 64 };

struct qp_accumulator {
    qp_comm_t *comm;
    qp_adapter_t *adapter;
    qp_collectives_t *collectives; /* NULL on one rank */
    int n_saved_max;
    int n_saved; /* partial sums on the stack now */
    qp_dptr_t saved[MAX_DEPTH];
    int64_t next_layer; /* layers above it are already on their way to the other ranks */
    qp_error_t error;   /* of the layers' own work, which has nobody to return it to */
};

/* Partial sums that may wait while the last leaf is computed. */
static int saved_max(int n_rank, int64_t n_leaf)
{
    int64_t most = 0;
    for (int rank = 0; rank < n_rank; rank++) {
        int64_t first, end;
        qp_tree_range(n_leaf, n_rank, rank, &first, &end);
        most = end - first > most ? end - first : most;
    }
    return qp_tree_depth(most);
}

size_t qp_accumulator_bytes(const qp_device_t *device, int n_rank, int64_t n_leaf, int64_t n_param)
{
    const size_t sums = n_rank > 1 ? qp_collectives_bytes(device, n_rank, n_param) : 0;
    return (size_t)saved_max(n_rank, n_leaf) * qp_budget_piece(qp_bytes(n_param, sizeof(float))) +
           sums;
}

size_t qp_accumulator_host_bytes(const qp_device_t *device, int n_rank, int64_t n_param)
{
    return n_rank > 1 ? qp_collectives_host_bytes(device, n_param) : 0;
}

qp_error_t qp_accumulator_create(qp_comm_t *comm, qp_adapter_t *adapter, int64_t n_leaf,
                                 qp_accumulator_t **accumulator)
{
    qp_accumulator_t *a = QP_NEW("gradient sums", qp_accumulator_t, 1);
    qp_device_t *device = adapter->device;
    size_t bytes = qp_bytes(adapter->n_param, sizeof(float));
    qp_error_t error = NULL;
    a->comm = comm;
    a->adapter = adapter;
    a->n_saved_max = saved_max(qp_comm_size(comm), n_leaf);
    QP_ASSERT(a->n_saved_max <= MAX_DEPTH);
    for (int i = 0; i < a->n_saved_max && error == NULL; i++)
        error = device->ops->alloc(device, "gradient sums", bytes, &a->saved[i]);
    error = qp_comm_agree(comm, error);
    if (error == NULL && qp_comm_size(comm) > 1)
        error = qp_collectives_create(comm, device, adapter->n_param, &a->collectives);
    if (error != NULL)
        qp_accumulator_destroy(&a);
    *accumulator = a;
    return error;
}

void qp_accumulator_destroy(qp_accumulator_t **accumulator)
{
    qp_accumulator_t *a = *accumulator;
    if (a == NULL)
        return;
    qp_collectives_destroy(&a->collectives);
    for (int i = 0; i < a->n_saved_max; i++)
        a->adapter->device->ops->release(a->adapter->device, &a->saved[i]);
    QP_FREE(*accumulator);
}

/* Elements [first, first + n) of a flat fp32 array as a matrix of one row. */
static qp_mat_t slice(qp_dptr_t array, int64_t first, int64_t n)
{
    return qp_mat(qp_dptr_at(array, qp_bytes(first, sizeof(float))), QP_F32, 1, n);
}

/* gradient += the upper n_merge partial sums, over elements [first, first + n). */
static qp_error_t merge(qp_accumulator_t *a, int n_merge, int64_t first, int64_t n)
{
    qp_device_t *device = a->adapter->device;
    for (int i = 0; i < n_merge; i++)
        QP_TRY(device->ops->axpby(qp_device_queue(device), 1.0f,
                                  slice(a->saved[a->n_saved - 1 - i], first, n), 1.0f,
                                  slice(a->adapter->grad, first, n)));
    return NULL;
}

static void keep_first_error(qp_accumulator_t *a, qp_error_t error)
{
    if (a->error == NULL)
        a->error = error;
    else
        qp_error_destroy(&error);
}

/* Layer \a layer and those above it are final here: closes the local tree and sends them off. */
static void send_layers(void *owner, int64_t layer)
{
    qp_accumulator_t *a = owner;
    const int64_t *layer_first = a->adapter->layer_first;
    for (; a->next_layer >= layer; a->next_layer--) {
        int64_t first = layer_first[a->next_layer];
        int64_t n = layer_first[a->next_layer + 1] - first;
        if (n == 0)
            continue;
        keep_first_error(a, merge(a, a->n_saved, first, n));
        if (a->collectives != NULL)
            a->collectives->ops->sum_begin(a->collectives, qp_device_queue(a->adapter->device),
                                           slice(a->adapter->grad, first, n).data, n);
    }
}

static qp_error_t run_leaves(qp_accumulator_t *a, int64_t first, int64_t end, const qp_pass_t *pass,
                             qp_leaf_t leaf, void *owner)
{
    qp_adapter_t *adapter = a->adapter;
    const qp_ops_t *ops = adapter->device->ops;
    qp_queue_t *q = qp_device_queue(adapter->device);
    size_t bytes = qp_bytes(adapter->n_param, sizeof(float));
    qp_pass_t quiet = *pass, last = *pass;
    quiet.layer_done = NULL;
    last.layer_done = send_layers;
    last.owner = a;
    QP_TRY(ops->zero(q, adapter->grad, bytes));
    for (int64_t i = first; i < end; i++) {
        QP_TRY(leaf(owner, i - first, i + 1 < end ? &quiet : &last));
        if (i + 1 == end)
            break; /* its merges happen layer by layer in send_layers() */
        int n_merge = qp_tree_merges(first, end, i);
        QP_TRY(merge(a, n_merge, 0, adapter->n_param));
        a->n_saved -= n_merge;
        QP_ASSERT(a->n_saved < a->n_saved_max);
        QP_TRY(ops->copy(q, a->saved[a->n_saved++], adapter->grad, bytes));
        QP_TRY(ops->zero(q, adapter->grad, bytes));
    }
    return NULL;
}

qp_error_t qp_accumulate(qp_accumulator_t *a, int64_t n_leaf, const qp_pass_t *pass, qp_leaf_t leaf,
                         void *owner)
{
    const qp_adapter_t *adapter = a->adapter;
    int64_t first, end;
    qp_tree_range(n_leaf, qp_comm_size(a->comm), qp_comm_rank(a->comm), &first, &end);
    a->n_saved = 0;
    a->next_layer = adapter->n_layer; /* the scalar head's segment */
    keep_first_error(a, run_leaves(a, first, end, pass, leaf, owner));
    send_layers(a, 0);
    if (a->collectives != NULL)
        keep_first_error(
            a, a->collectives->ops->sum_wait(a->collectives, qp_device_queue(adapter->device)));
    qp_error_t error = a->error;
    a->error = NULL;
    return error;
}

void qp_leaf_values_init(qp_leaf_values_t *values, int64_t n_leaf, int64_t n_value)
{
    *values = (qp_leaf_values_t){n_leaf, n_value, QP_NEW("leaf values", double, n_leaf *n_value)};
}

void qp_leaf_values_fini(qp_leaf_values_t *values)
{
    QP_FREE(values->value);
}

void qp_leaf_values_clear(qp_leaf_values_t *values)
{
    memset(values->value, 0, qp_bytes(values->n_leaf * values->n_value, sizeof(double)));
}

double *qp_leaf_values_at(qp_leaf_values_t *values, int64_t leaf)
{
    QP_ASSERT(leaf >= 0 && leaf < values->n_leaf);
    return values->value + leaf * values->n_value;
}

void qp_leaf_values_total(qp_comm_t *comm, qp_leaf_values_t *values, double *total)
{
    /* Every value has one rank that knows it and zeros elsewhere: this sum is exact. */
    qp_tree_sum_f64(comm, values->value, values->n_leaf * values->n_value);
    for (int64_t k = 0; k < values->n_value; k++)
        total[k] = 0.0;
    for (int64_t leaf = 0; leaf < values->n_leaf; leaf++)
        for (int64_t k = 0; k < values->n_value; k++)
            total[k] += values->value[leaf * values->n_value + k];
}
