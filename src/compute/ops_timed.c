/* The op table that measures: each op of the device's own table, with its time. */
#include "base/mem.h"
#include "base/timer.h"
#include "compute/ops_list.h"

/* Ops that return at once only queue work: they are waited for, so that the time is theirs. */
#define TIMED(slot, ...)                                                      \
    static qp_error_t slot(qp_queue_t *q QP_EACH(QP_PARAMETER, __VA_ARGS__))  \
    {                                                                         \
        qp_device_t *device = q->device;                                      \
        const double start = qp_time();                                       \
        QP_TRY(device->timed_ops->slot(q QP_EACH(QP_ARGUMENT, __VA_ARGS__))); \
        QP_TRY(device->timed_ops->synchronize(q));                            \
        qp_timers_add(&device->timers, #slot, qp_time() - start);             \
        return NULL;                                                          \
    }

QP_QUEUE_OPS(TIMED)
TIMED(copy, (qp_dptr_t, to), (qp_dptr_t, from), (size_t, bytes))
TIMED(zero, (qp_dptr_t, p), (size_t, bytes))
TIMED(upload, (qp_dptr_t, to), (const void *, from), (size_t, bytes))
TIMED(upload_async, (qp_dptr_t, to), (const void *, from), (size_t, bytes))
TIMED(download, (void *, to), (qp_dptr_t, from), (size_t, bytes))
TIMED(download_async, (void *, to), (qp_dptr_t, from), (size_t, bytes))
TIMED(sum_squares, (qp_dptr_t, x), (int64_t, n), (double *, out))

/* All slots: those above, and those that take no time worth telling. */
enum { N_OTHER = 20 };
#define COUNT(slot, ...) +1
_Static_assert(sizeof(qp_ops_t) / sizeof(void *) ==
                   (0 QP_QUEUE_OPS(COUNT)) + 7 + N_OTHER + 1 /* name */,
               "an op is missing in QP_QUEUE_OPS, or here");

void qp_device_time_ops(qp_device_t *device)
{
    QP_ASSERT(device->timed_ops == NULL);
    qp_ops_t *table = QP_NEW("device", qp_ops_t, 1);
    *table = *device->ops;
#define PUT(slot, ...) table->slot = slot;
    QP_QUEUE_OPS(PUT)
    table->copy = copy;
    table->zero = zero;
    table->upload = upload;
    table->upload_async = upload_async;
    table->download = download;
    table->download_async = download_async;
    table->sum_squares = sum_squares;
    device->timed_ops = device->ops;
    device->ops = table;
}
