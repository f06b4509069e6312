/* Rows for a product with frozen weights: one kernel computes a row, rotates it and rounds it, in
 * the formulas of compute/cpu/linear/linear.c and compute/cpu/rows/quantise.c. */
#include "cuda/linear/hadamard.cuh"
#include "cuda/linear/impl.h"
#include "cuda/rows/input.cuh"

/* Bytes of a row in fp32 that a block keeps in shared memory, on every GPU with what sums take;
 * longer ones lie in memory, which so many blocks for each multiprocessor share. */
enum { ROW_SHARED = 96 << 10, BLOCKS_OF_SM = 2, LIST_THREADS = 1024 };

/* What is to be done with the rows of an input. */
typedef struct {
    qp_input_t in;
    int64_t n; /* features */
    qp_rotation_t rotation;
    const float *factor; /* [n] of the features, or NULL */
    int32_t limit;       /* bits of |x| from which on it does not count in absmax; infinity does */
    qp_cuda_rows_t to;
    float *memory;        /* [blocks, n] rows that are too long for shared memory, or NULL */
    const int32_t *place; /* [n] places of outlier columns in the thin matrix, else -1; or NULL */
    qp_cuda_outliers_t outliers;
} prepare_t;

/* --- a row ------------------------------------------------------------------------------------ */

static __device__ void rotate_row(float *x, int64_t n, qp_rotation_t rotation)
{
    const int lane = threadIdx.x % QP_WARP, n_warp = blockDim.x / QP_WARP;
    for (int64_t i = threadIdx.x / QP_WARP * 64 + lane; i - lane < n; i += n_warp * 64) {
        float low = i < n ? x[i] : 0.0f, high = i + QP_WARP < n ? x[i + QP_WARP] : 0.0f;
        qp_rotate64(low, high, rotation);
        if (i < n)
            x[i] = low;
        if (i + QP_WARP < n)
            x[i + QP_WARP] = high;
    }
}

/* The largest |x|, by its bits, which order like integers and have NaN on top; of those below the
 * limit, or NaN. The same in all threads. */
static __device__ float absmax_of(const float *x, int64_t n, int32_t limit)
{
    QP_SHARED(int32_t, part, [QP_WARP]);
    const int32_t infinity = 0x7f800000;
    const int lane = threadIdx.x % QP_WARP, n_warp = blockDim.x / QP_WARP;
    int32_t top = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        const int32_t m = __float_as_int(x[i]) & 0x7fffffff;
        top = (m < limit || m > infinity) && m > top ? m : top;
    }
    for (int h = QP_WARP / 2; h > 0; h /= 2) {
        const int32_t other = __shfl_xor_sync(0xffffffffu, top, h);
        top = other > top ? other : top;
    }
    if (lane == 0)
        part[threadIdx.x / QP_WARP] = top;
    __syncthreads();
    top = 0;
    for (int w = 0; w < n_warp; w++)
        top = part[w] > top ? part[w] : top;
    __syncthreads();
    return __int_as_float(top);
}

/* rn(factor x), half to even, 0 of NaN; outliers that are kept apart may be beyond 127. */
static __device__ inline uint32_t round_to_int8(float x, float factor)
{
    float y = x * factor;
    y = y < -127.0f ? -127.0f : y;
    y = y > 127.0f ? 127.0f : y;
    y += 12582912.0f; /* 1.5 2^23: the integer stands in the lowest bits */
    return y == y ? __float_as_uint(y) & 0xffu : 0u;
}

/* Four bytes of q at a time, zeros behind the row. */
static __device__ void quantise_row(const prepare_t &p, int64_t r, const float *x)
{
    const float absmax = absmax_of(x, p.n, p.limit);
    const float factor = absmax > 1e-30f ? 127.0f / absmax : 0.0f;
    uint32_t *to = (uint32_t *)((int8_t *)p.to.data + r * p.to.ld);
    if (threadIdx.x == 0)
        p.to.scale[r] = absmax / 127.0f;
    for (int64_t word = threadIdx.x; word < p.to.ld / 4; word += blockDim.x) {
        uint32_t q = 0;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int64_t i = 4 * word + k;
            if (i < p.n && (p.place == NULL || p.place[i] < 0))
                q |= round_to_int8(x[i], factor) << 8 * k;
        }
        to[word] = q;
    }
}

static __device__ inline void put_float(void *to, qp_dtype_t dtype, int64_t at, float x)
{
    if (dtype == QP_F32)
        ((float *)to)[at] = x;
    else
        qp_put((qp_bf16_t *)to + at, x);
}

/* The thin matrix gets the columns as they are. */
static __device__ void take_outliers(const qp_cuda_outliers_t &o, int64_t r, const float *x)
{
    const int32_t count = *o.count;
    for (int32_t j = threadIdx.x; j < count; j += blockDim.x)
        put_float((void *)o.thin, o.thin_dtype, r * o.ld + j, x[o.column[j]]);
}

