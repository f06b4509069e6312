#include "compute/cpu/linear/weight.h"

#include "compute/cpu/rows/math.h"
#include "compute/cpu/gemm/strip.h"

enum { PACK = QP_CPU_PACK, BLOCK_BYTES = PACK * PACK, STRIP_BYTES = 4 * PACK };

/* --- storage ---------------------------------------------------------------------------------- */

/* Outputs that there is room for: packed blocks are whole. */
static int64_t stored_outputs(const qp_cpu_weight_t *w)
{
    return w->n_in % PACK == 0 ? (w->n_out + PACK - 1) / PACK * PACK : w->n_out;
}

static size_t data_bytes(const qp_cpu_weight_t *w, bool is_head)
{
    if (qp_cpu_weight_is_int8(w))
        return qp_bytes(stored_outputs(w), (size_t)w->n_in);
    if (is_head)
        return qp_bytes(w->n_out * w->n_in, qp_dtype_bytes(qp_weight_dtype(w->kind)));
    return (size_t)qp_cpu_strips(w->n_out) * qp_cpu_strip_bytes(qp_weight_dtype(w->kind), w->n_in);
}

/* Cuts a part off the front of the storage; a part of no bytes is none. */
static qp_dptr_t take(qp_dptr_t *storage, size_t bytes)
{
    const qp_dptr_t part = bytes > 0 ? *storage : (qp_dptr_t){0};
    *storage = qp_dptr_at(*storage, qp_cpu_round64(bytes));
    return part;
}

/* The parts, one after another; *end gets the first address behind them. */
static qp_cpu_weight_t parts_of(const qp_weight_t *w, qp_dptr_t *end)
{
    const size_t row_bytes = qp_bytes(w->n_out, sizeof(float));
    qp_cpu_weight_t parts = {.kind = w->kind, .n_out = w->n_out, .n_in = w->n_in, .mode = w->mode};
    const bool int8 = qp_cpu_weight_is_int8(&parts), rotated = w->kind == QP_WEIGHT_INT8;
    *end = w->storage;
    parts.data = take(end, data_bytes(&parts, w->is_head));
    parts.scale = take(end, int8 ? row_bytes : 0);
    parts.row_sum = take(end, int8 ? row_bytes : 0);
    parts.col_sum = take(end, rotated ? qp_bytes(w->n_in, sizeof(int32_t)) : 0);
    parts.bias = take(end, w->has_bias ? row_bytes : 0);
    return parts;
}

qp_cpu_weight_t qp_cpu_weight(const qp_weight_t *w)
{
    qp_dptr_t end;
    return parts_of(w, &end);
}

size_t qp_cpu_weight_bytes(const qp_device_t *device, const qp_weight_t *w)
{
    (void)device;
    qp_weight_t null = *w;
    qp_dptr_t end;
    null.storage = (qp_dptr_t){0};
    (void)parts_of(&null, &end);
    return (size_t)end.address;
}

static bool is_packed(const qp_cpu_device_t *device, const qp_cpu_weight_t *w)
{
    return device->packed_int8 && qp_cpu_weight_is_int8(w) && w->n_in % PACK == 0;
}

int64_t qp_cpu_weight_depth(const qp_cpu_device_t *device, const qp_cpu_weight_t *w, bool backward)
{
    if (!backward)
        return w->n_in;
    return is_packed(device, w) ? stored_outputs(w) : w->n_out;
}

/* Block of outputs [64 o, 64 o + 64) and inputs [64 i, 64 i + 64). */
static int8_t *block_at(const qp_cpu_weight_t *w, int64_t o, int64_t i)
{
    return (int8_t *)qp_cpu_pointer(w->data) + (o * (w->n_in / PACK) + i) * BLOCK_BYTES;
}

typedef int32_t words_t __attribute__((vector_size(16))); /* four times four inputs of an output */

