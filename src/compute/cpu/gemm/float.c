#include "compute/cpu/gemm/float.h"

#include "compute/cpu/gemm/dnnl.h"
#include "compute/cpu/rows/math.h"
#include "compute/cpu/gemm/strip.h"

/* A block of rows times some vectors of columns, whose sums stay in registers. In each step a row
 * gives one dword, the same for all columns, and a column one of its own: a number of fp32, or two
 * of bf16. */
typedef struct {
    const char *a, *b;
    int64_t a_stride; /* bytes between rows of a */
    int64_t n_step;
    bool half; /* one more step has only its first number */
    float *c;
    bool accumulate;
} block_t;

enum { WORD_BYTES = 4, HALF_BYTES = 2, STEP_BYTES = WORD_BYTES * QP_CPU_STRIP };

static block_t first_block(const qp_cpu_float_t *p, qp_dtype_t dtype)
{
    const bool pairs = dtype == QP_BF16;
    return (block_t){.a = p->a,
                     .b = p->strip,
                     .a_stride = p->lda * (int64_t)qp_dtype_bytes(dtype),
                     .n_step = pairs ? p->k / 2 : p->k,
                     .half = pairs && p->k % 2 != 0,
                     .c = p->c,
                     .accumulate = p->accumulate};
}

#if defined(__x86_64__)

#include <immintrin.h>

/* As many sums as the registers hold beside their operands. */
enum { MAX_VECTOR = 4, MAX_SUM = 24, N_HEIGHT = 4 };

/*
 * Defines block_<name>(), which is to be inlined where n_row and n_vector are constants. A macro,
 * for an inline function cannot be told its instruction set by the function it is inlined into.
 */
#define DEFINE_KERNEL(name, isa, vector, SET, MULTIPLY_ADD)                                      \
    __attribute__((target(isa), always_inline)) static inline void step_##name(                  \
        vector *sum, const char *a, int64_t a_stride, const char *b, int n_row, int n_vector,    \
        size_t bytes)                                                                            \
    {                                                                                            \
        vector column[MAX_VECTOR];                                                               \
        _Pragma("GCC unroll 4") for (int v = 0; v < n_vector; v++)                               \
            memcpy(&column[v], b + (size_t)v * sizeof(vector), sizeof(vector));                  \
        _Pragma("GCC unroll 24") for (int r = 0; r < n_row; r++)                                 \
        {                                                                                        \
            int32_t dword = 0;                                                                   \
            memcpy(&dword, a + r * a_stride, bytes);                                             \
            const vector all = (vector)SET(dword);                                               \
            _Pragma("GCC unroll 4") for (int v = 0; v < n_vector; v++) sum[r * n_vector + v] =   \
                MULTIPLY_ADD(sum[r * n_vector + v], all, column[v]);                             \
        }                                                                                        \
    }                                                                                            \
    __attribute__((target(isa), always_inline)) static inline void block_##name(                 \
        const block_t *t, int n_row, int n_vector)                                               \
    {                                                                                            \
        enum { LANES = sizeof(vector) / sizeof(float) };                                         \
        vector sum[MAX_SUM];                                                                     \
        _Pragma("GCC unroll 24") for (int i = 0; i < n_row * n_vector; i++)                      \
        {                                                                                        \
            sum[i] = (vector){0};                                                                \
            if (t->accumulate)                                                                   \
                memcpy(&sum[i], t->c + i / n_vector * QP_CPU_STRIP + i % n_vector * LANES,       \
                       sizeof(vector));                                                          \
        }                                                                                        \
        const char *a = t->a, *b = t->b;                                                         \
        for (int64_t i = 0; i < t->n_step; i++, a += WORD_BYTES, b += STEP_BYTES)                \
            step_##name(sum, a, t->a_stride, b, n_row, n_vector, WORD_BYTES);                    \
        if (t->half)                                                                             \
            step_##name(sum, a, t->a_stride, b, n_row, n_vector, HALF_BYTES);                    \
        _Pragma("GCC unroll 24") for (int i = 0; i < n_row * n_vector; i++) memcpy(              \
            t->c + i / n_vector * QP_CPU_STRIP + i % n_vector * LANES, &sum[i], sizeof(vector)); \
    }

