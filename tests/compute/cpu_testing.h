/**
 * \file cpu_testing.h
 * Support for the tests of single ops: devices, matrices with their double-precision image, and the
 * table of tolerances. A tensor's rows are longer than its columns, and what lies between must
 * never be read (it is NaN) nor written.
 */
#ifndef QP_TEST_CPU_TESTING_H
#define QP_TEST_CPU_TESTING_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/philox.h"
#include "compute/ops.h"
#include "testing.h"

/* --- tolerances: relative L2 error against the double twin, and its part that is no noise ------
 */

/* Unit roundoffs: fp32 2^-24 = 6e-8, bf16 2^-9 = 2e-3. L2 errors of random roundings are ~0.4 of
 * it. */
typedef enum {
    TOL_ELEMENT,
    TOL_REDUCTION,
    TOL_ATTENTION,
    TOL_ATTENTION_INT8,
    TOL_ATTENTION_GRADIENT,
    N_TOL
} tol_t;
static const struct {
    double fp32, bf16;
    const char *reason;
} tolerances[N_TOL] = {
    [TOL_ELEMENT] = {5e-7, 4e-3, "a few roundings, expf to 2 ulp; one rounding of the result"},
    [TOL_REDUCTION] = {4e-6, 4e-3, "2^-24 sqrt(n), n up to 4096; one rounding of the result"},
    [TOL_ATTENTION] = {4e-6, 4e-3, "2^-24 sqrt(n), n up to 4096; P and the result rounded"},
    [TOL_ATTENTION_INT8] = {4e-6, 6e-3, "as above; products take scaled keys and values rounded"},
    [TOL_ATTENTION_GRADIENT] = {1e-5, 8e-3,
                                "dP - delta cancels; P, dS, saved output, result rounded"},
};

static inline double tolerance(tol_t kind, qp_dtype_t dtype)
{
    return dtype == QP_F32 ? tolerances[kind].fp32 : tolerances[kind].bf16;
}

/*
 * What is left of rounding in a mean over many elements: roundings to nearest go either way. So of
 * a tensor's error the part along what is expected (a bias: the share by which all is too large)
 * has a limit of its own, in which the noise of n elements has become small: a third of the
 * smallest bias that has to be seen, for roundings that a row shares (of a probability, of a scale)
 * do not average out over its elements.
 */
static const double MAX_BIAS = 1e-3;
static inline double bias_limit(double limit, int64_t n)
{
    return fmin(limit, MAX_BIAS + 3.0 * limit / sqrt((double)n));
}

/* --- devices and tensors ---------------------------------------------------------------------- */

/** Room for all that the tests of ops do, of which only what is used takes memory. */
static inline void reserve_for_tests(qp_device_t *device)
{
    static const qp_pass_size_t size = {
        .n_token = 8192,
        .d_model = 4096,
        .n_vocab = 65536,
        .widest = 16416,
        .n_inner = 256,
        .attention = {.n_head = 32, .n_kv_head = 8, .head_dim = 128, .scale = 1.0f},
        .n_key = 8192,
        .n_decode = 64,
        .weight = QP_WEIGHT_LLM_INT8,
        .backward = true,
        .mixed = true};
    qp_pass_size_t exact = size;
    exact.weight = QP_WEIGHT_F32;
    exact.lm_head = QP_WEIGHT_INT8;
    CHECK_OK(device->ops->reserve(device, &size));
    CHECK_OK(device->ops->reserve(device, &exact));
}

static inline qp_device_t *open_compute(qp_compute_t compute, int threads)
{
    qp_device_config_t config = {
        .backend = QP_BACKEND_AUTO, .compute = (int)compute, .threads = threads};
    qp_device_t *device = NULL;
    CHECK_OK(qp_device_open(&config, 0, 1, &device));
    reserve_for_tests(device);
    return device;
}

static inline qp_device_t *open_device(int threads)
{
    return open_compute(QP_COMPUTE_FP32, threads);
}

/** Whether this machine multiplies bf16 at all; where not, its ops never see bf16 operands. */
static inline bool has_bf16(void)
{
    qp_device_config_t config = {.backend = QP_BACKEND_AUTO, .compute = QP_COMPUTE_BF16};
    qp_device_t *device = NULL;
    qp_error_t error = qp_device_open(&config, 0, 1, &device);
    const bool has = error == NULL;
    qp_error_destroy(&error);
    if (has)
        qp_device_close(&device);
    return has;
}

