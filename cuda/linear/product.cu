/* Products of prepared rows with frozen weights, some columns at a time, and what follows the sums,
 * in the order of compute/cpu/linear/linear_tile.c. */
#include "base/minmax.h"
#include "cuda/gemm/matmul.h"
#include "cuda/linear/hadamard.cuh"
#include "cuda/linear/impl.h"

/* Of sums, and of transposed weights, at a time: they stay in the GPU's cache between the kernels.
 * In emulation less, for the shapes of tests are to have several chunks. */
#ifdef CUDA_ON_CPU
static const int64_t CHUNK_BYTES = 256 << 10;
#else
static const int64_t CHUNK_BYTES = 32 << 20;
#endif
enum { COLUMNS = 64 }; /* a multiple of it begins a chunk: whole blocks of the rotation */

/* --- sums to y -------------------------------------------------------------------------------- */

enum { FINISH_THREADS = 256, FINISH_WARPS = FINISH_THREADS / QP_WARP, FINISH_ROWS = 32 };

/* Some columns of y. Pointers to columns begin with the first of them. */
typedef struct {
    const void *sum; /* [n_row, ld] int32 or fp32 */
    int64_t ld;
    const float *row_scale, *scale, *bias; /* scale, bias: or NULL */
    const int32_t *column_sum;             /* or NULL */
    int32_t zero_point;
    const float *thin; /* [n_row, ld] what outlier columns add, or NULL */
    const int32_t *n_outlier;
    qp_rotation_t rotation;
    qp_mat_t y, add;
} finish_t;

/* A column of y, as all rows need it. */
typedef struct {
    bool is_there;
    int64_t col;
    float scale, bias;
    int32_t offset;
} column_t;

static __device__ inline column_t load_column(const finish_t &p, int64_t col)
{
    column_t c = {col < p.y.n_col, col, 1.0f, 0.0f, 0};
    if (!c.is_there)
        return c;
    if (p.scale != NULL)
        c.scale = p.scale[col];
    if (p.bias != NULL)
        c.bias = p.bias[col];
    if (p.column_sum != NULL)
        c.offset = p.zero_point * p.column_sum[col];
    return c;
}

static __device__ inline float from_sum(float sum, int32_t, float)
{
    return sum;
}

static __device__ inline float from_sum(int32_t sum, int32_t offset, float row_scale)
{
    return (float)(sum - offset) * row_scale;
}

/* Everything but the rotation and what is added. */
template <typename S>
static __device__ inline float finish_element(const finish_t &p, int64_t row, const column_t &c,
                                              float row_scale, bool has_thin)
{
    if (!c.is_there)
        return 0.0f;
    float f = from_sum(((const S *)p.sum)[row * p.ld + c.col], c.offset, row_scale);
    if (has_thin)
        f += p.thin[row * p.ld + c.col];
    if (p.scale != NULL)
        f *= c.scale;
    if (p.bias != NULL)
        f += c.bias;
    return f;
}

static __device__ inline void put_element(const finish_t &p, int64_t row, const column_t &c,
                                          float f)
{
    if (!c.is_there)
        return;
    if (p.add.data.address != 0)
        f += qp_mat_get(p.add, row, c.col);
    qp_mat_put(p.y, row, c.col, f);
}

/* A warp has 64 columns, a lane two of them. Block x: rows, y: columns. */
template <typename S>
static __global__ void __launch_bounds__(FINISH_THREADS) finish_kernel(finish_t p)
{
    const int64_t first = (int64_t)blockIdx.y * COLUMNS + threadIdx.x % QP_WARP;
    const column_t low = load_column(p, first), high = load_column(p, first + QP_WARP);
    const bool has_thin = p.thin != NULL && *p.n_outlier > 0;
    int64_t row = (int64_t)blockIdx.x * FINISH_ROWS + threadIdx.x / QP_WARP;
    for (int i = 0; i < FINISH_ROWS && row < p.y.n_row; i += FINISH_WARPS, row += FINISH_WARPS) {
        const float row_scale = p.row_scale != NULL ? p.row_scale[row] : 1.0f;
        float a = finish_element<S>(p, row, low, row_scale, has_thin);
        float b = finish_element<S>(p, row, high, row_scale, has_thin);
        if (p.rotation.block > 0)
            qp_rotate64(a, b, p.rotation);
        put_element(p, row, low, a);
        put_element(p, row, high, b);
    }
}

/* --- outlier columns -------------------------------------------------------------------------- */

enum { THIN = 64, THIN_DEPTH = 16, THIN_THREADS = 256, THIN_SIDE = 16, THIN_EACH = 4 };

