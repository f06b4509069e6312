/* The op table: what an op is given is copied, its addresses are looked behind, and the CPU's op is
 * put into the queue. */
#include "base/minmax.h"
#include "compute/check/check.h"

/* --- what arguments point to, and the addresses in them --------------------------------------- */

static void see_bytes(qp_check_task_t *task, qp_dptr_t *p, size_t bytes)
{
    *p = qp_check_behind(task->device->memory, task->op, *p, bytes);
}

static void see_address(qp_check_task_t *task, qp_dptr_t *p)
{
    see_bytes(task, p, 0);
}

static void see_mat(qp_check_task_t *task, qp_mat_t *m)
{
    const int64_t n = m->n_row > 0 ? (m->n_row - 1) * m->ld + m->n_col : 0;
    see_bytes(task, &m->data, qp_bytes(n, qp_dtype_bytes(m->dtype)));
}

static void see_mask(qp_check_task_t *task, qp_mask_t *mask)
{
    see_address(task, &mask->bits);
}

static void use(int64_t *most, int64_t n)
{
    *most = qp_max_i64(*most, n);
}

static void see_input(qp_check_task_t *task, const qp_input_t **x)
{
    qp_input_t *copy = qp_check_keep(task, *x, sizeof **x);
    use(&task->used.n_token, copy->x.n_row);
    use(&task->used.widest, qp_input_n_col(copy));
    see_mat(task, &copy->x);
    see_address(task, &copy->weight);
    see_bytes(task, &copy->rstd, qp_bytes(copy->x.n_row, sizeof(float)));
    see_mat(task, &copy->dout);
    see_mat(task, &copy->copy);
    see_mask(task, &copy->mask);
    *x = copy;
}

static void see_weight(qp_check_task_t *task, const qp_weight_t **w)
{
    qp_weight_t *copy = qp_check_keep(task, *w, sizeof **w);
    see_bytes(task, &copy->storage, qp_cpu_weight_bytes(task->device->cpu, copy));
    *w = copy;
}

static void see_ragged(qp_check_task_t *task, const qp_ragged_t **batch)
{
    qp_ragged_t *copy = qp_check_keep(task, *batch, sizeof **batch);
    const size_t bytes = qp_bytes(copy->n_token, sizeof(int32_t));
    use(&task->used.n_token, copy->n_token);
    copy->cu_seqlens_host =
        qp_check_keep(task, copy->cu_seqlens_host, qp_bytes(copy->n_seq + 1, sizeof(int32_t)));
    see_bytes(task, &copy->cu_seqlens, qp_bytes(copy->n_seq + 1, sizeof(int32_t)));
    see_bytes(task, &copy->position, bytes);
    see_bytes(task, &copy->sample, bytes);
    *batch = copy;
}

static void see_layers(qp_check_task_t *task, const qp_kv_t **kv, int64_t n_layer)
{
    qp_kv_t *copy = qp_check_keep(task, *kv, qp_bytes(n_layer, sizeof **kv));
    for (int64_t l = 0; l < n_layer; l++) {
        see_mat(task, &copy[l].k);
        see_mat(task, &copy[l].v);
        see_mat(task, &copy[l].k_scale);
        see_mat(task, &copy[l].v_scale);
    }
    *kv = copy;
}

static void see_kv(qp_check_task_t *task, const qp_kv_t **kv)
{
    see_layers(task, kv, 1);
}

static void see_kv_copy(qp_check_task_t *task, const qp_kv_copy_t **copies)
{
    qp_kv_copy_t *copy = qp_check_keep(task, *copies, sizeof **copies);
    const size_t bytes = qp_bytes(copy->n_copy, sizeof *copy->rows);
    see_layers(task, &copy->layer, copy->n_layer);
    copy->rows = qp_check_keep(task, copy->rows, bytes);
    see_bytes(task, &copy->rows_device, bytes);
    *copies = copy;
}

