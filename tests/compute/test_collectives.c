/* QP_TEST: ranks=1,2,3,4 check=0,1,2
 * Sums over ranks of device memory, in the background of the queue that makes and uses them. */
#include <string.h>

#include "base/mem.h"
#include "compute/collectives.h"
#include "testing.h"

enum { N = 50000, N_SEGMENT = 100, SEGMENT = N / N_SEGMENT, N_STEP = 3 };

static float value_of(int rank, int step, int64_t i)
{
    return (float)((i * 7919 + rank * 104729 + step * 31) % 1000) / 17.0f + (float)rank * 1e3f;
}

/* Segment by segment: values come, are doubled on the device, summed, and halved behind the wait.
 * The bits are those of the sum in the foreground. */
static void test_background_sum(qp_comm_t *comm, qp_device_t *device)
{
    const qp_ops_t *ops = device->ops;
    qp_queue_t *q = qp_device_queue(device);
    float *here = QP_NEW("test", float, N), *from = QP_NEW("test", float, N),
          *to = QP_NEW("test", float, N);
    qp_collectives_t *c = NULL;
    qp_dptr_t p = {0};
    CHECK_OK(ops->alloc(device, "test", N * sizeof(float), &p));
    if (CHECK_OK(qp_comm_agree(comm, qp_collectives_create(comm, device, N, &c)))) {
        CHECK_OK(c->ops->sum_wait(c, q)); /* nothing begun */
        for (int step = 0; step < N_STEP; step++) {
            for (int64_t i = 0; i < N; i++) {
                from[i] = value_of(qp_comm_rank(comm), step, i);
                here[i] = 2.0f * from[i];
            }
            for (int64_t s = N_SEGMENT - 1; s >= 0; s--) {
                const qp_dptr_t at = qp_dptr_at(p, (size_t)(s * SEGMENT) * sizeof(float));
                const qp_mat_t m = qp_mat(at, QP_F32, 1, SEGMENT);
                CHECK_OK(ops->upload(q, at, from + s * SEGMENT, SEGMENT * sizeof(float)));
                CHECK_OK(ops->axpby(q, 2.0f, m, 0.0f, m));
                c->ops->sum_begin(c, q, at, SEGMENT);
            }
            qp_tree_sum_f32(comm, here, N); /* both at once: two communicators */
            CHECK_OK(c->ops->sum_wait(c, q));
            const qp_mat_t all = qp_mat(p, QP_F32, 1, N);
            CHECK_OK(ops->axpby(q, 0.5f, all, 0.0f, all));
            CHECK_OK(ops->download(q, to, p, N * sizeof(float)));
            for (int64_t i = 0; i < N; i++)
                here[i] *= 0.5f;
            CHECK(memcmp(here, to, N * sizeof *here) == 0);
        }
        c->ops->sum_begin(c, q, p, N); /* destroy finishes what was begun */
    }
    qp_collectives_destroy(&c);
    CHECK(c == NULL);
    ops->release(device, &p);
    qp_free(here);
    qp_free(from);
    qp_free(to);
}

/* Ways of GPUs are refused by others. */
static void test_refused(qp_comm_t *comm, qp_device_t *device)
{
    qp_collectives_t *c = NULL;
    for (int way = QP_ALLREDUCE_TREE; way <= QP_ALLREDUCE_NCCL; way++) {
        device->config.allreduce = way;
        CHECK_FAILS(qp_collectives_create(comm, device, N, &c), QP_INPUT, "are ways of GPUs");
        CHECK(c == NULL);
    }
}

int main(void)
{
    const qp_device_config_t config = {
        .backend = QP_BACKEND_AUTO, .compute = QP_COMPUTE_FP32, .threads = 1};
    qp_comm_t *comm = NULL;
    qp_device_t *device = NULL;
    CHECK_OK(qp_comm_create(&comm));
    CHECK_OK(qp_device_open(&config, qp_comm_node_rank(comm), qp_comm_node_size(comm), &device));
    test_background_sum(comm, device);
    device->config.allreduce = QP_ALLREDUCE_MPI;
    test_background_sum(comm, device);
    if (device->collectives == NULL) {
        test_refused(comm, device);
    } else if (qp_comm_size(comm) <= 2) { /* of two addends there is one order */
        device->config.allreduce = QP_ALLREDUCE_NCCL;
        test_background_sum(comm, device);
    }
    qp_device_close(&device);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