typedef struct {
    qp_device_t *device;
    qp_mat_t m;
    double *x; /* [n_row, n_col] what the op sees */
} tensor_t;

enum { ROW_GAP = 3 };

/** Waits for a device's queue: before another device touches what it works on. */
static inline void settle(qp_device_t *device)
{
    CHECK_OK(device->ops->synchronize(qp_device_queue(device)));
}

/** Bytes from the device, to be freed. */
static inline void *download_bytes(qp_device_t *device, qp_dptr_t from, size_t bytes)
{
    void *to = qp_alloc("test", bytes);
    CHECK_OK(device->ops->download(qp_device_queue(device), to, from, bytes));
    return to;
}

/** Device memory with these bytes in it; no bytes give none. */
static inline qp_dptr_t new_bytes(qp_device_t *device, const void *from, size_t bytes)
{
    qp_dptr_t to = {0};
    if (from != NULL) {
        CHECK_OK(device->ops->alloc(device, "test", bytes, &to));
        CHECK_OK(device->ops->upload(qp_device_queue(device), to, from, bytes));
    }
    return to;
}

/**
 * Gives w storage, packed in pieces of \a piece rows from host arrays: plain [n_out, n_in], scale
 * and bias [n_out] or NULL. What is between the parts of the storage is zero.
 */
static inline void pack_weight(qp_device_t *device, qp_weight_t *w, const void *plain,
                               const float *scale, const float *bias, int64_t piece)
{
    const qp_ops_t *ops = device->ops;
    qp_queue_t *q = qp_device_queue(device);
    const size_t bytes = ops->weight_bytes(device, w), rows = qp_bytes(w->n_out, sizeof(float));
    const qp_dtype_t dtype = qp_weight_dtype(w->kind);
    CHECK_OK(ops->alloc(device, "test", bytes, &w->storage));
    CHECK_OK(ops->zero(q, w->storage, bytes));
    qp_dptr_t data = new_bytes(device, plain, qp_bytes(w->n_out * w->n_in, qp_dtype_bytes(dtype)));
    qp_dptr_t scales = new_bytes(device, scale, rows), biases = new_bytes(device, bias, rows);
    const qp_mat_t all = qp_mat(data, dtype, w->n_out, w->n_in);
    for (int64_t first = 0; first < w->n_out; first += piece) {
        const size_t before = qp_bytes(first, sizeof(float));
        const int64_t n = w->n_out - first < piece ? w->n_out - first : piece;
        CHECK_OK(ops->weight_pack(q, w, first, qp_mat_rows(all, first, n),
                                  scale == NULL ? scales : qp_dptr_at(scales, before),
                                  bias == NULL ? biases : qp_dptr_at(biases, before)));
    }
    ops->release(device, &data);
    ops->release(device, &scales);
    ops->release(device, &biases);
}

static inline size_t tensor_bytes(const tensor_t *t)
{
    return qp_bytes(t->m.n_row * t->m.ld, qp_dtype_bytes(t->m.dtype));
}

static inline double element_of(const void *data, qp_dtype_t dtype, int64_t at)
{
    return dtype == QP_F32 ? (double)((const float *)data)[at]
                           : (double)qp_bf16_to_f32(((const uint16_t *)data)[at]);
}

static inline void put_element(void *data, qp_dtype_t dtype, int64_t at, double value)
{
    if (dtype == QP_F32)
        ((float *)data)[at] = (float)value;
    else
        ((uint16_t *)data)[at] = qp_f32_to_bf16((float)value);
}

/** One element, by way of the device. */
static inline double get_element(const tensor_t *t, int64_t i, int64_t j)
{
    float whole;
    CHECK_OK(t->device->ops->download(qp_device_queue(t->device), &whole,
                                      qp_mat_cols(qp_mat_rows(t->m, i, 1), j, 1).data,
                                      qp_dtype_bytes(t->m.dtype)));
    return element_of(&whole, t->m.dtype, 0);
}

/** All elements [n_row, n_col], to be freed: for many of them. */
static inline double *get_all(const tensor_t *t)
{
    double *x = QP_NEW("test", double, t->m.n_row * t->m.n_col);
    void *host = download_bytes(t->device, t->m.data, tensor_bytes(t));
    for (int64_t i = 0; i < t->m.n_row; i++)
        for (int64_t j = 0; j < t->m.n_col; j++)
            x[i * t->m.n_col + j] = element_of(host, t->m.dtype, i * t->m.ld + j);
    qp_free(host);
    return x;
}