/* The batch that comes with it says how many sequences there are. */
static void see_map(qp_check_task_t *task, const qp_kv_map_t **map)
{
    qp_kv_map_t *copy = qp_check_keep(task, *map, sizeof **map);
    const size_t n_past = qp_bytes(copy->n_seq, sizeof(int32_t)),
                 table = qp_bytes(copy->n_seq * copy->table_ld, sizeof(int32_t));
    copy->n_past = qp_check_keep(task, copy->n_past, n_past);
    use(&task->used.n_decode, copy->n_decode);
    for (int64_t s = 0; s < copy->n_seq; s++)
        use(&task->used.n_key, copy->n_past[s] + 1);
    copy->block_table = qp_check_keep(task, copy->block_table, table);
    see_bytes(task, &copy->n_past_device, n_past);
    see_bytes(task, &copy->block_table_device, table);
    *map = copy;
}

static void see_sampling(qp_check_task_t *task, const qp_sampling_t **sampling)
{
    qp_sampling_t *copy = qp_check_keep(task, *sampling, sizeof **sampling);
    use(&task->used.n_decode, 1);
    copy->forbidden = qp_check_keep(task, copy->forbidden, sizeof *copy->forbidden);
    *sampling = copy;
}

static void see_attention(qp_check_task_t *task, const qp_attention_t **a)
{
    *a = qp_check_keep(task, *a, sizeof **a);
    task->used.attention = **a;
}

static void see_key(qp_check_task_t *task, const qp_philox_key_t **key)
{
    *key = qp_check_keep(task, *key, sizeof **key);
}

static void see_adamw(qp_check_task_t *task, const qp_adamw_t **hyper)
{
    *hyper = qp_check_keep(task, *hyper, sizeof **hyper);
}

static void see_number(qp_check_task_t *task, const void *number)
{
    (void)task;
    (void)number;
}

#define SEE(argument) \
    _Generic((argument),                           \
        qp_dptr_t *: see_address,                  \
        qp_mat_t *: see_mat,                       \
        qp_mask_t *: see_mask,                     \
        const qp_input_t **: see_input,            \
        const qp_weight_t **: see_weight,          \
        const qp_ragged_t **: see_ragged,          \
        const qp_kv_t **: see_kv,                  \
        const qp_kv_copy_t **: see_kv_copy,        \
        const qp_kv_map_t **: see_map,             \
        const qp_sampling_t **: see_sampling,      \
        const qp_attention_t **: see_attention,    \
        const qp_philox_key_t **: see_key,         \
        const qp_adamw_t **: see_adamw,            \
        float *: see_number,                       \
        bool *: see_number,                        \
        int64_t *: see_number)

/* --- ops of the list -------------------------------------------------------------------------- */

#define FIELD(type, name) type name;
#define TAKE(type, name) \
    made->name = name;   \
    SEE (&made->name)(&made->task, &made->name);
#define GIVE(type, name) , given->name

#define CHECKED(slot, ...)                                                       \
    typedef struct {                                                             \
        qp_check_task_t task;                                                    \
        QP_EACH(FIELD, __VA_ARGS__)                                              \
    } slot##_task_t;                                                             \
    static qp_error_t run_##slot(qp_check_task_t *task, qp_queue_t *cpu)         \
    {                                                                            \
        slot##_task_t *given = (slot##_task_t *)task;                            \
        return qp_cpu_##slot(cpu QP_EACH(GIVE, __VA_ARGS__));                    \
    }                                                                            \
    static qp_error_t slot(qp_queue_t *q QP_EACH(QP_PARAMETER, __VA_ARGS__))     \
    {                                                                            \
        slot##_task_t *made = qp_check_task(q, #slot, sizeof *made, run_##slot); \
        QP_EACH(TAKE, __VA_ARGS__)                                               \
        qp_check_covered(&made->task);                                           \
        qp_check_put(q, &made->task);                                            \
        return NULL;                                                             \
    }

QP_QUEUE_OPS(CHECKED)

/* --- the other slots -------------------------------------------------------------------------- */

static qp_check_device_t *device_of(const qp_device_t *device)
{
    return (qp_check_device_t *)device;
}