static __device__ void prepare_row(const prepare_t &p, int64_t r, float *x)
{
    qp_input_row(p.in, r,
                 [&](int64_t i, float v) { x[i] = p.factor == NULL ? v : v * p.factor[i]; });
    __syncthreads();
    if (p.rotation.block > 0) {
        rotate_row(x, p.n, p.rotation);
        __syncthreads();
    }
    if (p.to.dtype == QP_I8)
        quantise_row(p, r, x);
    else
        for (int64_t i = threadIdx.x; i < p.n; i += blockDim.x)
            put_float(p.to.data, p.to.dtype, r * p.to.ld + i, x[i]);
    if (p.place != NULL)
        take_outliers(p.outliers, r, x);
    __syncthreads(); /* the next row comes to the same place */
}

static __global__ void prepare_kernel(prepare_t p)
{
    QP_SHARED_DYNAMIC(float, shared);
    float *x = p.memory == NULL ? shared : p.memory + blockIdx.x * p.n;
    for (int64_t r = blockIdx.x; r < p.to.n_row; r += gridDim.x)
        prepare_row(p, r, x);
}

static unsigned long_row_blocks(const qp_cuda_device_t *device, int64_t n_row)
{
    const int64_t n = (int64_t)device->n_sm * BLOCKS_OF_SM;
    return (unsigned)(n_row < n ? n_row : n);
}

static size_t long_row_bytes(const qp_cuda_device_t *device, int64_t n_row, int64_t n)
{
    const size_t row_bytes = qp_bytes(n, sizeof(float));
    return row_bytes <= ROW_SHARED ? 0 : long_row_blocks(device, n_row) * row_bytes;
}

static qp_error_t launch(qp_queue_t *q, prepare_t *p)
{
    const size_t row_bytes = qp_bytes(p->n, sizeof(float));
    const qp_cuda_device_t *device = qp_cuda_device(q);
    const bool in_memory = row_bytes > ROW_SHARED;
    const unsigned grid = in_memory ? long_row_blocks(device, p->to.n_row) : (unsigned)p->to.n_row;
    if (in_memory)
        p->memory = (float *)qp_cuda_scratch(q, QP_CUDA_SCRATCH_LONG_ROWS,
                                             long_row_bytes(device, p->to.n_row, p->n));
    return QP_LAUNCH_SHARED(q, prepare_kernel, grid, qp_row_threads(p->n),
                            in_memory ? 0 : row_bytes, *p);
}

static prepare_t prepare_of(const qp_cuda_rows_t *rows, const qp_input_t *x,
                            const qp_cuda_weight_t *w, bool backward)
{
    const bool rotates = !backward && w->kind == QP_WEIGHT_INT8;
    prepare_t p = {};
    QP_ASSERT(rows->n_col == qp_input_n_col(x) && rows->n_row == x->x.n_row);
    QP_ASSERT(rows->n_col == (backward ? w->n_out : w->n_in));
    p.in = *x;
    p.n = rows->n_col;
    if (rotates)
        p.rotation = qp_rotation(qp_hadamard_block(p.n));
    p.factor = backward ? w->scale : NULL;
    p.limit = INT32_MAX;
    p.to = *rows;
    return p;
}

/* --- outlier columns of LLM.int8 -------------------------------------------------------------- */

/* Marks the columns where a row has an outlier: several rows may have one in the same column. */
static __global__ void mark_kernel(int32_t *mark, qp_input_t in, float threshold)
{
    qp_input_row(in, blockIdx.x, [&](int64_t i, float x) {
        if (x >= threshold || x <= -threshold)
            atomicAdd(&mark[i], 1);
    });
}

/* One block: the marked columns in ascending order, and the place of each column among them. */
static __global__ void list_kernel(int32_t *column, int32_t *place, int32_t *count,
                                   const int32_t *mark, int64_t n)
{
    QP_SHARED(int32_t, of_warp, [QP_WARP]);
    const int warp = threadIdx.x / QP_WARP, n_warp = blockDim.x / QP_WARP;
    const unsigned before_me = (1u << threadIdx.x % QP_WARP) - 1u;
    int32_t n_listed = 0;
    for (int64_t first = 0; first < n; first += blockDim.x) {
        const int64_t i = first + threadIdx.x;
        const bool marked = i < n && mark[i] != 0;
        const unsigned lanes = __ballot_sync(0xffffffffu, marked);
        if (threadIdx.x % QP_WARP == 0)
            of_warp[warp] = __popc(lanes);
        __syncthreads();
        int32_t at = n_listed + __popc(lanes & before_me);
        for (int w = 0; w < n_warp; w++) {
            at += w < warp ? of_warp[w] : 0;
            n_listed += of_warp[w];
        }
        if (i < n)
            place[i] = marked ? at : -1;
        if (marked)
            column[at] = (int32_t)i;
        __syncthreads();
    }
    if (threadIdx.x == 0)
        *count = n_listed;
}

typedef struct {
    int32_t *mark, *count, *column, *place; /* [n], [1], [n], [n] */
} outlier_memory_t;

