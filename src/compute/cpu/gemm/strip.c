#include "compute/cpu/gemm/strip.h"

#include "compute/cpu/rows/math.h"
#include "compute/cpu/gemm/transpose.h"

enum { COLS = QP_CPU_STRIP, STEPS = QP_WORDS, WORD_BYTES = 4, LINE = QP_WORDS * WORD_BYTES };

/* A block of rows in the type of the strip: where they stand if it is whole, or a copy, the missing
 * elements zero. */
typedef struct {
    const char *row;
    int64_t ld; /* bytes */
} rows_t;

static inline void convert_row(void *to, qp_dtype_t dtype, const void *from, qp_dtype_t from_dtype,
                               int64_t n)
{
    if (dtype == from_dtype)
        memcpy(to, from, (size_t)n * qp_dtype_bytes(dtype));
    else if (dtype == QP_BF16)
        qp_cpu_store(to, QP_BF16, from, n);
    else
        qp_cpu_load(to, QP_BF16, from, n);
}

static inline rows_t find_rows(char *copy, qp_dtype_t dtype, int64_t height, int64_t width,
                               const char *from, qp_dtype_t from_dtype, int64_t ld, int64_t n_row,
                               int64_t n_col)
{
    const int64_t from_ld = ld * (int64_t)qp_dtype_bytes(from_dtype);
    const int64_t copy_ld = width * (int64_t)qp_dtype_bytes(dtype);
    if (dtype == from_dtype && n_row == height && n_col == width)
        return (rows_t){from, from_ld};
    if (n_row < height || n_col < width)
        memset(copy, 0, (size_t)(height * copy_ld));
    for (int64_t i = 0; i < n_row; i++)
        convert_row(copy + i * copy_ld, dtype, from + i * from_ld, from_dtype, n_col);
    return (rows_t){copy, copy_ld};
}

static inline void interleave(uint16_t *restrict to, const uint16_t *restrict first,
                              const uint16_t *restrict second)
{
    for (int64_t j = 0; j < COLS; j++) {
        to[2 * j] = first[j];
        to[2 * j + 1] = second[j];
    }
}

/* One block from b itself: rows [n_row <= depth], columns [n_col <= 64]. */
QP_CPU_CLONES static void pack_block(char *restrict to, qp_dtype_t dtype, const char *from,
                                     qp_dtype_t from_dtype, int64_t ld, int64_t n_row,
                                     int64_t n_col)
{
    _Alignas(64) char copy[QP_CPU_STRIP_BLOCK];
    const rows_t rows =
        find_rows(copy, dtype, qp_cpu_strip_depth(dtype), COLS, from, from_dtype, ld, n_row, n_col);
    for (int64_t s = 0; s < STEPS; s++, to += (size_t)COLS * WORD_BYTES)
        if (dtype == QP_F32)
            memcpy(to, rows.row + s * rows.ld, (size_t)COLS * WORD_BYTES);
        else
            interleave((uint16_t *)to, (const uint16_t *)(rows.row + 2 * s * rows.ld),
                       (const uint16_t *)(rows.row + (2 * s + 1) * rows.ld));
}

/* One block from the transpose: 16 of its columns [n_col <= 16] are rows of \a from. */
QP_CPU_CLONES static void pack_transposed(char *restrict to, qp_dtype_t dtype, const char *from,
                                          qp_dtype_t from_dtype, int64_t ld, int64_t n_row,
                                          int64_t n_col)
{
    _Alignas(64) char copy[QP_WORDS * LINE];
    const rows_t rows = find_rows(copy, dtype, QP_WORDS, qp_cpu_strip_depth(dtype), from,
                                  from_dtype, ld, n_col, n_row);
    qp_words_t v[QP_WORDS];
    for (int64_t i = 0; i < QP_WORDS; i++)
        memcpy(&v[i], rows.row + i * rows.ld, sizeof v[i]);
    qp_cpu_transpose(v);
    for (int64_t i = 0; i < STEPS; i++)
        memcpy(to + i * COLS * WORD_BYTES, &v[i], sizeof v[i]);
}

void qp_cpu_strip_pack(void *to, qp_dtype_t dtype, const void *from, qp_dtype_t from_dtype,
                       int64_t ld, bool trans, int64_t k, int64_t n)
{
    const int64_t depth = qp_cpu_strip_depth(dtype);
    const int64_t width = (int64_t)qp_dtype_bytes(from_dtype);
    char *block = to;
    for (int64_t i = 0; i < k; i += depth, block += QP_CPU_STRIP_BLOCK) {
        const int64_t n_row = qp_min_i64(k - i, depth);
        if (!trans)
            pack_block(block, dtype, (const char *)from + i * ld * width, from_dtype, ld, n_row, n);
        for (int64_t j = 0; trans && j < n; j += QP_WORDS)
            pack_transposed(block + j * WORD_BYTES, dtype,
                            (const char *)from + (j * ld + i) * width, from_dtype, ld, n_row,
                            qp_min_i64(n - j, QP_WORDS));
    }
}

QP_CPU_CLONES static void unpack_block(char *restrict to, int64_t ld, const char *restrict block)
{
    for (int64_t j = 0; j < COLS; j += QP_WORDS) {
        qp_words_t v[QP_WORDS];
        for (int64_t i = 0; i < STEPS; i++)
            memcpy(&v[i], block + (i * COLS + j) * WORD_BYTES, sizeof v[i]);
        qp_cpu_transpose(v);
        for (int64_t i = 0; i < QP_WORDS; i++)
            memcpy(to + (j + i) * ld, &v[i], sizeof v[i]);
    }
}

void qp_cpu_strip_unpack(void *to, int64_t ld, qp_dtype_t dtype, const void *strip, int64_t k)
{
    const int64_t n_block = k / qp_cpu_strip_depth(dtype);
    for (int64_t i = 0; i < n_block; i++)
        unpack_block((char *)to + i * LINE, ld * (int64_t)qp_dtype_bytes(dtype),
                     (const char *)strip + i * QP_CPU_STRIP_BLOCK);
}

/* The two rows of a step of bf16, as two steps of fp32. */
QP_CPU_CLONES static void widen_step(float *restrict to, const uint32_t *restrict step)
{
    uint32_t *restrict first = (uint32_t *)to, *restrict second = first + COLS;
    for (int64_t j = 0; j < COLS; j++) {
        first[j] = step[j] << 16;
        second[j] = step[j] & 0xffff0000u;
    }
}

void qp_cpu_strip_widen(float *to, const void *strip, int64_t k)
{
    const int64_t n_step = (int64_t)qp_cpu_strip_bytes(QP_F32, k) / (2 * COLS * WORD_BYTES);
    for (int64_t s = 0; s < n_step; s++)
        widen_step(to + 2 * s * COLS, (const uint32_t *)strip + s * COLS);
}
