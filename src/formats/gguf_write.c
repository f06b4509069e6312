#include "formats/gguf_write.h"

#include "base/file.h"
#include "base/str.h"

enum { ALIGNMENT = 32, TYPE_FLOAT32 = 6, TYPE_STRING = 8, GGML_F32 = 0 };

static void put_u32(qp_str_t *out, uint32_t x)
{
    qp_str_append(out, &x, sizeof x);
}

static void put_u64(qp_str_t *out, uint64_t x)
{
    qp_str_append(out, &x, sizeof x);
}

static void put_string(qp_str_t *out, const char *text)
{
    put_u64(out, strlen(text));
    qp_str_puts(out, text);
}

static void align(qp_str_t *out)
{
    while (out->n % ALIGNMENT != 0)
        qp_str_putc(out, '\0');
}

static void put_key(qp_str_t *out, const qp_gguf_key_t *key)
{
    put_string(out, key->key);
    put_u32(out, key->text != NULL ? TYPE_STRING : TYPE_FLOAT32);
    if (key->text != NULL)
        put_string(out, key->text);
    else
        qp_str_append(out, &key->number, sizeof key->number);
}

/* Table row; returns the offset behind the tensor. */
static uint64_t put_tensor(qp_str_t *out, const qp_tensor_t *t, uint64_t offset)
{
    QP_ASSERT(t->dtype == QP_F32);
    put_string(out, t->name);
    put_u32(out, (uint32_t)t->n_dim);
    for (int d = t->n_dim - 1; d >= 0; d--)
        put_u64(out, (uint64_t)t->dim[d]);
    put_u32(out, GGML_F32);
    put_u64(out, offset);
    return (offset + t->n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

qp_error_t qp_gguf_write(const char *path, const qp_gguf_key_t *key, int64_t n_key,
                         const qp_tensor_t *tensor, int64_t n_tensor)
{
    qp_str_t out = {0};
    uint64_t offset = 0;
    qp_str_puts(&out, "GGUF");
    put_u32(&out, 3);
    put_u64(&out, (uint64_t)n_tensor);
    put_u64(&out, (uint64_t)n_key);
    for (int64_t i = 0; i < n_key; i++)
        put_key(&out, &key[i]);
    for (int64_t i = 0; i < n_tensor; i++)
        offset = put_tensor(&out, &tensor[i], offset);
    align(&out);
    for (int64_t i = 0; i < n_tensor; i++) {
        qp_str_append(&out, tensor[i].data, tensor[i].n_bytes);
        align(&out);
    }
    qp_error_t error = qp_file_write(path, out.data, out.n);
    qp_str_fini(&out);
    return error;
}
