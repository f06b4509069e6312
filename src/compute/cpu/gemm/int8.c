#include "compute/cpu/gemm/int8.h"

#include "compute/cpu/gemm/dnnl.h"
#include "compute/cpu/gemm/tile.h"

#if defined(__x86_64__)

#include <immintrin.h>

/*
 * All products hold a block of a few rows x one strip of sums in registers. In each step a row
 * gives one dword, the same for all columns, and a column one dword of its own: four bytes of each
 * with VNNI, two 16-bit numbers with AVX2, whose byte product (vpmaddubsw) saturates.
 */
enum { STRIP = 16, PANEL = QP_CPU_PACK, LANES = 8 };
enum { LANES_512 = 16, VECTORS = PANEL / LANES_512, MAX_ROW_512 = 6 };

/* Where the operands of a block stand: rows of a and steps of b so many bytes apart. */
typedef struct {
    const char *a, *b;
    int64_t a_stride, b_stride, n_step;
    int32_t *c;
    int64_t ldc;
    bool accumulate;
    const char *next; /* AVX-512: what is called into the cache, next_step bytes a step */
    int64_t next_step;
} block_t;

/* Defines block_<name>_<n_row>(). A macro, for an inline function cannot
 * be told its instruction set by the function it is inlined into. */
#define DEFINE_BLOCK(name, isa, n_row, MULTIPLY_ADD)                                        \
    __attribute__((target(isa))) static void block_##name##_##n_row(const block_t *t)       \
    {                                                                                       \
        __m256i sum[n_row][2];                                                              \
        for (int r = 0; r < (n_row); r++)                                                   \
            for (int v = 0; v < 2; v++)                                                     \
                sum[r][v] =                                                                 \
                    t->accumulate                                                           \
                        ? _mm256_loadu_si256((const void *)(t->c + r * t->ldc + v * LANES)) \
                        : _mm256_setzero_si256();                                           \
        const char *a = t->a, *b = t->b;                                                    \
        for (int64_t i = 0; i < t->n_step; i++, a += 4, b += t->b_stride) {                 \
            const __m256i b0 = _mm256_loadu_si256((const void *)b);                         \
            const __m256i b1 = _mm256_loadu_si256((const void *)(b + sizeof b0));           \
            for (int r = 0; r < (n_row); r++) {                                             \
                int32_t dword;                                                              \
                memcpy(&dword, a + r * t->a_stride, sizeof dword);                          \
                const __m256i all = _mm256_set1_epi32(dword);                               \
                sum[r][0] = MULTIPLY_ADD(sum[r][0], all, b0);                               \
                sum[r][1] = MULTIPLY_ADD(sum[r][1], all, b1);                               \
            }                                                                               \
        }                                                                                   \
        for (int r = 0; r < (n_row); r++)                                                   \
            for (int v = 0; v < 2; v++)                                                     \
                _mm256_storeu_si256((void *)(t->c + r * t->ldc + v * LANES), sum[r][v]);    \
    }

#define MADD_WORDS(sum, a, b) _mm256_add_epi32((sum), _mm256_madd_epi16((a), (b)))
#define MADD_BYTES(sum, a, b) _mm256_dpbusd_avx_epi32((sum), (a), (b))

DEFINE_BLOCK(avx2, "avx2", 1, MADD_WORDS)
DEFINE_BLOCK(avx2, "avx2", 2, MADD_WORDS)
DEFINE_BLOCK(avx2, "avx2", 3, MADD_WORDS)
DEFINE_BLOCK(avx2, "avx2", 4, MADD_WORDS)
DEFINE_BLOCK(avx_vnni, "avx2,avxvnni", 1, MADD_BYTES)
DEFINE_BLOCK(avx_vnni, "avx2,avxvnni", 2, MADD_BYTES)
DEFINE_BLOCK(avx_vnni, "avx2,avxvnni", 3, MADD_BYTES)
DEFINE_BLOCK(avx_vnni, "avx2,avxvnni", 4, MADD_BYTES)
DEFINE_BLOCK(avx_vnni, "avx2,avxvnni", 5, MADD_BYTES)
DEFINE_BLOCK(avx_vnni, "avx2,avxvnni", 6, MADD_BYTES)