/* The weights of the outlier columns, row by row: to [n, ld]. A block for each row. */
static __global__ void gather_kernel(int8_t *to, int64_t ld, const int8_t *weight,
                                     int64_t weight_ld, const int32_t *column,
                                     const int32_t *n_outlier)
{
    const int64_t row = blockIdx.x;
    const int32_t n = *n_outlier;
    for (int32_t j = threadIdx.x; j < n; j += blockDim.x)
        to[row * ld + j] = weight[row * weight_ld + column[j]];
}

typedef struct {
    float *to; /* [n_row, ld] */
    int64_t n_row, n_col, ld;
    const void *thin; /* [n_row, n_outlier] */
    int64_t thin_ld;
    const int8_t *weight; /* [n_col, n_outlier] */
    int64_t weight_ld;
    const int32_t *n_outlier;
} thin_t;

/* Sums over the outliers in their order, by fused multiply-adds: a row stands alone. A thread has
 * 4 x 4 elements of a tile of 64 x 64. Block x: rows, y: columns. */
template <typename T> static __global__ void __launch_bounds__(THIN_THREADS) thin_kernel(thin_t p)
{
    QP_SHARED(float, a, [THIN_DEPTH][THIN + 1]);
    QP_SHARED(float, b, [THIN_DEPTH][THIN + 1]);
    const int64_t row = (int64_t)blockIdx.x * THIN, col = (int64_t)blockIdx.y * THIN;
    const int x = threadIdx.x % THIN_SIDE, y = threadIdx.x / THIN_SIDE;
    const int32_t n = *p.n_outlier;
    float sum[THIN_EACH][THIN_EACH] = {};
    for (int32_t first = 0; first < n; first += THIN_DEPTH) {
        for (int i = y; i < THIN; i += THIN_SIDE) {
            const bool a_is = row + i < p.n_row && first + x < n;
            const bool b_is = col + i < p.n_col && first + x < n;
            a[x][i] = a_is ? qp_f32(((const T *)p.thin)[(row + i) * p.thin_ld + first + x]) : 0.0f;
            b[x][i] = b_is ? qp_f32(p.weight[(col + i) * p.weight_ld + first + x]) : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < THIN_DEPTH; k++)
#pragma unroll
            for (int i = 0; i < THIN_EACH; i++)
#pragma unroll
                for (int j = 0; j < THIN_EACH; j++)
                    sum[i][j] = fmaf(a[k][y + THIN_SIDE * i], b[k][x + THIN_SIDE * j], sum[i][j]);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < THIN_EACH; i++)
#pragma unroll
        for (int j = 0; j < THIN_EACH; j++) {
            const int64_t r = row + y + THIN_SIDE * i, c = col + x + THIN_SIDE * j;
            if (n > 0 && r < p.n_row && c < p.n_col)
                p.to[r * p.ld + c] = sum[i][j];
        }
}

/* --- chunks of columns ------------------------------------------------------------------------ */

/* A product, some columns at a time. */
typedef struct {
    const qp_cuda_linear_t *l;
    int64_t n_col, k;    /* k: depth of an int8 product */
    int64_t chunk, ld;   /* columns at a time; of sums: distance of rows */
    void *sum;           /* [n_row, ld] */
    float *thin;         /* [n_row, ld], or NULL */
    int8_t *weight;      /* of the chunk: transposed, or of outlier columns; or NULL */
    int32_t *column_sum; /* [chunk] */
    finish_t finish;
} plan_t;

/* Columns of [n_row, n_col] sums at a time, of transposed weights of depth k (0: none); chunks are
 * nearly equal. */
static int64_t chunk_of(int64_t n_row, int64_t n_col, int64_t k)
{
    int64_t most = CHUNK_BYTES / (int64_t)sizeof(int32_t) / qp_int8_rows(n_row);
    if (k > 0)
        most = qp_min_i64(most, CHUNK_BYTES / k);
    most = qp_max_i64(most / COLUMNS * COLUMNS, COLUMNS);
    const int64_t n_chunk = (n_col + most - 1) / most, even = (n_col + n_chunk - 1) / n_chunk;
    return (even + COLUMNS - 1) / COLUMNS * COLUMNS;
}

static size_t sum_bytes(int64_t n_row, int64_t chunk)
{
    return qp_cuda_round256(qp_bytes(qp_int8_rows(n_row) * chunk, sizeof(int32_t)));
}

/* With the sums of its rows. */
static size_t weight_bytes(int64_t chunk, int64_t k)
{
    return qp_cuda_round256(qp_bytes(chunk, (size_t)k)) + qp_bytes(chunk, sizeof(int32_t));
}