static size_t scratch_bytes(const qp_device_t *device, const qp_pass_size_t *size, int n)
{
    return qp_cpu_scratch_bytes(device_of(device)->cpu, size, n);
}

static qp_error_t reserve(qp_device_t *device, const qp_pass_size_t *size)
{
    QP_TRY(qp_check_wait_all(device_of(device)));
    QP_TRY(qp_check_reserved(device_of(device), size));
    return qp_cpu_reserve(device_of(device)->cpu, size);
}

static qp_error_t memory_info(qp_device_t *device, int64_t *free_bytes, int64_t *all_bytes)
{
    const int64_t all = device_of(device)->all_bytes;
    const int64_t taken = device->budget.n > 0 ? (int64_t)qp_budget_bytes(&device->budget)
                                               : device_of(device)->used_bytes;
    *all_bytes = all;
    *free_bytes = all < 0 ? -1 : all - taken;
    return NULL;
}

static qp_error_t take_budget(qp_device_t *base, const qp_budget_t *budget)
{
    qp_check_device_t *device = device_of(base);
    const size_t bytes = qp_budget_bytes(budget);
    QP_ASSERT(base->budget.n == 0 && device->used_bytes == 0);
    if (device->all_bytes < 0)
        return NULL;
    if ((int64_t)bytes > device->all_bytes)
        return QP_ERROR(QP_IO, "the run's memory: no room for %zu bytes on the device", bytes);
    base->budget = *budget;
    return qp_check_scratch(device);
}

static qp_error_t alloc(qp_device_t *base, const char *label, size_t bytes, qp_dptr_t *out)
{
    qp_check_device_t *device = device_of(base);
    size_t at;
    if (base->budget.n > 0)
        QP_TRY(qp_budget_take(&base->budget, label, bytes, &at));
    else if (device->all_bytes >= 0 && (int64_t)bytes > device->all_bytes - device->used_bytes)
        return QP_ERROR(QP_IO, "%s: no room for %zu bytes on the device: %lld are free", label,
                        bytes, (long long)(device->all_bytes - device->used_bytes));
    QP_TRY(qp_check_memory_alloc(device->memory, label, bytes, out));
    device->used_bytes += (int64_t)bytes;
    return NULL;
}

static void release(qp_device_t *base, qp_dptr_t *p)
{
    qp_check_device_t *device = device_of(base);
    qp_error_t error = qp_check_wait_all(device);
    const char *label = NULL;
    device->error = error; /* for somebody who can return it */
    const size_t bytes = qp_check_memory_release(device->memory, *p, &label);
    device->used_bytes -= (int64_t)bytes;
    if (base->budget.n > 0 && label != NULL)
        qp_budget_give_back(&base->budget, label, bytes);
    *p = (qp_dptr_t){0};
}

/* A copy between host and device, or what the device's memory is filled with. */
typedef struct {
    qp_check_task_t task;
    void *to;
    const void *from;
    size_t bytes;
    int fill; /* where there is no from */
} bytes_task_t;

static qp_error_t run_copy_bytes(qp_check_task_t *task, qp_queue_t *cpu)
{
    bytes_task_t *copy = (bytes_task_t *)task;
    (void)cpu;
    if (copy->from == NULL)
        memset(copy->to, copy->fill, copy->bytes);
    else
        memmove(copy->to, copy->from, copy->bytes);
    return NULL;
}

static bytes_task_t *bytes_task(qp_queue_t *q, const char *op, qp_dptr_t p, size_t bytes)
{
    bytes_task_t *copy = qp_check_task(q, op, sizeof *copy, run_copy_bytes);
    see_bytes(&copy->task, &p, bytes);
    copy->to = qp_cpu_pointer(p);
    copy->bytes = bytes;
    return copy;
}

static qp_error_t upload(qp_queue_t *q, qp_dptr_t to, const void *from, size_t bytes)
{
    if (bytes == 0)
        return NULL;
    bytes_task_t *copy = bytes_task(q, "upload", to, bytes);
    copy->from = qp_check_keep(&copy->task, from, bytes);
    qp_check_put(q, &copy->task);
    return NULL;
}