static inline void set_element(tensor_t *t, int64_t i, int64_t j, double value)
{
    float whole;
    put_element(&whole, t->m.dtype, 0, value);
    CHECK_OK(t->device->ops->upload(qp_device_queue(t->device),
                                    qp_mat_cols(qp_mat_rows(t->m, i, 1), j, 1).data, &whole,
                                    qp_dtype_bytes(t->m.dtype)));
    settle(t->device);
}

/** All of the tensor, with what lies between its rows. */
static inline void set_all(tensor_t *t, const void *host)
{
    CHECK_OK(t->device->ops->upload(qp_device_queue(t->device), t->m.data, host, tensor_bytes(t)));
    settle(t->device);
}

/** A tensor full of NaN. */
static inline tensor_t make_tensor(qp_device_t *device, qp_dtype_t dtype, int64_t n_row,
                                   int64_t n_col)
{
    tensor_t t = {.device = device, .m = {{0}, dtype, n_row, n_col, n_col + ROW_GAP}};
    CHECK_OK(device->ops->alloc(device, "test", qp_bytes(n_row * t.m.ld, qp_dtype_bytes(dtype)),
                                &t.m.data));
    t.x = QP_NEW("test", double, n_row *n_col);
    void *host = qp_alloc("test", tensor_bytes(&t));
    for (int64_t i = 0; i < n_row * t.m.ld; i++)
        put_element(host, dtype, i, NAN);
    set_all(&t, host);
    qp_free(host);
    return t;
}

/** Normal numbers times \a scale; site tells tensors apart. */
static inline void fill_normal(tensor_t *t, uint32_t site, double scale)
{
    qp_philox_key_t key = {.seed = 7, .site = site};
    void *host = download_bytes(t->device, t->m.data, tensor_bytes(t));
    for (int64_t i = 0; i < t->m.n_row; i++)
        for (int64_t j = 0; j < t->m.n_col; j++) {
            uint64_t index = (uint64_t)(i * t->m.n_col + j);
            put_element(host, t->m.dtype, i * t->m.ld + j,
                        scale * (double)qp_philox_normal(&key, index));
            t->x[index] = element_of(host, t->m.dtype, i * t->m.ld + j);
        }
    set_all(t, host);
    qp_free(host);
}

static inline tensor_t make_normal(qp_device_t *device, qp_dtype_t dtype, int64_t n_row,
                                   int64_t n_col, uint32_t site)
{
    tensor_t t = make_tensor(device, dtype, n_row, n_col);
    fill_normal(&t, site, 1.0);
    return t;
}

static inline void free_tensor(tensor_t *t)
{
    bool untouched = true;
    void *host = download_bytes(t->device, t->m.data, tensor_bytes(t));
    for (int64_t i = 0; i < t->m.n_row; i++)
        for (int64_t j = t->m.n_col; j < t->m.ld; j++)
            untouched = untouched && isnan(element_of(host, t->m.dtype, i * t->m.ld + j));
    qp_free(host);
    CHECK_MSG(untouched, "an op wrote between the rows");
    t->device->ops->release(t->device, &t->m.data);
    QP_FREE(t->x);
}

/** Relative L2 error of the tensor's content against expected [n_row, n_col]. */
static inline double tensor_error(const tensor_t *t, const double *expected)
{
    double difference = 0.0, norm = 0.0;
    void *host = download_bytes(t->device, t->m.data, tensor_bytes(t));
    for (int64_t i = 0; i < t->m.n_row; i++)
        for (int64_t j = 0; j < t->m.n_col; j++) {
            double e = expected[i * t->m.n_col + j],
                   d = element_of(host, t->m.dtype, i * t->m.ld + j) - e;
            difference += d * d;
            norm += e * e;
        }
    qp_free(host);
    return sqrt(difference / (norm + 1e-300));
}

/** The bias in the tensor's content: 0.003 where all of it is 0.3% too large. */
static inline double tensor_bias(const tensor_t *t, const double *expected)
{
    double along = 0.0, norm = 0.0;
    void *host = download_bytes(t->device, t->m.data, tensor_bytes(t));
    for (int64_t i = 0; i < t->m.n_row; i++)
        for (int64_t j = 0; j < t->m.n_col; j++) {
            const double e = expected[i * t->m.n_col + j];
            along += (element_of(host, t->m.dtype, i * t->m.ld + j) - e) * e;
            norm += e * e;
        }
    qp_free(host);
    return along / (norm + 1e-300);
}