static outlier_memory_t carve_outliers(char **at, int64_t n)
{
    outlier_memory_t m;
    m.mark = (int32_t *)qp_cuda_carve(at, qp_bytes(n, sizeof *m.mark));
    m.count = (int32_t *)qp_cuda_carve(at, sizeof *m.count);
    m.column = (int32_t *)qp_cuda_carve(at, qp_bytes(n, sizeof *m.column));
    m.place = (int32_t *)qp_cuda_carve(at, qp_bytes(n, sizeof *m.place));
    return m;
}

static size_t outlier_bytes(int64_t n)
{
    char *at = NULL;
    (void)carve_outliers(&at, n);
    return (size_t)at;
}

static qp_error_t find_outliers(qp_queue_t *q, const outlier_memory_t *m, const qp_input_t *x,
                                int64_t n, float threshold)
{
    qp_input_t look = *x;
    look.copy.data.address = 0; /* made once, with the rows */
    QP_TRY(QP_CUDA(cudaMemsetAsync(m->mark, 0, qp_bytes(n, sizeof *m->mark), qp_cuda_stream(q))));
    QP_TRY(QP_LAUNCH(q, mark_kernel, (unsigned)x->x.n_row, qp_row_threads(n), m->mark, look,
                     threshold));
    return QP_LAUNCH(q, list_kernel, 1, LIST_THREADS, m->column, m->place, m->count, m->mark, n);
}

/* --- for all ---------------------------------------------------------------------------------- */

QP_CUDA_BEGIN

qp_cuda_rows_t qp_cuda_rows(qp_dtype_t dtype, int64_t n_row, int64_t n_col, char **at)
{
    const bool int8 = dtype == QP_I8;
    qp_cuda_rows_t rows = {};
    rows.dtype = dtype;
    rows.n_row = n_row;
    rows.n_col = n_col;
    rows.ld = qp_int8_align(n_col);
    rows.data = qp_cuda_carve(
        at, qp_bytes((int8 ? qp_int8_rows(n_row) : n_row) * rows.ld, qp_dtype_bytes(dtype)));
    rows.scale = int8 ? (float *)qp_cuda_carve(at, qp_bytes(n_row, sizeof(float))) : NULL;
    return rows;
}

qp_error_t qp_cuda_linear_prepare(qp_queue_t *q, const qp_cuda_rows_t *rows, const qp_input_t *x,
                                  const qp_cuda_weight_t *w, bool backward)
{
    prepare_t p = prepare_of(rows, x, w, backward);
    QP_ASSERT(w->kind != QP_WEIGHT_LLM_INT8 || rows->dtype != QP_I8);
    return rows->n_row > 0 ? launch(q, &p) : NULL;
}

qp_error_t qp_cuda_linear_prepare_llm(qp_queue_t *q, const qp_cuda_rows_t *rows,
                                      const qp_cuda_rows_t *thin, qp_cuda_outliers_t *outliers,
                                      const qp_input_t *x, const qp_cuda_weight_t *w)
{
    const float threshold = w->mode.outlier_threshold;
    const int64_t n = rows->n_col;
    prepare_t p = prepare_of(rows, x, w, false);
    char *at = (char *)qp_cuda_scratch(q, QP_CUDA_SCRATCH_OUTLIER, outlier_bytes(n));
    const outlier_memory_t m = carve_outliers(&at, n);
    QP_ASSERT(thin->dtype != QP_I8 && thin->n_row == rows->n_row && thin->n_col == n);
    memcpy(&p.limit, &threshold, sizeof p.limit);
    p.limit &= INT32_MAX; /* without the sign */
    p.place = m.place;
    p.outliers = {m.count, m.column, thin->data, thin->dtype, thin->ld};
    *outliers = p.outliers;
    QP_TRY(find_outliers(q, &m, x, n, threshold));
    return launch(q, &p);
}

void qp_cuda_prepare_need(const qp_cuda_device_t *device, const qp_pass_size_t *size,
                          qp_cuda_need_t *need)
{
    const qp_dtype_t compute = qp_device_dtype(&device->base);
    const qp_dtype_t dtype = size->weight == QP_WEIGHT_F32 ? QP_F32 : compute;
    const int64_t n = size->n_token, k = size->widest;
    const bool llm = size->weight == QP_WEIGHT_LLM_INT8;
    char *floats = NULL, *bytes = NULL;
    (void)qp_cuda_rows(dtype, n, k, &floats);
    (void)qp_cuda_rows(QP_I8, n, k, llm ? &floats : &bytes);
    qp_cuda_need(need, QP_CUDA_SCRATCH_ACTIVATION, (size_t)(floats > bytes ? floats : bytes));
    qp_cuda_need(need, QP_CUDA_SCRATCH_LONG_ROWS, long_row_bytes(device, n, k));
    if (llm)
        qp_cuda_need(need, QP_CUDA_SCRATCH_OUTLIER, outlier_bytes(k));
}

QP_CUDA_END
