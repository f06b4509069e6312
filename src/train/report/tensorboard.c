#include "train/report/tensorboard.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

struct qp_tensorboard {
    char *path;
    FILE *file;
};

/* --- records ---------------------------------------------------------------------------------- */

/* CRC-32C (Castagnoli, reflected), as records want it: rotated, and with a constant added. */
static uint32_t masked_crc(const void *data, size_t n_bytes)
{
    const uint8_t *byte = data;
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n_bytes; i++) {
        crc ^= byte[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? UINT32_C(0x82f63b78) : 0);
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + UINT32_C(0xa282ead8);
}

static qp_error_t write_record(const qp_tensorboard_t *t, const qp_str_t *event)
{
    const uint64_t n = event->n;
    const uint32_t head = masked_crc(&n, sizeof n), body = masked_crc(event->data, event->n);
    if (fwrite(&n, sizeof n, 1, t->file) == 1 && fwrite(&head, sizeof head, 1, t->file) == 1 &&
        fwrite(event->data, 1, event->n, t->file) == event->n &&
        fwrite(&body, sizeof body, 1, t->file) == 1 && fflush(t->file) == 0)
        return NULL;
    return QP_ERROR(QP_IO, "%s: cannot be written: %s", t->path, strerror(errno));
}

/* --- protocol buffers ------------------------------------------------------------------------- */

/* How a field is encoded; its tag is number << 3 | this. */
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static void put_varint(qp_str_t *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        qp_str_putc(out, (char)((value & 0x7f) | 0x80));
    qp_str_putc(out, (char)value);
}

static void put_tag(qp_str_t *out, int field, int encoding)
{
    put_varint(out, (uint64_t)(field << 3 | encoding));
}

static void put_bytes(qp_str_t *out, int field, const void *data, size_t n_bytes)
{
    put_tag(out, field, BYTES);
    put_varint(out, n_bytes);
    qp_str_append(out, data, n_bytes);
}

/* wall_time = 1, step = 2; what follows is its kind. */
static void begin_event(qp_str_t *event, int64_t step)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    const double seconds = (double)now.tv_sec + (double)now.tv_usec * 1e-6;
    put_tag(event, 1, FIXED64);
    qp_str_append(event, (const char *)&seconds, sizeof seconds);
    put_tag(event, 2, VARINT);
    put_varint(event, (uint64_t)step);
}

/* Summary.value = 1: tag = 1, simple_value = 2. */
static void put_scalar(qp_str_t *summary, const char *name, double value)
{
    static const char eval[] = "eval_";
    const float number = (float)value;
    const bool held_out = strncmp(name, eval, strlen(eval)) == 0;
    char *tag = held_out ? qp_format("eval/%s", name + strlen(eval)) : qp_format("train/%s", name);
    qp_str_t scalar = {0};
    put_bytes(&scalar, 1, tag, strlen(tag));
    put_tag(&scalar, 2, FIXED32);
    qp_str_append(&scalar, (const char *)&number, sizeof number);
    put_bytes(summary, 1, scalar.data, scalar.n);
    qp_str_fini(&scalar);
    qp_free(tag);
}

/* --- files ------------------------------------------------------------------------------------ */

/* The version, and the start of a session, behind whose step TensorBoard forgets what it has read.
 */
static qp_error_t write_start(const qp_tensorboard_t *t, int64_t step)
{
    static const char version[] = "brain.Event:2";
    qp_str_t event = {0}, session = {0};
    begin_event(&event, 0);
    put_bytes(&event, 3, version, strlen(version));
    qp_error_t error = write_record(t, &event);
    qp_str_clear(&event);
    put_tag(&session, 1, VARINT); /* SessionLog.status */
    put_varint(&session, 1);      /* START */
    begin_event(&event, step + 1);
    put_bytes(&event, 7, session.data, session.n);
    if (error == NULL)
        error = write_record(t, &event);
    qp_str_fini(&session);
    qp_str_fini(&event);
    return error;
}

qp_error_t qp_tensorboard_open(const char *folder, int64_t step, qp_tensorboard_t **out)
{
    char host[256] = "";
    struct timeval now;
    QP_TRY(qp_folder_make(folder));
    gethostname(host, sizeof host - 1);
    gettimeofday(&now, NULL);
    qp_tensorboard_t *t = *out = QP_NEW("tensorboard", qp_tensorboard_t, 1);
    t->path = qp_format("%s/events.out.tfevents.%lld.%s.%lld.quipu", folder, (long long)now.tv_sec,
                        host, (long long)getpid());
    qp_error_t error = qp_file_append(t->path, &t->file);
    if (error == NULL)
        error = write_start(t, step);
    if (error != NULL)
        qp_tensorboard_close(out);
    return error;
}

qp_error_t qp_tensorboard_write(qp_tensorboard_t *t, const qp_metrics_t *metrics, int64_t step)
{
    qp_str_t event = {0}, summary = {0};
    for (int i = 0; i < metrics->n; i++)
        if (metrics->is_set[i] && isfinite(metrics->value[i]) &&
            strcmp(metrics->name[i], "step") != 0)
            put_scalar(&summary, metrics->name[i], metrics->value[i]);
    begin_event(&event, step);
    put_bytes(&event, 5, summary.data, summary.n);
    qp_error_t error = write_record(t, &event);
    qp_str_fini(&summary);
    qp_str_fini(&event);
    return error;
}

void qp_tensorboard_close(qp_tensorboard_t **tensorboard)
{
    qp_tensorboard_t *t = *tensorboard;
    if (t == NULL)
        return;
    if (t->file != NULL)
        fclose(t->file);
    qp_free(t->path);
    QP_FREE(*tensorboard);
}