/* k: of the weights that a chunk wants apart; 0: none. */
static void make_plan(qp_queue_t *q, plan_t *p, const qp_cuda_linear_t *l, int64_t k)
{
    const int64_t n_row = l->a.n_row;
    p->l = l;
    p->n_col = l->backward ? l->w->n_in : l->w->n_out;
    p->k = l->a.ld;
    p->chunk = p->ld = chunk_of(n_row, p->n_col, k);
    const size_t bytes = sum_bytes(n_row, p->chunk);
    char *sums =
        (char *)qp_cuda_scratch(q, QP_CUDA_SCRATCH_PRODUCT, bytes * (l->outliers != NULL ? 2 : 1));
    p->sum = sums;
    p->thin = l->outliers != NULL ? (float *)(sums + bytes) : NULL;
    if (k > 0) {
        p->weight =
            (int8_t *)qp_cuda_scratch(q, QP_CUDA_SCRATCH_TRANSPOSED, weight_bytes(p->chunk, k));
        p->column_sum = (int32_t *)(p->weight + qp_cuda_round256(qp_bytes(p->chunk, (size_t)k)));
    }
}

/* What outlier columns add to columns [first, first + n). */
static qp_error_t add_outliers(qp_queue_t *q, const plan_t *p, int64_t first, int64_t n)
{
    const qp_cuda_outliers_t *o = p->l->outliers;
    const qp_cuda_weight_t *w = p->l->w;
    const int64_t n_row = p->l->a.n_row;
    const int8_t *weight = (const int8_t *)w->data + first * w->ld;
    const thin_t thin = {p->thin, n_row, n, p->ld, o->thin, o->ld, p->weight, w->ld, o->count};
    const dim3 grid(qp_blocks_of(n_row, THIN), qp_blocks_of(n, THIN));
    QP_TRY(QP_LAUNCH(q, gather_kernel, (unsigned)n, 128, p->weight, w->ld, weight, w->ld, o->column,
                     o->count));
    return o->thin_dtype == QP_F32
               ? QP_LAUNCH(q, (thin_kernel<float>), grid, THIN_THREADS, thin)
               : QP_LAUNCH(q, (thin_kernel<qp_bf16_t>), grid, THIN_THREADS, thin);
}

/* Sums of columns [first, first + n) to y. */
template <typename S>
static qp_error_t finish(qp_queue_t *q, const plan_t *p, int64_t first, int64_t n)
{
    const qp_cuda_linear_t *l = p->l;
    const bool scaled = !l->backward;
    finish_t f = {};
    f.sum = p->sum;
    f.ld = p->ld;
    f.row_scale = l->a.scale;
    f.scale = scaled && l->w->scale != NULL ? l->w->scale + first : NULL;
    f.bias = scaled && l->w->bias != NULL ? l->w->bias + first : NULL;
    f.column_sum = l->a.zero_point != 0 ? p->column_sum : NULL;
    f.zero_point = l->a.zero_point;
    f.thin = p->thin;
    f.n_outlier = l->outliers != NULL ? l->outliers->count : NULL;
    if (l->backward && l->w->kind == QP_WEIGHT_INT8)
        f.rotation = qp_rotation(qp_hadamard_block(l->w->n_in));
    f.y = qp_mat_cols(l->y, first, n);
    if (l->add.data.address != 0)
        f.add = qp_mat_cols(l->add, first, n);
    const dim3 grid(qp_blocks_of(f.y.n_row, FINISH_ROWS), qp_blocks_of(n, COLUMNS));
    return QP_LAUNCH(q, (finish_kernel<S>), grid, FINISH_THREADS, f);
}

static qp_error_t int8_chunk(qp_queue_t *q, const plan_t *p, int64_t first, int64_t n)
{
    const qp_cuda_linear_t *l = p->l;
    qp_int8_product_t product = {};
    product.a = (const int8_t *)l->a.data;
    product.c = (int32_t *)p->sum;
    product.m = qp_int8_rows(l->a.n_row);
    product.n = qp_int8_rows(n);
    product.k = product.lda = product.ldb = p->k;
    product.ldc = p->ld;
    if (l->backward) {
        QP_TRY(qp_cuda_weight_transpose(q, p->weight, l->w, first, n));
        if (l->a.zero_point != 0)
            QP_TRY(qp_cuda_weight_sums(q, p->column_sum, p->weight, n, p->k));
        product.b = p->weight;
    } else {
        product.b = (const int8_t *)l->w->data + first * l->w->ld;
    }
    QP_TRY(qp_cublaslt_int8(q, &product));
    if (l->outliers != NULL)
        QP_TRY(add_outliers(q, p, first, n));
    return finish<int32_t>(q, p, first, n);
}