/* The same with registers of 64 bytes, whose strip is a whole panel; n_row is a constant where this
 * is inlined, so that the sums are registers. */
__attribute__((target("avx512f,avx512vnni"), always_inline)) static inline void
block_avx512(const block_t *t, int n_row)
{
    __m512i sum[MAX_ROW_512 * VECTORS];
#pragma GCC unroll 24
    for (int i = 0; i < n_row * VECTORS; i++)
        sum[i] = _mm512_setzero_si512();
    const char *a = t->a, *b = t->b, *next = t->next;
    const int64_t next_step = t->next_step;
    for (int64_t i = 0; i < t->n_step; i++, a += 4, b += t->b_stride, next += next_step) {
        __m512i column[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            _mm_prefetch(next + v * next_step / VECTORS, _MM_HINT_T1);
            column[v] = _mm512_loadu_si512(b + (ptrdiff_t)(4 * v * LANES_512));
        }
#pragma GCC unroll 6
        for (int r = 0; r < n_row; r++) {
            int32_t dword;
            memcpy(&dword, a + r * t->a_stride, sizeof dword);
            const __m512i all = _mm512_set1_epi32(dword);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                sum[r * VECTORS + v] = _mm512_dpbusd_epi32(sum[r * VECTORS + v], all, column[v]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < n_row; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            _mm512_storeu_si512(t->c + r * t->ldc + v * LANES_512, sum[r * VECTORS + v]);
}

#define DEFINE_BLOCK_512(n_row)                                                     \
    __attribute__((target("avx512f,avx512vnni"))) static void block_avx512_##n_row( \
        const block_t *t)                                                           \
    {                                                                               \
        block_avx512(t, n_row);                                                     \
    }

DEFINE_BLOCK_512(1)
DEFINE_BLOCK_512(2)
DEFINE_BLOCK_512(3)
DEFINE_BLOCK_512(4)
DEFINE_BLOCK_512(5)
DEFINE_BLOCK_512(6)

/* Blocks by their number of rows: as high as the registers allow. */
typedef struct {
    int64_t n_col, max_row;
    void (*run[7])(const block_t *block);
} blocks_t;

static const blocks_t with_avx2 = {
    STRIP, 4, {NULL, block_avx2_1, block_avx2_2, block_avx2_3, block_avx2_4}};
static const blocks_t with_avx_vnni = {STRIP,
                                       6,
                                       {NULL, block_avx_vnni_1, block_avx_vnni_2, block_avx_vnni_3,
                                        block_avx_vnni_4, block_avx_vnni_5, block_avx_vnni_6}};
static const blocks_t with_avx512 = {PANEL,
                                     MAX_ROW_512,
                                     {NULL, block_avx512_1, block_avx512_2, block_avx512_3,
                                      block_avx512_4, block_avx512_5, block_avx512_6}};

/* All m rows of one strip, in blocks of nearly the same height, each of which calls as much of
 * what comes next. */
static void strip(const blocks_t *blocks, block_t t, int64_t m)
{
    const int64_t most = blocks->max_row;
    t.next_step = t.b_stride / ((m + most - 1) / most);
    while (m > 0) {
        const int64_t n = m <= most ? m : m < 2 * most ? (m + 1) / 2 : most;
        blocks->run[n](&t);
        if (t.next != NULL)
            t.next += t.n_step * t.next_step;
        t.a += n * t.a_stride;
        t.c += n * t.ldc;
        m -= n;
    }
}

/* First byte of column j of a packed panel. */
static const char *column(const int8_t *b, int64_t j, int64_t k)
{
    return (const char *)b + j / PANEL * PANEL * k + j % PANEL * 4;
}

/* Strip by strip; the rest as in qp_cpu_int8_product_t. */
static void product(const blocks_t *blocks, int32_t *c, const uint8_t *a, int64_t lda,
                    const int8_t *b, int64_t m, int64_t n, int64_t k, const int8_t *next)
{
    for (int64_t j = 0; j < n; j += blocks->n_col)
        strip(blocks,
              (block_t){.a = (const char *)a,
                        .b = column(b, j, k),
                        .a_stride = lda,
                        .b_stride = 4 * PANEL,
                        .n_step = k / 4,
                        .c = c + j,
                        .ldc = n,
                        .next = next != NULL ? (const char *)next : column(b, j, k)},
              m);
}

static void product_avx_vnni(int32_t *c, const uint8_t *a, int64_t lda, const int8_t *b, int64_t m,
                             int64_t n, int64_t k, const int8_t *next)
{
    product(&with_avx_vnni, c, a, lda, b, m, n, k, next);
}

static void product_avx512(int32_t *c, const uint8_t *a, int64_t lda, const int8_t *b, int64_t m,
                           int64_t n, int64_t k, const int8_t *next)
{
    product(&with_avx512, c, a, lda, b, m, n, k, next);
}

/* --- AVX2: bytes are widened first, the even ones of each dword and then the odd ones ----------
 */

enum {
    DEPTH = 256,   /* of what is widened at a time: a strip takes half of the first-level cache */
    MAX_ROWS = 128 /* rows of a that are widened at a time */
};

__attribute__((target("avx2"))) static void widen_row(uint32_t *to, const uint8_t *from,
                                                      int64_t n_dword)
{
    const __m256i low = _mm256_set1_epi16(0xff);
    for (int64_t i = 0; i < n_dword; i += LANES) {
        const __m256i x = _mm256_loadu_si256((const void *)(from + 4 * i));
        _mm256_storeu_si256((void *)(to + i), _mm256_and_si256(x, low));
        _mm256_storeu_si256((void *)(to + n_dword + i), _mm256_srli_epi16(x, 8));
    }
}

__attribute__((target("avx2"))) static void widen_strip(uint32_t *to, const char *from,
                                                        int64_t n_dword)
{
    for (int64_t i = 0; i < n_dword; i++, from += (size_t)4 * PANEL)
        for (int64_t v = 0; v < STRIP; v += LANES) {
            const __m256i x = _mm256_loadu_si256((const void *)(from + 4 * v));
            const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);
            _mm256_storeu_si256((void *)(to + i * STRIP + v), even);
            _mm256_storeu_si256((void *)(to + (n_dword + i) * STRIP + v), _mm256_srai_epi16(x, 8));
        }
}

static void product_avx2(int32_t *c, const uint8_t *a, int64_t lda, const int8_t *b, int64_t m,
                         int64_t n, int64_t k, const int8_t *next)
{
    (void)next;
    _Alignas(64) uint32_t wide_a[MAX_ROWS * DEPTH / 2], wide_b[STRIP * DEPTH / 2];
    for (int64_t row = 0; row < m; row += MAX_ROWS)
        for (int64_t d = 0; d < k; d += DEPTH) {
            const int64_t n_row = m - row < MAX_ROWS ? m - row : MAX_ROWS;
            const int64_t n_dword = (k - d < DEPTH ? k - d : DEPTH) / 4;
            for (int64_t r = 0; r < n_row; r++)
                widen_row(wide_a + r * 2 * n_dword, a + (row + r) * lda + d, n_dword);
            for (int64_t j = 0; j < n; j += STRIP) {
                widen_strip(wide_b, column(b, j, k) + d * PANEL, n_dword);
                strip(&with_avx2,
                      (block_t){.a = (const char *)wide_a,
                                .b = (const char *)wide_b,
                                .a_stride = 8 * n_dword,
                                .b_stride = 4 * STRIP,
                                .n_step = 2 * n_dword,
                                .c = c + row * n + j,
                                .ldc = n,
                                .accumulate = d > 0},
                      n_row);
            }
        }
}

const qp_cpu_int8_product_t *qp_cpu_int8_product(void)
{
    static const struct {
        dnnl_cpu_isa_t isa;
        qp_cpu_int8_product_t product;
    } table[] = {
        {dnnl_cpu_isa_avx512_core_vnni, {product_avx512, 24, PANEL}},
        {dnnl_cpu_isa_avx2_vnni, {product_avx_vnni, 24, PANEL}},
        {dnnl_cpu_isa_avx2, {product_avx2, QP_CPU_ROWS, QP_CPU_COLS}}, /* widens both operands */
    };
    if (qp_cpu_dnnl_has(dnnl_cpu_isa_avx512_core_amx))
        return NULL;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (qp_cpu_dnnl_has(table[i].isa))
            return &table[i].product;
    return NULL;
}

#else

const qp_cpu_int8_product_t *qp_cpu_int8_product(void)
{
    return NULL;
}

#endif
