/*
 * Products with a head: with one of floats those of matmul, with one of int8 those of linears,
 *
 *     z = x W^T                                                                (forward)
 *     out = out + p W, with p = exp(z - m), 0 at the target                    (backward)
 *
 * In int8 p is rounded to eight bits without a sign, row by row: what is lost is half of what a
 * sign would cost, and the target's row, which outweighs all others, does not pass here.
 */
#include "cuda/head/head.cuh"
#include "cuda/linear/hadamard.cuh"

enum { THREADS = 256 };

/* --- int8 ------------------------------------------------------------------------------------- */

/* Probabilities of some tokens, and where they go: rows of qp_cuda_rows_t. */
struct put_t {
    const float *p; /* [n_row, n] */
    const float *scale;
    int64_t n, ld;
    void *to;
    float *to_scale;
};

/* A row (a block), times the scales of the weights, as floats. */
template <typename T> static __global__ void put_floats_kernel(const put_t s)
{
    const int64_t r = blockIdx.x;
    T *to = static_cast<T *>(s.to) + r * s.ld;
    for (int64_t i = threadIdx.x; i < s.ld; i += THREADS)
        qp_put(to + i, i < s.n ? s.p[r * s.n + i] * s.scale[i] : 0.0f);
}

/* The same from 0 to 255, which stand there as -128 to 127. */
static __global__ void put_int8_kernel(const put_t s)
{
    const int64_t r = blockIdx.x;
    const float *p = s.p + r * s.n;
    int8_t *to = static_cast<int8_t *>(s.to) + r * s.ld;
    float top = 0.0f;
    for (int64_t i = threadIdx.x; i < s.n; i += THREADS)
        top = qp_max(p[i] * s.scale[i], top);
    top = qp_block_max(top, 0.0f);
    const float factor = top > 1e-30f ? 255.0f / top : 0.0f;
    for (int64_t i = threadIdx.x; i < s.ld; i += THREADS)
        to[i] = i < s.n ? (int8_t)(__float2int_rn(p[i] * s.scale[i] * factor) - 128) : (int8_t)0;
    if (threadIdx.x == 0)
        s.to_scale[r] = top / 255.0f;
}

static qp_error_t put_rows(qp_queue_t *q, const qp_cuda_rows_t *to, const qp_cuda_weight_t *w,
                           qp_mat_t p)
{
    const put_t s = {qp_at<const float>(p.data), w->scale, p.n_col, to->ld, to->data, to->scale};
    const unsigned n_row = (unsigned)p.n_row;
    switch (to->dtype) {
    case QP_F32:
        return QP_LAUNCH(q, (put_floats_kernel<float>), n_row, THREADS, s);
    case QP_BF16:
        return QP_LAUNCH(q, (put_floats_kernel<qp_bf16_t>), n_row, THREADS, s);
    default:
        return QP_LAUNCH(q, put_int8_kernel, n_row, THREADS, s);
    }
}

static qp_error_t add_int8(qp_queue_t *q, const qp_head_t *h, qp_mat_t out, qp_mat_t p,
                           int64_t first)
{
    const qp_cuda_weight_t w = qp_cuda_weight_rows(&h->w, first, p.n_col);
    const qp_dtype_t dtype = qp_cuda_linear_dtype(qp_cuda_device(q), &w, true);
    char *at = h->p;
    qp_cuda_linear_t l = {};
    l.w = &w;
    l.backward = true;
    l.a = qp_cuda_rows(dtype, p.n_row, p.n_col, &at);
    l.a.zero_point = dtype == QP_I8 ? -128 : 0;
    l.y = out;
    if (first > 0)
        l.add = out;
    QP_TRY(put_rows(q, &l.a, &w, p));
    return qp_cuda_linear_product(q, &l);
}