static qp_error_t int8_product(qp_queue_t *q, const qp_cuda_linear_t *l)
{
    plan_t p = {};
    const bool apart = l->backward || l->outliers != NULL;
    QP_ASSERT(l->a.ld == qp_int8_align(l->backward ? l->w->n_out : l->w->n_in));
    QP_ASSERT(l->a.zero_point == 0 || l->backward);
    make_plan(q, &p, l, apart ? l->a.ld : 0);
    for (int64_t first = 0; first < p.n_col; first += p.chunk)
        QP_TRY(int8_chunk(q, &p, first, qp_min_i64(p.chunk, p.n_col - first)));
    return NULL;
}

/* --- products of floats ----------------------------------------------------------------------- */

static qp_cuda_product_t float_product(qp_queue_t *q, const qp_cuda_linear_t *l)
{
    const qp_cuda_weight_t *w = l->w;
    qp_cuda_product_t p = {};
    p.dtype = qp_cuda_linear_dtype(qp_cuda_device(q), w, l->backward);
    p.trans_b = !l->backward;
    p.alpha = 1.0f;
    p.a.data.address = (uintptr_t)l->a.data;
    p.a.dtype = l->a.dtype;
    p.a.n_row = l->a.n_row;
    p.a.n_col = l->a.n_col;
    p.a.ld = l->a.ld;
    p.b.data.address = (uintptr_t)w->data;
    p.b.dtype = qp_weight_dtype(w->kind);
    p.b.n_row = w->n_out;
    p.b.n_col = w->n_in;
    p.b.ld = w->ld;
    return p;
}

/* dx in the rotation of the weights, then rotated back; some columns at a time. */
static qp_error_t rotated_product(qp_queue_t *q, const qp_cuda_linear_t *l)
{
    plan_t p = {};
    make_plan(q, &p, l, 0);
    for (int64_t first = 0; first < p.n_col; first += p.chunk) {
        const int64_t n = qp_min_i64(p.chunk, p.n_col - first);
        qp_cuda_product_t product = float_product(q, l);
        product.b = qp_mat_cols(product.b, first, n);
        product.c.data.address = (uintptr_t)p.sum;
        product.c.dtype = QP_F32;
        product.c.n_row = l->a.n_row;
        product.c.n_col = n;
        product.c.ld = p.ld;
        QP_TRY(qp_cuda_product(q, &product));
        QP_TRY(finish<float>(q, &p, first, n));
    }
    return NULL;
}

/* --- for all ---------------------------------------------------------------------------------- */

QP_CUDA_BEGIN

qp_error_t qp_cuda_linear_product(qp_queue_t *q, const qp_cuda_linear_t *l)
{
    if (l->a.n_row == 0)
        return NULL;
    if (l->a.dtype == QP_I8)
        return int8_product(q, l);
    if (l->backward && l->w->kind == QP_WEIGHT_INT8)
        return rotated_product(q, l);
    qp_cuda_product_t p = float_product(q, l);
    p.c = l->y;
    p.add = l->add;
    p.column_scale = l->backward ? NULL : l->w->scale;
    p.bias = l->backward ? NULL : l->w->bias;
    return qp_cuda_product(q, &p);
}

/* A chunk is as large as CHUNK_BYTES or as the least number of columns. */
void qp_cuda_product_need(const qp_cuda_device_t *device, const qp_pass_size_t *size,
                          qp_cuda_need_t *need)
{
    if (qp_weight_dtype(size->weight) != QP_I8)
        return;
    const int64_t n_row = size->n_token, k = qp_int8_align(size->widest);
    const int64_t n_col = (size->widest + COLUMNS - 1) / COLUMNS * COLUMNS;
    const size_t most = (size_t)CHUNK_BYTES;
    const size_t least_sums = sum_bytes(n_row, COLUMNS), all_sums = sum_bytes(n_row, n_col);
    const size_t sums = least_sums > most ? least_sums : most;
    const size_t least = weight_bytes(COLUMNS, k), all = weight_bytes(n_col, k);
    const size_t chunk = most + qp_bytes(n_col, sizeof(int32_t)),
                 weights = least > chunk ? least : chunk;
    const bool llm = size->weight == QP_WEIGHT_LLM_INT8;
    qp_cuda_need(need, QP_CUDA_SCRATCH_PRODUCT,
                 (all_sums < sums ? all_sums : sums) * (llm ? 2 : 1));
    if (llm || size->backward)
        qp_cuda_need(need, QP_CUDA_SCRATCH_TRANSPOSED, all < weights ? all : weights);
    qp_cuda_need(need, QP_CUDA_SCRATCH_WORKSPACE, qp_cublaslt_workspace(device));
}

QP_CUDA_END
