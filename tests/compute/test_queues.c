/* QP_TEST: check=0,1,2
 * Queues of a device: one waits for another by events alone, the host for what it asks for; memory
 * that a copy still reads is not written over. */
#include "cpu_testing.h"

enum { N = 3000, N_ROUND = 20 };

typedef struct {
    qp_device_t *device;
    qp_queue_t *first, *second;
    qp_event_t *made, *read;
    qp_dptr_t a, b;
    float *from, *to; /* pinned */
} queues_t;

/* A number comes by the first queue and is doubled there; the second one adds to it and sends it
 * back, after the first one's event; the first one goes on after the second one's. */
static void go_round(const queues_t *s, int round)
{
    const qp_ops_t *ops = s->device->ops;
    const qp_mat_t a = qp_mat(s->a, QP_F32, 1, N), b = qp_mat(s->b, QP_F32, 1, N);
    for (int i = 0; i < N; i++)
        s->from[i] = (float)(round * N + i);
    CHECK_OK(ops->upload_async(s->first, s->a, s->from, N * sizeof(float)));
    CHECK_OK(ops->axpby(s->first, 2.0f, a, 0.0f, b));
    CHECK_OK(ops->event_record(s->first, s->made));
    CHECK_OK(ops->event_wait(s->second, s->made));
    CHECK_OK(ops->axpby(s->second, 1.0f, a, 1.0f, b));
    CHECK_OK(ops->download_async(s->second, s->to, s->b, N * sizeof(float)));
    CHECK_OK(ops->event_record(s->second, s->read));
    CHECK_OK(ops->event_wait(s->first, s->read));
    CHECK_OK(ops->zero(s->first, s->b, N * sizeof(float)));
    CHECK_OK(ops->event_synchronize(s->read));
    int n_wrong = 0;
    for (int i = 0; i < N; i++)
        n_wrong += s->to[i] != 3.0f * (float)(round * N + i);
    CHECK_MSG(n_wrong == 0, "round %d: %d numbers are wrong", round, n_wrong);
}

static void test_events(qp_device_t *device)
{
    const qp_ops_t *ops = device->ops;
    queues_t s = {.device = device, .first = qp_device_queue(device)};
    void *from = NULL, *to = NULL;
    CHECK_OK(ops->queue_create(device, &s.second));
    CHECK_OK(ops->event_create(device, &s.made));
    CHECK_OK(ops->event_create(device, &s.read));
    CHECK_OK(ops->alloc(device, "test", N * sizeof(float), &s.a));
    CHECK_OK(ops->alloc(device, "test", N * sizeof(float), &s.b));
    CHECK_OK(ops->host_alloc(device, "test", N * sizeof(float), &from));
    CHECK_OK(ops->host_alloc(device, "test", N * sizeof(float), &to));
    s.from = from;
    s.to = to;
    CHECK_OK(ops->event_synchronize(s.read)); /* it was never recorded */
    for (int round = 0; round < N_ROUND; round++)
        go_round(&s, round);
    CHECK_OK(ops->synchronize(s.first));
    ops->event_destroy(&s.made);
    ops->event_destroy(&s.read);
    ops->queue_destroy(&s.second);
    ops->release(device, &s.a);
    ops->release(device, &s.b);
    ops->host_release(device, from);
    ops->host_release(device, to);
}

/* What is uploaded may be written over at once, piece after piece, and long ones come whole. */
static void test_uploads(qp_device_t *device)
{
    enum { LONG = 700001, PIECE = 1000, N_PIECE = LONG / PIECE };
    qp_queue_t *q = qp_device_queue(device);
    float *host = QP_NEW("test", float, LONG), piece[PIECE];
    qp_dptr_t p = {0};
    int64_t n_wrong = 0;
    CHECK_OK(device->ops->alloc(device, "test", LONG * sizeof(float), &p));
    for (int i = 0; i < LONG; i++)
        host[i] = (float)i;
    CHECK_OK(device->ops->upload(q, p, host, LONG * sizeof(float)));
    for (int i = 0; i < N_PIECE; i += 2) {
        for (int j = 0; j < PIECE; j++)
            piece[j] = -(float)(i * PIECE + j);
        CHECK_OK(device->ops->upload(q, qp_dptr_at(p, (size_t)(i * PIECE) * sizeof(float)), piece,
                                     sizeof piece));
    }
    CHECK_OK(device->ops->download(q, host, p, LONG * sizeof(float)));
    for (int i = 0; i < LONG; i++)
        n_wrong += host[i] != (i / PIECE % 2 == 0 && i / PIECE < N_PIECE ? -(float)i : (float)i);
    CHECK_MSG(n_wrong == 0, "%lld numbers are wrong", (long long)n_wrong);
    device->ops->release(device, &p);
    qp_free(host);
}

int main(void)
{
    qp_device_t *device = open_device(1);
    test_events(device);
    test_uploads(device);
    qp_device_close(&device);
    return qp_test_end();
}
