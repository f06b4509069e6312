#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "ckpt/ckpt.h"
#include "inspect.h"

const qp_root_attribute_t qp_root_attributes[] = {
    {"quipu_format", QP_SHOW_TEXT},
    {"format_version", QP_SHOW_NUMBER},
    /* base */
    {"precision", QP_SHOW_TEXT},
    {"lm_head", QP_SHOW_TEXT},
    {"source", QP_SHOW_TEXT},
    {"config", QP_SHOW_TEXT},
    /* shard */
    {"kind", QP_SHOW_TEXT},
    {"n_sample", QP_SHOW_NUMBER},
    {"sequences_per_sample", QP_SHOW_NUMBER},
    {"n_vocab", QP_SHOW_NUMBER},
    {"max_token_id", QP_SHOW_NUMBER},
    {"n_without_loss", QP_SHOW_NUMBER},
    {"tokenizer_id", QP_SHOW_HEX},
    /* checkpoint */
    {"method", QP_SHOW_TEXT},
    {"step", QP_SHOW_NUMBER},
    {"steps", QP_SHOW_NUMBER},
    {"complete", QP_SHOW_NUMBER},
    {"deck_hash", QP_SHOW_HEX},
    {"build", QP_SHOW_TEXT},
    {"base_id", QP_SHOW_HEX},
    {NULL, QP_SHOW_TEXT},
};

/* base_id is text in a base and a number in a checkpoint: hex digits either way. */
qp_error_t qp_root_attribute_text(const qp_h5_t *file, const qp_root_attribute_t *attribute,
                                  char **text)
{
    *text = NULL;
    if (!qp_h5_attr_exists(file, "/", attribute->name))
        return NULL;
    if (attribute->show != QP_SHOW_NUMBER) {
        qp_error_t error = qp_h5_attr_get_str(file, "/", attribute->name, text);
        if (error == NULL || attribute->show == QP_SHOW_TEXT)
            return error;
        qp_error_destroy(&error);
    }
    int64_t number;
    QP_TRY(qp_h5_attr_get_i64(file, "/", attribute->name, &number));
    *text = attribute->show == QP_SHOW_HEX ? qp_format("%016lx", (unsigned long)number)
                                           : qp_format("%ld", (long)number);
    return NULL;
}

static qp_error_t print_attributes(const qp_h5_t *file)
{
    for (const qp_root_attribute_t *a = qp_root_attributes; a->name != NULL; a++) {
        char *text = NULL;
        QP_TRY(qp_root_attribute_text(file, a, &text));
        if (text != NULL)
            printf("%-22s %s\n", a->name, text);
        qp_free(text);
    }
    return NULL;
}

static qp_error_t print_datasets(const qp_h5_t *file, char **name, int64_t n, bool each)
{
    double bytes = 0.0;
    for (int64_t i = 0; i < n; i++) {
        qp_h5_shape_t shape;
        QP_TRY(qp_h5_dataset_shape(file, name[i], &shape));
        double size = (double)qp_dtype_bytes(shape.dtype);
        qp_str_t dims = {0};
        for (int d = 0; d < shape.n_dim; d++) {
            qp_str_printf(&dims, "%s%ld", d > 0 ? ", " : "", (long)shape.dim[d]);
            size *= (double)shape.dim[d];
        }
        if (each)
            printf("%-6s [%s] %s\n", qp_dtype_name(shape.dtype), dims.data, name[i]);
        qp_str_fini(&dims);
        bytes += size;
    }
    printf("%-22s %ld, %.1f MB\n", "data sets", (long)n, bytes / 1e6);
    return NULL;
}

static qp_error_t open_quipu(const char *path, qp_h5_t **file)
{
    QP_TRY(qp_h5_open(path, NULL, file));
    if (qp_h5_attr_exists(*file, "/", "quipu_format"))
        return NULL;
    qp_error_t error = qp_h5_close(file);
    qp_error_destroy(&error);
    return QP_ERROR(QP_INPUT, "%s: is no file of Quipu (it has no attribute quipu_format)", path);
}

/* Closes a file that was only read; the earlier error wins. */
static qp_error_t close_after(qp_h5_t **file, qp_error_t error)
{
    qp_error_t closing = qp_h5_close(file);
    if (error == NULL)
        return closing;
    qp_error_destroy(&closing);
    return error;
}

qp_error_t qp_show_h5(const char *path, bool tensors)
{
    qp_h5_t *file = NULL;
    char **name = NULL;
    int64_t n = 0;
    QP_TRY(open_quipu(path, &file));
    qp_error_t error = print_attributes(file);
    if (error == NULL)
        error = qp_h5_list_datasets(file, &name, &n);
    if (error == NULL)
        error = print_datasets(file, name, n, tensors);
    qp_h5_list_free(&name, n);
    return close_after(&file, error);
}

static qp_error_t verify_all(const qp_h5_t *file, char **name, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        QP_TRY(qp_h5_checksum_verify(file, name[i]));
    return NULL;
}

static bool is_checkpoint(const qp_h5_t *file)
{
    char *format = NULL;
    qp_error_t error = qp_h5_attr_get_str(file, "/", "quipu_format", &format);
    bool is = error == NULL && strcmp(format, "checkpoint") == 0;
    qp_error_destroy(&error);
    qp_free(format);
    return is;
}

qp_error_t qp_verify_h5(const char *path)
{
    qp_h5_t *file = NULL;
    char **name = NULL;
    int64_t n = 0;
    QP_TRY(open_quipu(path, &file));
    bool checkpoint = is_checkpoint(file);
    qp_error_t error = qp_h5_list_datasets(file, &name, &n);
    if (error == NULL && !checkpoint)
        error = verify_all(file, name, n);
    qp_h5_list_free(&name, n);
    error = close_after(&file, error);
    if (error == NULL && checkpoint)
        error = qp_ckpt_verify(path);
    if (error == NULL)
        printf("%-22s all %ld data sets are intact\n", "verified", (long)n);
    return error;
}
