/* QP_TEST: ranks=1,2,3,4 check=0,1,2
 * The gradient of a global batch is the fixed binary tree over its micro-batches, whatever the rank
 * count. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "train/micro/accumulate.h"
#include "testing.h"

enum { N_LAYER = 3, N_PARAM = 1001 };

/* Layer 1 has no adapter; behind the layers stands a scalar head. */
static int64_t layer_first[N_LAYER + 2] = {0, 400, 400, 990, N_PARAM};

static float leaf_gradient(int64_t leaf, int64_t i)
{
    return sinf((float)(leaf * 7919 + i)) * powf(10.0f, (float)(leaf % 5));
}

/* The definition: left + right at every node. */
static float tree_sum(int64_t lo, int64_t hi, int64_t i)
{
    if (hi - lo == 1)
        return leaf_gradient(lo, i);
    int64_t split = qp_tree_split(lo, hi);
    return tree_sum(lo, split, i) + tree_sum(split, hi, i);
}

typedef struct {
    qp_adapter_t *adapter;
    int64_t first, fail_at;
    bool announces_layers;
} leaves_t;

/* Elements [from, from + n) of the gradient, to the device or from there. */
static qp_error_t move_gradient(const qp_adapter_t *adapter, int64_t from, int64_t n, bool up,
                                float *host)
{
    qp_queue_t *q = qp_device_queue(adapter->device);
    const qp_dptr_t at = qp_dptr_at(adapter->grad, qp_bytes(from, sizeof(float)));
    const size_t bytes = qp_bytes(n, sizeof(float));
    return up ? adapter->device->ops->upload(q, at, host, bytes)
              : adapter->device->ops->download(q, host, at, bytes);
}

static qp_error_t add_leaf(void *owner, int64_t i, const qp_pass_t *pass)
{
    leaves_t *leaves = owner;
    if (leaves->first + i == leaves->fail_at)
        return QP_ERROR(QP_INPUT, "leaf %lld fails", (long long)(leaves->first + i));
    for (int64_t layer = N_LAYER; layer >= 0; layer--) {
        const int64_t from = layer_first[layer], n = layer_first[layer + 1] - from;
        float grad[N_PARAM];
        QP_TRY(move_gradient(leaves->adapter, from, n, false, grad));
        for (int64_t k = 0; k < n; k++)
            grad[k] += leaf_gradient(leaves->first + i, from + k);
        QP_TRY(move_gradient(leaves->adapter, from, n, true, grad));
        if (pass->layer_done != NULL && leaves->announces_layers && layer < N_LAYER)
            pass->layer_done(pass->owner, layer);
    }
    return NULL;
}

static void check_sum(qp_comm_t *comm, const qp_adapter_t *adapter, int64_t n_leaf)
{
    float grad[N_PARAM];
    CHECK_OK(move_gradient(adapter, 0, N_PARAM, false, grad));
    int size = qp_comm_size(comm);
    bool same_tree = (size & (size - 1)) == 0;
    float magnitude = powf(10.0f, 4.0f) * (float)n_leaf;
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < N_PARAM; i++) {
        float expected = tree_sum(0, n_leaf, i);
        n_wrong += same_tree ? grad[i] != expected : fabsf(grad[i] - expected) > 1e-6f * magnitude;
    }
    CHECK_MSG(n_wrong == 0, "%lld elements of %lld leaves on %d ranks", (long long)n_wrong,
              (long long)n_leaf, size);
}

static void test_tree(qp_comm_t *comm, qp_adapter_t *adapter, int64_t n_leaf, bool announces_layers)
{
    qp_accumulator_t *accumulator = NULL;
    int64_t end;
    leaves_t leaves = {.adapter = adapter, .fail_at = -1, .announces_layers = announces_layers};
    const qp_pass_t pass = {.training = true};
    qp_tree_range(n_leaf, qp_comm_size(comm), qp_comm_rank(comm), &leaves.first, &end);
    if (!CHECK_OK(qp_accumulator_create(comm, adapter, n_leaf, &accumulator)))
        return;
    for (int step = 0; step < 2; step++) { /* twice: nothing is left over from the step before */
        CHECK_OK(qp_accumulate(accumulator, n_leaf, &pass, add_leaf, &leaves));
        check_sum(comm, adapter, n_leaf);
    }
    leaves.fail_at = n_leaf - 1;
    qp_error_t error = qp_accumulate(accumulator, n_leaf, &pass, add_leaf, &leaves);
    CHECK_FAILS(qp_comm_agree(comm, error), QP_INPUT, "fails");
    leaves.fail_at = -1;
    CHECK_OK(qp_accumulate(accumulator, n_leaf, &pass, add_leaf, &leaves));
    check_sum(comm, adapter, n_leaf);
    qp_accumulator_destroy(&accumulator);
}

static void test_values(qp_comm_t *comm)
{
    enum { N_LEAF = 5 };
    qp_leaf_values_t values;
    int64_t first, end;
    double total[2];
    qp_leaf_values_init(&values, N_LEAF, 2);
    qp_tree_range(N_LEAF, qp_comm_size(comm), qp_comm_rank(comm), &first, &end);
    for (int step = 0; step < 2; step++) {
        qp_leaf_values_clear(&values);
        for (int64_t leaf = first; leaf < end; leaf++) {
            qp_leaf_values_at(&values, leaf)[0] = 0.1 * (double)leaf;
            qp_leaf_values_at(&values, leaf)[1] = 1.0;
        }
        qp_leaf_values_total(comm, &values, total);
        CHECK(total[0] == 0.0 + 0.1 + 0.2 + 0.1 * 3.0 + 0.4);
        CHECK(total[1] == N_LEAF);
    }
    qp_leaf_values_fini(&values);
}

int main(void)
{
    qp_comm_t *comm = NULL;
    qp_device_t *device = NULL;
    const qp_device_config_t config = {
        .backend = QP_BACKEND_AUTO, .compute = QP_COMPUTE_FP32, .threads = 1};
    qp_lora_view_t view[] = {{.layer = 0}, {.layer = N_LAYER - 1}};
    CHECK_OK(qp_comm_create(&comm));
    CHECK_OK(qp_device_open(&config, qp_comm_node_rank(comm), qp_comm_node_size(comm), &device));
    qp_adapter_t adapter = {.n_layer = N_LAYER,
                            .n_param = N_PARAM,
                            .n_view = 2,
                            .view = view,
                            .layer_first = layer_first,
                            .device = device};
    CHECK_OK(device->ops->alloc(device, "test", N_PARAM * sizeof(float), &adapter.grad));
    const int64_t n_leaf[] = {1, 2, 3, 4, 7, 8, 13};
    for (size_t i = 0; i < sizeof n_leaf / sizeof n_leaf[0]; i++) {
        test_tree(comm, &adapter, n_leaf[i], true);
        test_tree(comm, &adapter, n_leaf[i], false);
    }
    test_values(comm);
    device->ops->release(device, &adapter.grad);
    qp_device_close(&device);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
