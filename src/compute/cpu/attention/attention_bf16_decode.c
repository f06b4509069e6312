#include "compute/cpu/attention/attention_decode.h"

#if defined(__x86_64__)

#include "compute/cpu/attention/attention_tile.h"
#include "compute/cpu/gemm/transpose.h"

enum { TILE = QP_DECODE_TILE, PIECE = QP_DECODE_PIECE, HALVES = 32, MAX_HEADS = 4 };

static inline const uint16_t *row_at(const qp_decode_tile_t *tile, int64_t row)
{
    return (const uint16_t *)(tile->row[row] + tile->offset);
}

/* --- scores ----------------------------------------------------------------------------------- */

/* Pairs of features are multiplied as they lie; a sum for each key. */
QP_TILE_INLINE void score_one(float *score, const uint16_t *query, const qp_decode_tile_t *tile,
                              float scale)
{
    __m512 sum[TILE];
    qp_tile_zero(sum, TILE);
    for (int64_t c = 0; c < tile->e; c += HALVES) {
        const __m512bh q = (__m512bh)_mm512_loadu_si512(query + c);
#pragma GCC unroll 16
        for (int k = 0; k < TILE; k++)
            sum[k] = _mm512_dpbf16_ps(sum[k], q, (__m512bh)_mm512_loadu_si512(row_at(tile, k) + c));
    }
    qp_floats_t lanes[TILE];
    memcpy(lanes, sum, sizeof lanes);
    qp_cpu_sum_lanes((float *)&sum[0], lanes);
    _mm512_storeu_ps(score, _mm512_mul_ps(sum[0], _mm512_set1_ps(scale)));
}

QP_TILE_ISA static void score_tile(float *score, const void *query, const qp_decode_tile_t *tile,
                                   float scale, float *wide)
{
    (void)wide;
    for (int64_t h = 0; h < tile->group; h++)
        score_one(score + h * PIECE, (const uint16_t *)query + h * tile->e, tile, scale);
}

/* --- values ----------------------------------------------------------------------------------- */

/* Features [c, c + 64) of a tile as the second operand of a product: pairs of keys. */
QP_TILE_INLINE void pack_values(char *packed, const qp_decode_tile_t *tile, int64_t c)
{
    for (int k = 0; k < TILE; k += 2)
        for (int v = 0; v < QP_VECTORS; v++) {
            const int64_t at = c + v * QP_LANES;
            const __m256i a = _mm256_loadu_si256((const void *)(row_at(tile, k) + at));
            const __m256i b = _mm256_loadu_si256((const void *)(row_at(tile, k + 1) + at));
            const __m512i rows = _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
            _mm512_store_si512(packed + k / 2 * QP_STEP + v * (int)sizeof rows,
                               qp_tile_interleave(rows));
        }
}

#define DEFINE_ADD(n_head)                                                                        \
    QP_TILE_ISA static void add_##n_head(float *out, int64_t e, const __m256i *weight,            \
                                         const char *packed)                                      \
    {                                                                                             \
        const qp_tile_operand_t a = {(const char *)weight, sizeof *weight, QP_PAIR};              \
        qp_tile_add(out, e, n_head, QP_VECTORS, a, qp_tile_packed(packed, 0, 0), QP_GROUP_STEPS); \
    }
DEFINE_ADD(1)
DEFINE_ADD(2)
DEFINE_ADD(3)
DEFINE_ADD(4)

QP_TILE_ISA static void add_tile(float *out, const float *weight, const qp_decode_tile_t *tile,
                                 float *wide)
{
    static void (*const add[])(float *, int64_t, const __m256i *,
                               const char *) = {NULL, add_1, add_2, add_3, add_4};
    char *packed = (char *)wide;
    for (int64_t c = 0; c < tile->e; c += QP_SUB) {
        pack_values(packed, tile, c);
        for (int64_t h = 0; h < tile->group; h += MAX_HEADS) {
            const int64_t n = qp_min_i64(tile->group - h, MAX_HEADS);
            __m256i half[MAX_HEADS];
            for (int64_t i = 0; i < n; i++)
                half[i] = (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(weight + (h + i) * PIECE));
            add[n](out + h * tile->e + c, tile->e, half, packed);
        }
    }
}

static const qp_decode_kernel_t kernel = {QP_BF16, score_tile, add_tile};

#endif

const qp_decode_kernel_t *qp_bf16_decode(const qp_cpu_device_t *device, qp_dtype_t query,
                                         qp_dtype_t cache, int64_t head_dim)
{
#if defined(__x86_64__)
    if (device->packed_bf16 && query == QP_BF16 && cache == QP_BF16 && head_dim % QP_SUB == 0)
        return &kernel;
#endif
    (void)device;
    return NULL;
}
