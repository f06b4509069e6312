#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/safetensors.h"
#include "formats/safetensors_dtype.h"

struct qp_safetensors_writer {
    char *path, *temporary;
    FILE *file;
    uint64_t n_expected, n_written; /* bytes of the data section */
};

/* The JSON header, padded with spaces to a multiple of 8; returns the bytes of the data section. */
static uint64_t make_header(const qp_tensor_t *tensors, int64_t n_tensor, qp_str_t *header)
{
    uint64_t offset = 0;
    qp_str_puts(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int64_t i = 0; i < n_tensor; i++) {
        const qp_tensor_t *t = &tensors[i];
        uint64_t end = offset + (uint64_t)qp_tensor_n(t) * qp_dtype_bytes(t->dtype);
        qp_str_printf(header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name,
                      qp_safetensors_dtype_name(t->dtype));
        for (int d = 0; d < t->n_dim; d++)
            qp_str_printf(header, "%s%ld", d > 0 ? "," : "", (long)t->dim[d]);
        qp_str_printf(header, "],\"data_offsets\":[%lu,%lu]}", (unsigned long)offset,
                      (unsigned long)end);
        offset = end;
    }
    qp_str_putc(header, '}');
    while (header->n % 8 != 0)
        qp_str_putc(header, ' ');
    return offset;
}

static qp_error_t put(qp_safetensors_writer_t *writer, const void *data, size_t n_bytes)
{
    if (n_bytes > 0 && fwrite(data, 1, n_bytes, writer->file) != n_bytes)
        return QP_ERROR(QP_IO, "%s: cannot be written: %s", writer->path, strerror(errno));
    return NULL;
}

static void destroy(qp_safetensors_writer_t **writer)
{
    if ((*writer)->file != NULL)
        fclose((*writer)->file);
    qp_free((*writer)->path);
    qp_free((*writer)->temporary);
    QP_FREE(*writer);
}

qp_error_t qp_safetensors_writer_create(const char *path, const qp_tensor_t *tensors,
                                        int64_t n_tensor, qp_safetensors_writer_t **writer)
{
    qp_safetensors_writer_t *w = QP_NEW("safetensors", qp_safetensors_writer_t, 1);
    *writer = w;
    w->path = qp_strdup(path);
    w->temporary = qp_format("%s.part", path);
    w->file = fopen(w->temporary, "wb");
    qp_error_t error = NULL;
    if (w->file == NULL) {
        error = QP_ERROR(QP_IO, "%s: cannot be created: %s", w->temporary, strerror(errno));
        destroy(writer);
        return error;
    }
    qp_str_t header = {0};
    w->n_expected = make_header(tensors, n_tensor, &header);
    uint64_t n_header = header.n;
    error = put(w, &n_header, sizeof n_header);
    if (error == NULL)
        error = put(w, header.data, header.n);
    qp_str_fini(&header);
    if (error != NULL)
        qp_safetensors_writer_abandon(writer);
    return error;
}

qp_error_t qp_safetensors_writer_append(qp_safetensors_writer_t *writer, const void *data,
                                        size_t n_bytes)
{
    writer->n_written += n_bytes;
    return put(writer, data, n_bytes);
}

qp_error_t qp_safetensors_writer_commit(qp_safetensors_writer_t **writer)
{
    qp_safetensors_writer_t *w = *writer;
    QP_ASSERT(w->n_written == w->n_expected);
    bool ok = fflush(w->file) == 0 && fsync(fileno(w->file)) == 0;
    int reason = errno;
    if (fclose(w->file) != 0 && ok) {
        ok = false;
        reason = errno;
    }
    w->file = NULL;
    qp_error_t error = NULL;
    if (ok)
        error = qp_file_commit(w->temporary, w->path);
    else
        error = QP_ERROR(QP_IO, "%s: cannot be written: %s", w->path, strerror(reason));
    if (error != NULL)
        unlink(w->temporary);
    destroy(writer);
    return error;
}

void qp_safetensors_writer_abandon(qp_safetensors_writer_t **writer)
{
    if (*writer == NULL)
        return;
    unlink((*writer)->temporary);
    destroy(writer);
}

qp_error_t qp_safetensors_write(const char *path, const qp_tensor_t *tensors, int64_t n_tensor)
{
    qp_safetensors_writer_t *writer = NULL;
    QP_TRY(qp_safetensors_writer_create(path, tensors, n_tensor, &writer));
    for (int64_t i = 0; i < n_tensor; i++) {
        qp_error_t error =
            qp_safetensors_writer_append(writer, tensors[i].data, tensors[i].n_bytes);
        if (error != NULL) {
            qp_safetensors_writer_abandon(&writer);
            return error;
        }
    }
    return qp_safetensors_writer_commit(&writer);
}