static qp_error_t upload_async(qp_queue_t *q, qp_dptr_t to, const void *from, size_t bytes)
{
    if (bytes == 0)
        return NULL;
    qp_check_is_pinned(device_of(q->device), "upload_async", from, bytes);
    bytes_task_t *copy = bytes_task(q, "upload_async", to, bytes);
    copy->from = from;
    qp_check_put(q, &copy->task);
    return NULL;
}

static void put_download(qp_queue_t *q, const char *op, void *to, qp_dptr_t from, size_t bytes)
{
    if (bytes == 0)
        return;
    bytes_task_t *copy = bytes_task(q, op, from, bytes);
    copy->from = copy->to;
    copy->to = to;
    memset(to, 0xff, bytes);
    qp_check_put(q, &copy->task);
}

static qp_error_t download(qp_queue_t *q, void *to, qp_dptr_t from, size_t bytes)
{
    put_download(q, "download", to, from, bytes);
    return qp_check_wait(q);
}

static qp_error_t download_async(qp_queue_t *q, void *to, qp_dptr_t from, size_t bytes)
{
    if (bytes > 0)
        qp_check_is_pinned(device_of(q->device), "download_async", to, bytes);
    put_download(q, "download_async", to, from, bytes);
    return NULL;
}

static qp_error_t copy(qp_queue_t *q, qp_dptr_t to, qp_dptr_t from, size_t bytes)
{
    if (bytes == 0)
        return NULL;
    bytes_task_t *task = bytes_task(q, "copy", to, bytes);
    see_bytes(&task->task, &from, bytes);
    task->from = qp_cpu_pointer(from);
    qp_check_put(q, &task->task);
    return NULL;
}

static qp_error_t zero(qp_queue_t *q, qp_dptr_t p, size_t bytes)
{
    qp_check_put(q, &bytes_task(q, "zero", p, bytes)->task);
    return NULL;
}

static qp_error_t discard(qp_queue_t *q, qp_dptr_t p, size_t bytes)
{
    bytes_task_t *fill = bytes_task(q, "discard", p, bytes);
    fill->fill = 0xff;
    qp_check_put(q, &fill->task);
    return NULL;
}

static size_t weight_bytes(const qp_device_t *device, const qp_weight_t *w)
{
    return qp_cpu_weight_bytes(device, w);
}

static qp_error_t sum_squares(qp_queue_t *q, qp_dptr_t x, int64_t n, double *out)
{
    qp_check_device_t *device = device_of(q->device);
    const qp_dptr_t behind =
        qp_check_behind(device->memory, "sum_squares", x, qp_bytes(n, sizeof(float)));
    QP_TRY(qp_check_wait(q));
    return qp_cpu_sum_squares(qp_device_queue(device->cpu), behind, n, out);
}

#define SLOT(slot, ...) .slot = slot,

const qp_ops_t qp_ops_check = {
    .name = "check",

    .memory_info = memory_info,
    .take_budget = take_budget,
    .scratch_bytes = scratch_bytes,
    .reserve = reserve,
    .alloc = alloc,
    .release = release,
    .host_alloc = qp_check_host_alloc,
    .host_release = qp_check_host_release,
    .host_register = qp_check_host_register,
    .host_unregister = qp_check_host_unregister,

    .queue_create = qp_check_queue_create,
    .queue_destroy = qp_check_queue_destroy,
    .synchronize = qp_check_wait,
    .event_create = qp_check_event_create,
    .event_destroy = qp_check_event_destroy,
    .event_record = qp_check_event_record,
    .event_wait = qp_check_event_wait,
    .event_synchronize = qp_check_event_synchronize,

    .upload = upload,
    .upload_async = upload_async,
    .download = download,
    .download_async = download_async,
    .copy = copy,
    .zero = zero,
    .discard = discard,

    .weight_bytes = weight_bytes,

    QP_QUEUE_OPS(SLOT)

        .sum_squares = sum_squares,
};