/* Four outputs at a time: a line of cache is read once, and each strip gets 16 bytes. */
static void pack_block(int8_t *restrict to, const int8_t *restrict from, int64_t ld)
{
    for (int64_t o = 0; o < PACK; o += 4)
        for (int64_t i = 0; i < PACK; i += 16) {
            words_t row[4];
            for (int64_t k = 0; k < 4; k++)
                memcpy(&row[k], from + (o + k) * ld + i, sizeof row[k]);
            const words_t low01 = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
            const words_t low23 = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
            const words_t high01 = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
            const words_t high23 = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
            row[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
            row[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
            row[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
            row[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
            for (int64_t k = 0; k < 4; k++)
                memcpy(to + (i / 4 + k) * STRIP_BYTES + o * 4, &row[k], sizeof row[k]);
        }
}

QP_CPU_CLONES static void sum_rows(int32_t *restrict sum, const int8_t *restrict from,
                                   int64_t n_row, int64_t n_col)
{
    for (int64_t r = 0; r < n_row; r++) {
        int32_t total = 0;
        for (int64_t c = 0; c < n_col; c++)
            total += from[r * n_col + c];
        sum[r] = total;
    }
}

QP_CPU_CLONES static void add_columns(int32_t *restrict sum, const int8_t *restrict from,
                                      int64_t n_row, int64_t n_col, int64_t ld)
{
    for (int64_t r = 0; r < n_row; r++)
        for (int64_t c = 0; c < n_col; c++)
            sum[c] += from[r * ld + c];
}

/* The last outputs, fewer than 64, filled up with zeros. */
static void pack_part(int8_t *to, const int8_t *from, int64_t n_out, int64_t ld)
{
    _Alignas(64) int8_t square[BLOCK_BYTES] = {0};
    for (int64_t o = 0; o < n_out; o++)
        memcpy(square + o * PACK, from + o * ld, PACK);
    pack_block(to, square, PACK);
}

/* n rows from \a first on are packed, panel by panel. The sums come first, for they read a panel in
 * order, and it is in cache then. */
static void pack_int8(const qp_cpu_device_t *device, const qp_cpu_weight_t *w, int64_t first,
                      const int8_t *from, int64_t n)
{
    const bool packed = is_packed(device, w);
#pragma omp parallel for num_threads(device->n_thread)
    for (int64_t at = 0; at < n; at += PACK) {
        const int64_t n_row = qp_min_i64(PACK, n - at), out = first + at;
        const int8_t *panel = from + at * w->n_in;
        sum_rows(qp_cpu_i32(w->row_sum) + out, panel, n_row, w->n_in);
        if (packed)
            for (int64_t i = 0; i < w->n_in / PACK; i++)
                if (n_row == PACK)
                    pack_block(block_at(w, out / PACK, i), panel + i * PACK, w->n_in);
                else
                    pack_part(block_at(w, out / PACK, i), panel + i * PACK, n_row, w->n_in);
        else
            memcpy((int8_t *)qp_cpu_pointer(w->data) + out * w->n_in, panel,
                   (size_t)(n_row * w->n_in));
    }
    if (qp_dptr_is_null(w->col_sum))
        return;
    int32_t *col_sum = qp_cpu_i32(w->col_sum);
    if (first == 0)
        memset(col_sum, 0, qp_bytes(w->n_in, sizeof *col_sum));
#pragma omp parallel for num_threads(device->n_thread)
    for (int64_t at = 0; at < w->n_in; at += QP_CPU_CHUNK)
        add_columns(col_sum + at, from + at, n, qp_min_i64(QP_CPU_CHUNK, w->n_in - at), w->n_in);
}

/* The strip of floats that output \a first begins. */
static char *strip_at(const qp_cpu_weight_t *w, int64_t first)
{
    return (char *)qp_cpu_pointer(w->data) +
           (size_t)(first / QP_CPU_STRIP) * qp_cpu_strip_bytes(qp_weight_dtype(w->kind), w->n_in);
}

static void pack_floats(const qp_cpu_device_t *device, const qp_cpu_weight_t *w, int64_t first,
                        const char *from, int64_t n)
{
    const qp_dtype_t dtype = qp_weight_dtype(w->kind);
#pragma omp parallel for num_threads(device->n_thread)
    for (int64_t at = 0; at < n; at += QP_CPU_STRIP)
        qp_cpu_strip_pack(strip_at(w, first + at), dtype,
                          from + qp_bytes(at * w->n_in, qp_dtype_bytes(dtype)), dtype, w->n_in,
                          true, w->n_in, qp_min_i64(n - at, QP_CPU_STRIP));
}

/* Entries [first, first + n) of a vector with one for each row, where the weight has it. */
static void pack_vector(qp_dptr_t to, int64_t first, qp_dptr_t from, int64_t n)
{
    if (!qp_dptr_is_null(to))
        memcpy(qp_cpu_f32(to) + first, qp_cpu_pointer(from), qp_bytes(n, sizeof(float)));
}

qp_error_t qp_cpu_weight_pack(qp_queue_t *q, const qp_weight_t *weight, int64_t first,
                              qp_mat_t plain, qp_dptr_t scale, qp_dptr_t bias)
{
    _Static_assert(QP_WEIGHT_ROWS % PACK == 0 && QP_WEIGHT_ROWS % QP_CPU_STRIP == 0,
                   "pieces of a weight end where its panels do");
    const qp_cpu_weight_t parts = qp_cpu_weight(weight), *w = &parts;
    const int64_t n = plain.n_row;
    QP_ASSERT(first % QP_WEIGHT_ROWS == 0 && first + n <= w->n_out);
    QP_ASSERT(n % QP_WEIGHT_ROWS == 0 || first + n == w->n_out);
    QP_ASSERT(plain.dtype == qp_weight_dtype(w->kind) && plain.n_col == w->n_in &&
              plain.ld == w->n_in);
    QP_ASSERT(qp_dptr_is_null(scale) == qp_dptr_is_null(w->scale));
    QP_ASSERT(qp_dptr_is_null(bias) == qp_dptr_is_null(w->bias));
    if (qp_cpu_weight_is_int8(w))
        pack_int8(qp_cpu_device(q), w, first, qp_cpu_pointer(plain.data), n);
    else if (weight->is_head)
        return qp_cpu_copy(q, qp_mat_rows(qp_cpu_head_rows(weight), first, n).data, plain.data,
                           qp_bytes(n * w->n_in, qp_dtype_bytes(plain.dtype)));
    else
        pack_floats(qp_cpu_device(q), w, first, qp_cpu_pointer(plain.data), n);
    pack_vector(w->scale, first, scale, n);
    pack_vector(w->bias, first, bias, n);
    return NULL;
}

/* --- pieces of panels ------------------------------------------------------------------------- */

/* Whole numbers up to 256 are exact in bf16: their fp32 form has nothing in the lower half. */
static inline uint16_t bf16_of_int(int8_t x)
{
    const float whole = x;
    uint32_t bits;
    memcpy(&bits, &whole, sizeof bits);
    return (uint16_t)(bits >> 16);
}

QP_CPU_CLONES static void widen_row(void *to, qp_dtype_t dtype, const int8_t *from, int64_t n,
                                    int64_t stride)
{
    float *restrict whole = to;
    uint16_t *restrict half = to;
    if (dtype == QP_F32)
        for (int64_t i = 0; i < n; i++)
            whole[i] = from[i * stride];
    else
        for (int64_t i = 0; i < n; i++)
            half[i] = bf16_of_int(from[i * stride]);
}

/* Four inputs of 64 outputs, a dword each, to as many rows of fp32 or half as many of pairs. */
static inline void unpack_words(void *restrict to, qp_dtype_t dtype, const int8_t *restrict from)
{
    float *restrict whole = to;
    uint32_t *restrict pair = to;
    for (int k = 0; k < 4; k++)
        for (int64_t o = 0; o < PACK; o++) {
            uint32_t word, bits;
            memcpy(&word, from + 4 * o, sizeof word);
            const float x = (float)((int32_t)(word << (24 - 8 * k)) >> 24);
            memcpy(&bits, &x, sizeof bits);
            if (dtype == QP_F32)
                whole[k * PACK + o] = x;
            else if (k % 2 == 0)
                pair[k / 2 * PACK + o] = bits >> 16;
            else
                pair[k / 2 * PACK + o] |= bits; /* whose lower half is zero, see bf16_of_int() */
        }
}

/* A packed block as 64 rows (inputs) of a strip of 64 (outputs). */
QP_CPU_CLONES static void unpack_block(char *restrict to, qp_dtype_t dtype,
                                       const int8_t *restrict from)
{
    for (int64_t i = 0; i < PACK; i += 4, from += STRIP_BYTES)
        if (dtype == QP_F32)
            unpack_words(to + i * PACK * 4, QP_F32, from);
        else
            unpack_words(to + i * PACK * 2, QP_BF16, from);
}

typedef int8_t tile_t __attribute__((vector_size(16))); /* 4 x 4 bytes */

QP_CPU_CLONES static void transpose_block(int8_t *restrict to, const int8_t *restrict from)
{
    for (int64_t i = 0; i < PACK / 4; i++)
        for (int64_t o = 0; o < PACK / 4; o++) {
            tile_t tile;
            memcpy(&tile, from + i * STRIP_BYTES + o * 16, sizeof tile);
            tile = __builtin_shufflevector(tile, tile, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7,
                                           11, 15);
            memcpy(to + o * STRIP_BYTES + i * 16, &tile, sizeof tile);
        }
}

/* --- panels ----------------------------------------------------------------------------------- */

qp_cpu_panel_t qp_cpu_panel_plan(const qp_cpu_device_t *device, const qp_cpu_weight_t *w,
                                 qp_dtype_t dtype, bool backward)
{
    const int64_t k = qp_cpu_weight_depth(device, w, backward);
    const bool int8 = dtype == QP_I8;
    return (qp_cpu_panel_t){.backward = backward,
                            .dtype = dtype,
                            .packed = int8 && is_packed(device, w),
                            .copied = backward || dtype != qp_weight_dtype(w->kind),
                            .strip_bytes =
                                int8 ? qp_cpu_int8_strip_bytes(k) : qp_cpu_strip_bytes(dtype, k)};
}

/* Packed blocks of int8: those of the transposed matrix. */
static void copy_packed(const qp_cpu_weight_t *w, int64_t first, int64_t n, int8_t *to)
{
    for (int64_t c = 0; c < n / PACK; c++)
        for (int64_t d = 0; d < stored_outputs(w) / PACK; d++, to += BLOCK_BYTES)
            transpose_block(to, block_at(w, d, first / PACK + c));
}

/* Inputs [first, first + n) of plain int8 weights as [n, n_out]. */
static void transpose_plain(int8_t *to, const qp_cpu_weight_t *w, int64_t first, int64_t n)
{
    const int8_t *data = qp_cpu_pointer(w->data);
    for (int64_t i = 0; i < n; i++)
        for (int64_t o = 0; o < w->n_out; o++)
            to[i * w->n_out + o] = data[o * w->n_in + first + i];
}

/* 64 outputs x 64 inputs of what are not packed blocks, row by row; behind the last ones anything.
 */
static void load_square(void *to, qp_dtype_t dtype, const qp_cpu_weight_t *w, int64_t out,
                        int64_t in)
{
    if (!qp_cpu_weight_is_int8(w)) {
        const int64_t depth = qp_cpu_strip_depth(dtype), n = qp_min_i64(w->n_in - in, PACK);
        qp_cpu_strip_unpack(to, PACK, dtype, strip_at(w, out) + in / depth * QP_CPU_STRIP_BLOCK,
                            (n + depth - 1) / depth * depth);
        return;
    }
    const int8_t *from = (const int8_t *)qp_cpu_pointer(w->data) + out * w->n_in + in;
    for (int64_t i = 0; i < qp_min_i64(w->n_out - out, PACK); i++)
        widen_row((char *)to + (size_t)(i * PACK) * qp_dtype_bytes(dtype), dtype,
                  from + i * w->n_in, qp_min_i64(w->n_in - in, PACK), 1);
}

/* Rows [row, row + 64) of the strip that column \a col begins, of weights of another form. */
static void copy_square(const qp_cpu_panel_t *panel, const qp_cpu_device_t *device,
                        const qp_cpu_weight_t *w, int64_t row, int64_t col, char *to)
{
    _Alignas(64) char square[PACK * PACK * sizeof(float)];
    const int64_t out = panel->backward ? row : col, in = panel->backward ? col : row;
    const int64_t n_out = qp_min_i64(w->n_out - out, PACK), n_in = qp_min_i64(w->n_in - in, PACK);
    if (is_packed(device, w)) {
        const int8_t *block = block_at(w, out / PACK, in / PACK);
        if (panel->backward)
            transpose_block((int8_t *)square, block);
        unpack_block(to, panel->dtype, panel->backward ? (int8_t *)square : block);
        return;
    }
    const qp_dtype_t dtype = qp_cpu_weight_is_int8(w) ? panel->dtype : qp_weight_dtype(w->kind);
    if (panel->backward && dtype == QP_F32) { /* a strip of whole rows as they are */
        load_square(to, dtype, w, out, in);
        return;
    }
    load_square(square, dtype, w, out, in);
    qp_cpu_strip_pack(to, panel->dtype, square, dtype, PACK, !panel->backward,
                      panel->backward ? n_out : n_in, panel->backward ? n_in : n_out);
}

static void copy_strip(const qp_cpu_panel_t *panel, const qp_cpu_device_t *device,
                       const qp_cpu_weight_t *w, int64_t col, char *to)
{
    const int64_t k = panel->backward ? w->n_out : w->n_in;
    if (w->kind == QP_WEIGHT_BF16 && !panel->backward)
        qp_cpu_strip_widen((float *)to, strip_at(w, col), k);
    else
        for (int64_t row = 0; row < k; row += PACK)
            copy_square(panel, device, w, row, col,
                        to + row / qp_cpu_strip_depth(panel->dtype) * QP_CPU_STRIP_BLOCK);
}

const void *qp_cpu_panel(const qp_cpu_panel_t *panel, const qp_cpu_device_t *device,
                         const qp_cpu_weight_t *w, int64_t first, int64_t n, void *buffer)
{
    const size_t before = (size_t)(first / PACK) * panel->strip_bytes;
    if (!panel->copied)
        return (char *)qp_cpu_pointer(w->data) + before;
    if (panel->dtype != QP_I8)
        for (int64_t j = 0; j < n; j += PACK)
            copy_strip(panel, device, w, first + j,
                       (char *)buffer + (size_t)(j / PACK) * panel->strip_bytes);
    else if (panel->packed)
        copy_packed(w, first, n, buffer);
    else
        transpose_plain(buffer, w, first, n);
    return buffer;
}

void qp_cpu_weight_inputs(const qp_cpu_device_t *device, const qp_cpu_weight_t *w, int64_t first,
                          int64_t n, const int32_t *input, int64_t n_input, qp_dtype_t dtype,
                          void *to)
{
    const bool packed = is_packed(device, w);
    const int8_t *data = qp_cpu_pointer(w->data);
    const int64_t step = packed ? PACK : n; /* outputs that lie evenly spaced */
    for (int64_t k = 0; k < n_input; k++)
        for (int64_t j = 0; j < n; j += step) {
            const int64_t i = input[k], o = first + j;
            const int8_t *from =
                packed ? block_at(w, o / PACK, i / PACK) + i % PACK / 4 * STRIP_BYTES + i % 4
                       : data + o * w->n_in + i;
            widen_row((char *)to + (size_t)(k * n + j) * qp_dtype_bytes(dtype), dtype, from,
                      qp_min_i64(step, n - j), packed ? 4 : w->n_in);
        }
}

void qp_cpu_weight_output(const qp_cpu_device_t *device, const qp_cpu_weight_t *w, int64_t output,
                          float *to)
{
    const int8_t *data = qp_cpu_pointer(w->data);
    if (!is_packed(device, w)) {
        widen_row(to, QP_F32, data + output * w->n_in, w->n_in, 1);
        return;
    }
    for (int64_t i = 0; i < w->n_in; i += 4)
        widen_row(to + i, QP_F32,
                  block_at(w, output / PACK, i / PACK) + i % PACK / 4 * STRIP_BYTES +
                      output % PACK * 4,
                  4, 1);
}

qp_cpu_weight_t qp_cpu_weight_outputs(const qp_cpu_weight_t *w, int64_t first, int64_t n)
{
    QP_ASSERT(qp_cpu_weight_is_int8(w) && first % PACK == 0);
    return (qp_cpu_weight_t){
        .kind = w->kind,
        .n_out = n,
        .n_in = w->n_in,
        .mode = w->mode,
        .data = qp_dptr_at(w->data, qp_bytes(first, (size_t)w->n_in)),
        .scale = qp_dptr_at(w->scale, qp_bytes(first, sizeof(float))),
        .row_sum = qp_dptr_at(w->row_sum, qp_bytes(first, sizeof(int32_t))),
    };
}