/** Records where the error, or the bias in it, is above its limit. */
static inline void check_tensor(const tensor_t *t, const double *expected, double limit,
                                const char *what)
{
    const double error = tensor_error(t, expected), bias = tensor_bias(t, expected);
    const double most = bias_limit(limit, t->m.n_row * t->m.n_col);
    CHECK_MSG(error <= limit, "%s: error %.3g, limit %.3g", what, error, limit);
    CHECK_MSG(fabs(bias) <= most, "%s: bias %.3g, limit %.3g", what, bias, most);
}

#define CHECK_TENSOR(t, expected, kind, ...)                                   \
    do {                                                                       \
        char what_[128];                                                       \
        snprintf(what_, sizeof what_, __VA_ARGS__);                            \
        check_tensor((t), (expected), tolerance((kind), (t)->m.dtype), what_); \
    } while (0)

/** True when rows [first, first + n) of a equal the first n rows of b, bit for bit. */
static inline bool same_rows(const tensor_t *a, int64_t first, const tensor_t *b, int64_t n)
{
    const size_t width = qp_dtype_bytes(a->m.dtype);
    char *left = download_bytes(a->device, a->m.data, tensor_bytes(a));
    char *right = download_bytes(b->device, b->m.data, tensor_bytes(b));
    bool same = true;
    for (int64_t i = 0; i < n && same; i++)
        same = memcmp(left + (size_t)((first + i) * a->m.ld) * width,
                      right + (size_t)(i * b->m.ld) * width, (size_t)a->m.n_col * width) == 0;
    qp_free(left);
    qp_free(right);
    return same;
}

/** Copies n rows of another tensor of the same type and as many columns. */
static inline void copy_rows(tensor_t *to, int64_t to_row, const tensor_t *from, int64_t from_row,
                             int64_t n)
{
    settle(from->device);
    for (int64_t i = 0; i < n; i++)
        CHECK_OK(to->device->ops->copy(qp_device_queue(to->device),
                                       qp_mat_rows(to->m, to_row + i, 1).data,
                                       qp_mat_rows(from->m, from_row + i, 1).data,
                                       qp_bytes(to->m.n_col, qp_dtype_bytes(to->m.dtype))));
    settle(to->device);
}

static inline qp_dptr_t upload_bytes(qp_device_t *device, const void *from, size_t bytes)
{
    qp_dptr_t p = {0};
    CHECK_OK(device->ops->alloc(device, "test", bytes, &p));
    CHECK_OK(device->ops->upload(qp_device_queue(device), p, from, bytes));
    settle(device);
    return p;
}

/* --- ragged batches --------------------------------------------------------------------------- */

typedef struct {
    qp_ragged_t r;
    int32_t *cu_seqlens;
} batch_t;

/** Sequences of the given lengths, each with n_past tokens before (NULL: none), samples 100 + i. */
static inline batch_t make_batch(qp_device_t *device, int n_seq, const int32_t *length,
                                 const int32_t *n_past)
{
    batch_t b = {.cu_seqlens = QP_NEW("test", int32_t, n_seq + 1)};
    for (int s = 0; s < n_seq; s++)
        b.cu_seqlens[s + 1] = b.cu_seqlens[s] + length[s];
    int64_t n_token = b.cu_seqlens[n_seq];
    int32_t *position = QP_NEW("test", int32_t, n_token);
    uint32_t *sample = QP_NEW("test", uint32_t, n_token);
    for (int s = 0; s < n_seq; s++)
        for (int32_t i = 0; i < length[s]; i++) {
            position[b.cu_seqlens[s] + i] = i + (n_past != NULL ? n_past[s] : 0);
            sample[b.cu_seqlens[s] + i] = 100u + (uint32_t)s;
        }
    b.r = (qp_ragged_t){.n_token = n_token, .n_seq = n_seq, .cu_seqlens_host = b.cu_seqlens};
    b.r.cu_seqlens = upload_bytes(device, b.cu_seqlens, qp_bytes(n_seq + 1, sizeof(int32_t)));
    b.r.position = upload_bytes(device, position, qp_bytes(n_token, sizeof(int32_t)));
    b.r.sample = upload_bytes(device, sample, qp_bytes(n_token, sizeof(uint32_t)));
    QP_FREE(position);
    QP_FREE(sample);
    return b;
}

static inline void free_batch(qp_device_t *device, batch_t *b)
{
    device->ops->release(device, &b->r.cu_seqlens);
    device->ops->release(device, &b->r.position);
    device->ops->release(device, &b->r.sample);
    QP_FREE(b->cu_seqlens);
}

#endif