/* The target's row of W, as the forward product sees it; a block per row, 64 features a warp. */
static __global__ void load_targets_kernel(float *to, const int32_t *target, const int8_t *data,
                                           const float *scale, int64_t d, int64_t ld,
                                           qp_rotation_t rotation)
{
    const int64_t r = blockIdx.x, token = target[r];
    const int lane = (int)threadIdx.x % QP_WARP;
    if (token < 0)
        return;
    for (int64_t i = (int64_t)(threadIdx.x / QP_WARP) * 64; i < d; i += THREADS * 2) {
        const int64_t left = i + lane, right = left + QP_WARP;
        float low = left < d ? qp_f32(data[token * ld + left]) : 0.0f;
        float high = right < d ? qp_f32(data[token * ld + right]) : 0.0f;
        qp_rotate64(low, high, rotation);
        if (left < d)
            to[r * d + left] = low * scale[token];
        if (right < d)
            to[r * d + right] = high * scale[token];
    }
}

qp_error_t qp_head_load_targets(qp_queue_t *q, const qp_head_t *h, const int32_t *target)
{
    const int64_t d = h->w.n_in;
    return QP_LAUNCH(q, load_targets_kernel, (unsigned)h->hidden.n_row, THREADS, h->target, target,
                     static_cast<const int8_t *>(h->w.data), h->w.scale, d, h->w.ld,
                     qp_rotation(qp_hadamard_block(d)));
}

/* --- both ------------------------------------------------------------------------------------- */

qp_head_t qp_head(const qp_weight_t *weight)
{
    qp_head_t h = {};
    h.weight = weight;
    h.int8 = weight->kind == QP_WEIGHT_INT8;
    if (h.int8)
        h.w = qp_cuda_weight(weight);
    return h;
}

void qp_head_carve(qp_head_t *h, const qp_cuda_device_t *device, int64_t n_row, bool gradient,
                   char **at)
{
    const int64_t d = h->weight->n_in, n_token = qp_min_i64(h->weight->n_out, QP_HEAD_TOKENS);
    if (!h->int8)
        return;
    h->rows = qp_cuda_rows(qp_cuda_linear_dtype(device, &h->w, false), n_row, d, at);
    if (!gradient)
        return;
    h->target = static_cast<float *>(qp_cuda_carve(at, (size_t)(n_row * d) * sizeof(float)));
    h->p = *at;
    (void)qp_cuda_rows(qp_cuda_linear_dtype(device, &h->w, true), n_row, n_token, at);
}

qp_error_t qp_head_take(qp_queue_t *q, qp_head_t *h, qp_mat_t hidden)
{
    const bool exact = hidden.dtype == QP_F32 && h->weight->kind == QP_WEIGHT_F32;
    h->hidden = hidden;
    h->dtype = exact ? QP_F32 : qp_device_dtype(q->device);
    if (!h->int8)
        return NULL;
    const qp_input_t x = qp_input(hidden);
    h->rows.n_row = hidden.n_row;
    return qp_cuda_linear_prepare(q, &h->rows, &x, &h->w, false);
}

/* Tokens [first, first + n) of a head of floats. */
static qp_mat_t matrix_rows(const qp_head_t *h, int64_t first, int64_t n)
{
    return qp_mat_rows(qp_head_matrix(h->weight), first, n);
}

qp_error_t qp_head_logits(qp_queue_t *q, const qp_head_t *h, qp_mat_t z, int64_t first)
{
    if (h->int8) {
        const qp_cuda_weight_t w = qp_cuda_weight_rows(&h->w, first, z.n_col);
        qp_cuda_linear_t l = {};
        l.w = &w;
        l.a = h->rows;
        l.y = z;
        return qp_cuda_linear_product(q, &l);
    }
    qp_cuda_product_t p = {};
    p.dtype = h->dtype;
    p.trans_b = true;
    p.alpha = 1.0f;
    p.a = h->hidden;
    p.b = matrix_rows(h, first, z.n_col);
    p.c = z;
    return qp_cuda_product(q, &p);
}

qp_error_t qp_head_add(qp_queue_t *q, const qp_head_t *h, qp_mat_t out, qp_mat_t p, int64_t first)
{
    if (h->int8)
        return add_int8(q, h, out, p, first);
    qp_cuda_product_t product = {};
    product.dtype = h->dtype;
    product.alpha = 1.0f;
    product.beta = first == 0 ? 0.0f : 1.0f;
    product.a = p;
    product.b = matrix_rows(h, first, p.n_col);
    product.c = out;
    return qp_cuda_product(q, &product);
}