#define DEFINE_BLOCK(name, isa, n_row, n_vector)                                                   \
    __attribute__((target(isa))) static void block_##name##_##n_row##_##n_vector(const block_t *t) \
    {                                                                                              \
        block_##name(t, n_row, n_vector);                                                          \
    }

/* Blocks of one width by their number of rows, the highest first. */
typedef struct {
    int64_t n_row;
    void (*run)(const block_t *block);
} height_t;

typedef struct {
    qp_dtype_t dtype;
    int64_t n_lane, max_vector;
    height_t height[MAX_VECTOR][N_HEIGHT];
} kernel_t;

/* All rows, column by column of blocks. */
static void run(const kernel_t *kernel, const qp_cpu_float_t *p)
{
    const int64_t width = kernel->n_lane * kernel->max_vector;
    block_t t = first_block(p, kernel->dtype);
    for (int64_t j = 0; j < p->n; j += width, t.b += width * WORD_BYTES) {
        const int64_t n_vector =
            (qp_min_i64(p->n - j, width) + kernel->n_lane - 1) / kernel->n_lane;
        const height_t *height = kernel->height[n_vector - 1];
        t.a = p->a;
        t.c = p->c + j;
        for (int64_t left = p->m; left > 0; left -= height->n_row) {
            while (height->n_row > left)
                height++;
            height->run(&t);
            t.a += height->n_row * t.a_stride;
            t.c += height->n_row * QP_CPU_STRIP;
        }
    }
}

/* --- AVX2: half of a strip's 16 columns in a register ------------------------------------------
 */

#define AVX2 "avx2,fma"
#define FMA_256(sum, a, b) _mm256_fmadd_ps((a), (b), (sum))

DEFINE_KERNEL(avx2, AVX2, __m256, _mm256_set1_epi32, FMA_256)
DEFINE_BLOCK(avx2, AVX2, 1, 1)
DEFINE_BLOCK(avx2, AVX2, 2, 1)
DEFINE_BLOCK(avx2, AVX2, 4, 1)
DEFINE_BLOCK(avx2, AVX2, 8, 1)
DEFINE_BLOCK(avx2, AVX2, 1, 2)
DEFINE_BLOCK(avx2, AVX2, 2, 2)
DEFINE_BLOCK(avx2, AVX2, 4, 2)
DEFINE_BLOCK(avx2, AVX2, 6, 2)

static const kernel_t with_avx2 = {
    QP_F32,
    8,
    2,
    {{{8, block_avx2_8_1}, {4, block_avx2_4_1}, {2, block_avx2_2_1}, {1, block_avx2_1_1}},
     {{6, block_avx2_6_2}, {4, block_avx2_4_2}, {2, block_avx2_2_2}, {1, block_avx2_1_2}}}};

static void product_avx2(const qp_cpu_float_t *p)
{
    run(&with_avx2, p);
}

/* --- AVX-512 ---------------------------------------------------------------------------------- */

