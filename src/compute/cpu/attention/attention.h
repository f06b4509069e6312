/**
 * \file attention.h
 * What forward, backward and cached attention share. Every sequence is cut into blocks of QB query
 * rows and KB key rows, the last ones filled up with zeros, so all products have one of a few fixed
 * sizes. One task, (head, block of queries) forward and (head or group of heads, sequence)
 * backward, runs on one thread. The products are oneDNN's, or our own (attention_bf16.h).
 */
#ifndef QP_COMPUTE_CPU_ATTENTION_ATTENTION_H
#define QP_COMPUTE_CPU_ATTENTION_ATTENTION_H

#include "compute/cpu/cpu.h"
#include "compute/cpu/rows/math.h"

enum { QP_QB = 64, QP_KB = 128, QP_SUB = QP_KB / 2 };

/** Where only the first half of a block of keys is seen or real, products of half the size do. */
typedef enum { QP_WHOLE_BLOCK, QP_HALF_BLOCK, QP_N_BLOCK_SIZE } qp_block_size_t;

static inline int64_t qp_block_keys(int size)
{
    return size == QP_HALF_BLOCK ? QP_SUB : QP_KB;
}

/** Size for n keys from the block's first. */
static inline qp_block_size_t qp_block_size(int64_t n)
{
    return n <= QP_SUB ? QP_HALF_BLOCK : QP_WHOLE_BLOCK;
}

/** One sequence: its n_query rows in the batch, which are the last of its n_key keys. */
typedef struct {
    int64_t seq, first_row, n_query, n_key;
    int64_t n_query_block, n_key_block;
    int64_t first_query_block, first_key_block; /**< among the blocks of all spans */
} qp_span_t;

/**
 * Forms of keys and values. The general way has them as rows, [KB, E] dense; our own kernels have
 * both halves of a block as second operands (pack.h), [SUB, E], or transposed, [E, SUB].
 */
typedef enum { QP_K, QP_V, QP_K_TRANS, QP_V_TRANS, QP_N_KEY_FORM } qp_key_form_t;

typedef struct qp_bf16_attention qp_bf16_attention_t;

/** The batch as blocks. */
typedef struct {
    qp_attention_t a;
    int64_t group;                    /**< query heads per kv head */
    qp_dtype_t dtype;                 /**< of the products */
    const qp_bf16_attention_t *fused; /**< our own kernels; NULL: the general way */
    int64_t n_span, n_query_block, n_key_block, max_query_block;
    qp_span_t *span;                            /**< [n_span] */
    int32_t *query_block_span, *key_block_span; /**< span of each block */
    void *key[QP_N_KEY_FORM]; /**< [n_key_block, n_kv_head, KB E]; NULL: not needed */
    void *rows;               /**< [n_thread, KB, E] keys on their way to be packed */
} qp_blocks_t;

/** Where keys and values come from: the batch's own rows, or the pages of a cache. */
typedef struct {
    qp_mat_t k, v;              /**< [rows, G E] */
    qp_mat_t k_scale, v_scale;  /**< of int8 pages, as in qp_kv_t */
    const int32_t *block_table; /**< NULL: row first_row + i of the batch */
    int64_t table_ld, block_len;
} qp_key_source_t;

/** A dense block [n_row, n_col]. */
typedef struct {
    void *data;
    qp_dtype_t dtype;
    int64_t n_row, n_col;
} qp_block_t;

/** Writes an operand of a product. Faster than qp_cpu_store(): a NaN that arithmetic made stays
 * NaN, other bit patterns of NaN do not occur here. */
static inline void qp_store_operand(void *to, qp_dtype_t dtype, const float *restrict from,
                                    int64_t n)
{
    if (dtype == QP_F32) {
        memcpy(to, from, (size_t)n * sizeof *from);
        return;
    }
    uint16_t *restrict half = to;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &from[i], sizeof bits);
        half[i] = (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
}

static inline size_t qp_key_block_bytes(const qp_blocks_t *b)
{
    return (size_t)(QP_KB * b->a.head_dim) * qp_dtype_bytes(b->dtype);
}

/** Block (key block, kv head) in one of its forms. */
static inline char *qp_key_block(const qp_blocks_t *b, qp_key_form_t form, int64_t block,
                                 int64_t kv_head)
{
    const int64_t at = block * b->a.n_kv_head + kv_head;
    return (char *)b->key[form] + (size_t)at * qp_key_block_bytes(b);
}

/** What keys and values are wanted for. */
typedef enum { QP_FOR_FORWARD, QP_FOR_BACKWARD } qp_blocks_use_t;

/**
 * Blocks that are there together: of a batch of so many tokens as many as sequences of half a
 * block's length fill, or one long one; of a cache, whose pasts may be long and many, so few that
 * they are no second cache, or those of its longest sequence.
 */
static inline int64_t qp_blocks_of_batch(int64_t n_token)
{
    return 2 * (n_token / QP_KB + 1);
}
enum { QP_BLOCKS_OF_CACHE = 16 };

/**
 * The sequences of \a batch from \a first on whose keys (n_past as below) fill at most so many
 * blocks; at least one. Results do not depend on how a batch is cut.
 */
qp_ragged_t qp_blocks_part(const qp_ragged_t *batch, const int32_t *n_past, int64_t first,
                           int64_t max_block);

/**
 * Plans the sequences of \a batch; n_past (host, [n_seq]) adds keys before the batch's own, NULL:
 * none. The plan stays valid until the next one.
 */
void qp_blocks_init(qp_blocks_t *b, qp_cpu_device_t *device, qp_blocks_use_t use,
                    const qp_attention_t *a, qp_dtype_t dtype, const qp_ragged_t *batch,
                    const int32_t *n_past);

/** Copies all keys and values into their blocks; in parallel. */
void qp_blocks_load_keys(const qp_blocks_t *b, qp_cpu_device_t *device,
                         const qp_key_source_t *source);

/** Copies rows [first_row, first_row + n_row) of columns from first_col on; the block's rest is 0.
 */
void qp_block_load(const qp_block_t *to, const qp_mat_t *from, int64_t first_col, int64_t first_row,
                   int64_t n_row);

/**
 * Writes n_row rows from columns [E, QB] in fp32, times scale, into the columns of \a to from
 * first_col on.
 */
void qp_block_store_trans(const qp_mat_t *to, int64_t first_row, int64_t first_col,
                          const float *from, int64_t n_row, int64_t n_col, float scale);

/** All query blocks against the loaded keys; q heads stand first in qkv. lse [H, T] or NULL. */
qp_error_t qp_blocks_forward(const qp_blocks_t *b, qp_cpu_device_t *device, const qp_mat_t *out,
                             float *lse, const qp_mat_t *qkv);

/** What threads need for blocks of this kind (a, dtype, fused, max_query_block are set). */
void qp_blocks_forward_scratch(const qp_blocks_t *b, const qp_cpu_device_t *device,
                               qp_cpu_scratch_need_t *need);
void qp_blocks_backward_scratch(const qp_blocks_t *b, const qp_cpu_device_t *device,
                                int64_t n_token, qp_cpu_scratch_need_t *need);

#endif