#define DEFINE_ALL_512(name, isa, dtype, MULTIPLY_ADD)                \
    DEFINE_KERNEL(name, isa, __m512, _mm512_set1_epi32, MULTIPLY_ADD) \
    DEFINE_BLOCK(name, isa, 1, 1)                                     \
    DEFINE_BLOCK(name, isa, 2, 1)                                     \
    DEFINE_BLOCK(name, isa, 4, 1)                                     \
    DEFINE_BLOCK(name, isa, 8, 1)                                     \
    DEFINE_BLOCK(name, isa, 1, 2)                                     \
    DEFINE_BLOCK(name, isa, 2, 2)                                     \
    DEFINE_BLOCK(name, isa, 4, 2)                                     \
    DEFINE_BLOCK(name, isa, 8, 2)                                     \
    DEFINE_BLOCK(name, isa, 1, 3)                                     \
    DEFINE_BLOCK(name, isa, 2, 3)                                     \
    DEFINE_BLOCK(name, isa, 4, 3)                                     \
    DEFINE_BLOCK(name, isa, 8, 3)                                     \
    DEFINE_BLOCK(name, isa, 1, 4)                                     \
    DEFINE_BLOCK(name, isa, 2, 4)                                     \
    DEFINE_BLOCK(name, isa, 4, 4)                                     \
    DEFINE_BLOCK(name, isa, 6, 4)                                     \
    static void product_##name(const qp_cpu_float_t *p)               \
    {                                                                 \
        static const kernel_t kernel = {dtype,                        \
                                        16,                           \
                                        4,                            \
                                        {{{8, block_##name##_8_1},    \
                                          {4, block_##name##_4_1},    \
                                          {2, block_##name##_2_1},    \
                                          {1, block_##name##_1_1}},   \
                                         {{8, block_##name##_8_2},    \
                                          {4, block_##name##_4_2},    \
                                          {2, block_##name##_2_2},    \
                                          {1, block_##name##_1_2}},   \
                                         {{8, block_##name##_8_3},    \
                                          {4, block_##name##_4_3},    \
                                          {2, block_##name##_2_3},    \
                                          {1, block_##name##_1_3}},   \
                                         {{6, block_##name##_6_4},    \
                                          {4, block_##name##_4_4},    \
                                          {2, block_##name##_2_4},    \
                                          {1, block_##name##_1_4}}}}; \
        run(&kernel, p);                                              \
    }

#define FMA_512(sum, a, b) _mm512_fmadd_ps((a), (b), (sum))
#define DOT_PAIRS(sum, a, b) _mm512_dpbf16_ps((sum), (__m512bh)(a), (__m512bh)(b))

/* Without AVX-512 BF16: the two numbers of a pair one after the other, each exact in fp32. */
#define FIRST(x) ((__m512)_mm512_slli_epi32((__m512i)(x), 16))
#define SECOND(x) ((__m512)_mm512_and_si512((__m512i)(x), _mm512_set1_epi32(-65536)))
#define ADD_PAIRS(sum, a, b) \
    _mm512_fmadd_ps(SECOND(a), SECOND(b), _mm512_fmadd_ps(FIRST(a), FIRST(b), (sum)))

DEFINE_ALL_512(avx512, "avx512f", QP_F32, FMA_512)
DEFINE_ALL_512(bf16, "avx512f,avx512bf16", QP_BF16, DOT_PAIRS)
DEFINE_ALL_512(pairs, "avx512f", QP_BF16, ADD_PAIRS)

static qp_cpu_float_product_t product_x86(qp_dtype_t dtype)
{
    static const struct {
        qp_dtype_t dtype;
        dnnl_cpu_isa_t isa;
        qp_cpu_float_product_t product;
    } table[] = {
        {QP_F32, dnnl_cpu_isa_avx512_core, product_avx512},
        {QP_F32, dnnl_cpu_isa_avx2, product_avx2},
        {QP_BF16, dnnl_cpu_isa_avx512_core_bf16, product_bf16},
        {QP_BF16, dnnl_cpu_isa_avx512_core, product_pairs},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].dtype == dtype && qp_cpu_dnnl_has(table[i].isa))
            return table[i].product;
    return NULL;
}

#else

static qp_cpu_float_product_t product_x86(qp_dtype_t dtype)
{
    (void)dtype;
    return NULL;
}

#endif

/* --- any CPU ---------------------------------------------------------------------------------- */

static void product_plain(const qp_cpu_float_t *p)
{
    const block_t t = first_block(p, QP_F32);
    for (int64_t r = 0; r < p->m; r++) {
        float *restrict c = t.c + r * QP_CPU_STRIP;
        const float *restrict a = (const float *)(t.a + r * t.a_stride), *restrict b = p->strip;
        if (!p->accumulate)
            memset(c, 0, QP_CPU_STRIP * sizeof *c);
        for (int64_t i = 0; i < t.n_step; i++, b += QP_CPU_STRIP)
            for (int64_t j = 0; j < QP_CPU_STRIP; j++)
                c[j] += a[i] * b[j];
    }
}

qp_cpu_float_product_t qp_cpu_float_product(qp_dtype_t dtype)
{
    const qp_cpu_float_product_t product = product_x86(dtype);
    return product == NULL && dtype == QP_F32 ? product_plain : product;
}
