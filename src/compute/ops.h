/**
 * \file ops.h
 * The op table. Model and training code call these slots and nothing else; each backend fills one
 * const table, all slots required. "mat" sizes in comments are [rows, cols].
 *
 * The contract, which the backend "check" enforces (compute/check/):
 * - A slot with a queue only puts work into it and may return before any of it is done. Work of one
 *   queue is done in order; two queues know of each other by events alone.
 * - Whatever a slot is given by pointer (descriptors, the host arrays in them, what upload() reads)
 *   is read before it returns. Exceptions say so: upload_async(), download_async().
 * - Device memory is read and written by ops only. New memory holds undefined bytes, and so does
 *   what discard() was told of.
 * - download(), synchronize(), event_synchronize() and slots that return numbers wait; nothing else
 *   does. An error of work that was queued is returned by the next slot that waits.
 * - Nothing is allocated by ops: what they need besides their arguments is there since reserve(),
 *   which comes before the first of them. (The CPU makes each size of oneDNN's products ready when
 *   it is first met, and keeps it; counted as "products".)
 *
 * T is the number of tokens of a ragged batch, D = d_model, V = n_vocab, H = n_head, G = n_kv_head,
 * E = head_dim. Sums are in fp32 whatever the storage. Results do not depend on the number of
 * threads; nor, except where an op says otherwise, on what else is in the batch.
 */
#ifndef QP_COMPUTE_OPS_H
#define QP_COMPUTE_OPS_H

#include "base/eos.h"
#include "base/philox.h"
#include "compute/device.h"

/* --- weights of the frozen base --------------------------------------------------------------- */

typedef enum {
    QP_WEIGHT_F32,     /**< plain [n_out, n_in] fp32 */
    QP_WEIGHT_BF16,    /**< plain [n_out, n_in] bf16 */
    QP_WEIGHT_INT8,    /**< rotated int8 (doc/numerics.md), packed by the backend */
    QP_WEIGHT_LLM_INT8 /**< int8 as bitsandbytes (doc/numerics.md), packed by the backend */
} qp_weight_kind_t;

/** What the numbers of a weight are stored as, in files and for weight_pack(). */
static inline qp_dtype_t qp_weight_dtype(qp_weight_kind_t kind)
{
    static const qp_dtype_t dtype[] = {[QP_WEIGHT_F32] = QP_F32,
                                       [QP_WEIGHT_BF16] = QP_BF16,
                                       [QP_WEIGHT_INT8] = QP_I8,
                                       [QP_WEIGHT_LLM_INT8] = QP_I8};
    return dtype[kind];
}

enum { QP_HADAMARD_BLOCK = 64 };

/** Block of the rotation of n features (doc/numerics.md): the largest power of two <= 64 that
 * divides n. One rule for importing weights and for all backends. */
static inline int64_t qp_hadamard_block(int64_t n)
{
    int64_t block = QP_HADAMARD_BLOCK;
    while (n % block != 0)
        block /= 2;
    return block;
}

/** Weights are packed in so many rows, or a multiple of it; the last ones may be fewer. */
enum { QP_WEIGHT_ROWS = 64 };

/**
 * How an int8 linear computes. A product "on whole numbers" takes the int8 weights as bf16 or fp32
 * (device.compute), which is exact, and applies their scales to the result (forward) or to dy
 * (backward).
 */
typedef struct {
    bool int8_activation; /**< false: weight-only mode, x stays bf16/fp32; on whole numbers */
    bool int8_gradient;   /**< dX in int8 (rotated only); false, and LLM.int8: on whole numbers */
    /** LLM.int8: columns where any |x| of the batch is >= this go through a thin product on whole
     *  numbers (doc/numerics.md). */
    float outlier_threshold;
} qp_linear_mode_t;

/**
 * One frozen linear y = x W^T + bias, or the language-model head. How it lies in its storage (of
 * weight_bytes(), part of the base's one block) is the backend's own matter.
 */
typedef struct {
    qp_weight_kind_t kind;
    int64_t n_out, n_in;
    bool has_bias;
    /** It is for the ops of the language-model head, not for linear_*: fp32, bf16 or rotated int8,
     *  no bias. Floats lie as plain [n_out, n_in], so an embedding may be the same memory. */
    bool is_head;
    qp_linear_mode_t mode;
    qp_dptr_t storage;
} qp_weight_t;

/* --- ragged batches on the device ------------------------------------------------------------- */

/** A flat list of tokens with sequence boundaries. Positions restart at each sequence. */
typedef struct {
    int64_t n_token, n_seq;
    const int32_t *cu_seqlens_host; /**< [n_seq + 1], for scheduling */
    qp_dptr_t cu_seqlens;           /**< [n_seq + 1] int32 */
    qp_dptr_t position;             /**< [T] int32, position in the sequence (past included) */
    qp_dptr_t sample; /**< [T] uint32, random-number identity of the token's sequence */
} qp_ragged_t;

typedef struct {
    int64_t n_head, n_kv_head, head_dim;
    float scale; /**< 1 / sqrt(head_dim) */
} qp_attention_t;

/** The largest pass that will be made: what the backend's scratch follows from. What is 0 is not
 * done at all. */
typedef struct {
    int64_t n_token;
    int64_t d_model, n_vocab;
    int64_t widest;  /**< features of the widest input or output of a linear */
    int64_t n_inner; /**< columns of the widest matrix inside of an adapter */
    qp_attention_t attention;
    int64_t n_key;    /**< tokens of the longest sequence in the cache */
    int64_t n_decode; /**< tokens of sequences that are decoded (qp_kv_map_t), and rows sampled */
    qp_weight_kind_t weight, lm_head;
    bool backward;
    /** Products take fp32 though device.compute is bf16, or the other way round; in matmul one
     *  operand may be of each. */
    bool mixed;
} qp_pass_size_t;

/**
 * Paged KV cache of one layer. Key/value row of token t of a sequence stands at block
 * block_table[t / block_len], row t % block_len. All layers share the table.
 */
typedef struct {
    qp_mat_t k, v; /**< [n_block * block_len, G*E] bf16, fp32 or int8 */
    /** int8: [n_block * block_len, G] fp32, absmax / 127 over a row's kv head; x is q scale with
     *  q = rn(127 x / absmax), half to even. Otherwise no data. */
    qp_mat_t k_scale, v_scale;
    int64_t block_len;
} qp_kv_t;

/** The first n_row rows of a block to another one. */
typedef struct {
    int32_t to, from, n_row;
} qp_kv_rows_t;

/** Copies within the cache, in all layers; no block of them is written by one and part of another.
 */
typedef struct {
    const qp_kv_t *layer; /**< host [n_layer] */
    int64_t n_layer, n_copy;
    const qp_kv_rows_t *rows; /**< host [n_copy] */
    qp_dptr_t rows_device;    /**< the same on the device */
} qp_kv_copy_t;

typedef struct {
    int64_t n_seq;              /**< as of the batch */
    const int32_t *n_past;      /**< host [n_seq]: tokens already in the cache before this batch */
    const int32_t *block_table; /**< host [n_seq, table_ld] block numbers */
    int64_t table_ld;
    /** The first n_decode sequences (of a few new tokens, mostly one) are computed as is best for
     *  reading the cache, the others in blocks: a token's bits do not depend on how many come with
     *  it. */
    int64_t n_decode;
    qp_dptr_t n_past_device, block_table_device; /**< the same on the device */
} qp_kv_map_t;

typedef struct {
    float temperature;         /**< 0: greedy */
    int64_t top_k;             /**< 0: off */
    float top_p;               /**< 1: off */
    const qp_eos_t *forbidden; /**< tokens that the rows marked by forbid must not draw */
} qp_sampling_t;

typedef struct {
    /** double, as torch keeps them: 1 - beta2 is small */
    double lr, beta1, beta2, eps, weight_decay;
    float grad_scale; /**< multiplies the gradient first (clipping) */
    int64_t step;     /**< 1-based, for bias correction */
} qp_adamw_t;

/* --- what linears read ------------------------------------------------------------------------ */

/** A dropout mask of rows of n_col elements. */
typedef struct {
    qp_dptr_t bits; /**< [T, qp_mask_words(n_col)] uint64; bit c % 64 of word c / 64 is set where
                         element c is kept; none: all are */
    float scale;    /**< of what is kept: 1 / (1 - p) */
} qp_mask_t;

static inline int64_t qp_mask_words(int64_t n_col)
{
    return (n_col + 63) / 64;
}

typedef enum {
    QP_INPUT_PLAIN,          /**< x itself */
    QP_INPUT_RMSNORM,        /**< x * rsqrt(mean(x^2) + eps) * weight */
    QP_INPUT_SWIGLU,         /**< silu(gate) * up */
    QP_INPUT_SWIGLU_GRADIENT /**< with s = sigmoid(gate): dgate = dout up s (1 + gate (1 - s)),
                                  dup = dout gate s */
} qp_input_kind_t;

/** A function of rows, computed on the way into a linear: it need not exist in memory. */
typedef struct {
    qp_input_kind_t kind;
    qp_mat_t x;       /**< fp32 or bf16; SWIGLU and its gradient: gate then up, [T, 2F] */
    qp_dptr_t weight; /**< RMSNORM: [D] fp32 */
    qp_dptr_t rstd;   /**< RMSNORM: [T] fp32, gets 1 / sqrt(mean(x^2) + eps) for backward */
    float eps;
    qp_mat_t dout; /**< SWIGLU_GRADIENT: [T, F] */
    /** No data, or where the result (SWIGLU_GRADIENT: dgate then dup) is also wanted; may be x. */
    qp_mat_t copy;
    qp_mask_t mask; /**< applied to the copy only */
} qp_input_t;

static inline qp_input_t qp_input(qp_mat_t x)
{
    return (qp_input_t){.kind = QP_INPUT_PLAIN, .x = x};
}

/** Columns of the result. */
static inline int64_t qp_input_n_col(const qp_input_t *input)
{
    return input->kind == QP_INPUT_SWIGLU ? input->x.n_col / 2 : input->x.n_col;
}

typedef struct qp_ops {
    const char *name;

    /* --- memory: counted under label ---------------------------------------------------------- */
    /** Free and all bytes of the device's own memory, or of the part of it that may be used
     *  (device.memory); scratch that a budget will move counts as free. Both -1 where it has none
     *  and alloc() gives memory of the host; free is -1 where it is not known (a dry run without
     *  the device); all is then what others take of it. */
    qp_error_t (*memory_info)(qp_device_t *device, int64_t *free_bytes, int64_t *all_bytes);
    /**
     * Takes the device's own memory for all rows of the budget, in one piece. From here on alloc()
     * gives parts of the row that has its label, and no more than that: so nothing that a plan has
     * forgotten is allocated in the middle of a run. Once, with nothing allocated before. QP_IO: no
     * room. Rank-local. A device whose memory is the host's does nothing.
     */
    qp_error_t (*take_budget)(qp_device_t *device, const qp_budget_t *budget);
    /** Bytes that reserve() of all these sizes takes of a new device, for the memory plan. */
    size_t (*scratch_bytes)(const qp_device_t *device, const qp_pass_size_t *size, int n);
    /**
     * Allocates what ops need for passes up to a size. Again for another one: what was reserved
     * stays, or grows. Waits for all work that was queued before. Rank-local.
     */
    qp_error_t (*reserve)(qp_device_t *device, const qp_pass_size_t *size);
    /** Aligned to 64 bytes at least; undefined contents. */
    qp_error_t (*alloc)(qp_device_t *device, const char *label, size_t bytes, qp_dptr_t *out);
    /** Waits for all work that was queued before. Nulls; {0} allowed. */
    void (*release)(qp_device_t *device, qp_dptr_t *p);
    /** Host memory that the device reads and writes by itself (pinned). */
    qp_error_t (*host_alloc)(qp_device_t *device, const char *label, size_t bytes, void **out);
    /** NULL allowed. */
    void (*host_release)(qp_device_t *device, void *p);
    /** Makes host memory from elsewhere (node-shared) such memory, until it is unregistered. Whole
     * pages. */
    qp_error_t (*host_register)(qp_device_t *device, void *p, size_t bytes);
    /** Once all work on it is done. */
    void (*host_unregister)(qp_device_t *device, void *p);

    /* --- queues and events -------------------------------------------------------------------- */
    qp_error_t (*queue_create)(qp_device_t *device, qp_queue_t **queue);
    /** Waits for its work. Nulls; NULL allowed. */
    void (*queue_destroy)(qp_queue_t **queue);
    qp_error_t (*synchronize)(qp_queue_t *q);
    qp_error_t (*event_create)(qp_device_t *device, qp_event_t **event);
    /** Nulls; NULL allowed. */
    void (*event_destroy)(qp_event_t **event);
    /** The event stands for all work of the queue so far; it may be recorded again. */
    qp_error_t (*event_record)(qp_queue_t *q, qp_event_t *event);
    /** What is queued in q from here on waits for the event as it is recorded now. */
    qp_error_t (*event_wait)(qp_queue_t *q, qp_event_t *event);
    /** The host waits. An event that was never recorded has come. */
    qp_error_t (*event_synchronize)(qp_event_t *event);

    /* --- copies ------------------------------------------------------------------------------- */
    /** \a from may be overwritten or freed on return. */
    qp_error_t (*upload)(qp_queue_t *q, qp_dptr_t to, const void *from, size_t bytes);
    /** \a from (pinned) stays as it is until the queue has got there. */
    qp_error_t (*upload_async)(qp_queue_t *q, qp_dptr_t to, const void *from, size_t bytes);
    /** Waits. */
    qp_error_t (*download)(qp_queue_t *q, void *to, qp_dptr_t from, size_t bytes);
    /** \a to (pinned) holds the bytes when the queue has got there. */
    qp_error_t (*download_async)(qp_queue_t *q, void *to, qp_dptr_t from, size_t bytes);
    qp_error_t (*copy)(qp_queue_t *q, qp_dptr_t to, qp_dptr_t from, size_t bytes);
    qp_error_t (*zero)(qp_queue_t *q, qp_dptr_t p, size_t bytes);
    /** What is there is of no use to anybody any more. */
    qp_error_t (*discard)(qp_queue_t *q, qp_dptr_t p, size_t bytes);

    /* --- frozen linears ----------------------------------------------------------------------- */
    /** Bytes of w's storage (kind, n_out, n_in and has_bias are set). */
    size_t (*weight_bytes)(const qp_device_t *device, const qp_weight_t *w);
    /**
     * Puts rows [first, first + n) of a weight into w's storage: plain [n, n_in] dense in
     * qp_weight_dtype(), scale [n] fp32 (int8 kinds; none otherwise), bias [n] fp32 (where w has
     * one). All rows of a weight come once, in order; first is a multiple of QP_WEIGHT_ROWS.
     */
    qp_error_t (*weight_pack)(qp_queue_t *q, const qp_weight_t *w, int64_t first, qp_mat_t plain,
                              qp_dptr_t scale, qp_dptr_t bias);
    /**
     * y [T, n_out] (fp32 or bf16) = x W^T + bias + add; x [T, n_in]; add [T, n_out] or no data; it
     * may be y. A row depends on its own x alone, bit for bit (LLM.int8: and on which columns have
     * an outlier; bf16 with AMX: and on T). A row of x that is not finite gives a row of y that is
     * not finite.
     */
    qp_error_t (*linear_forward)(qp_queue_t *q, qp_mat_t y, const qp_input_t *x,
                                 const qp_weight_t *w, qp_mat_t add);
    /** dx [T, n_in] = dy W + add. */
    qp_error_t (*linear_backward)(qp_queue_t *q, qp_mat_t dx, const qp_input_t *dy,
                                  const qp_weight_t *w, qp_mat_t add);

    /* --- dense products (LoRA, heads) --------------------------------------------------------- */
    /**
     * c = mask(alpha op(a) op(b)) + beta c; op transposes when told. Any mix of fp32 / bf16 with
     * fp32 sums: two fp32 operands are multiplied in fp32; other pairs in the type of
     * device.compute. With beta 0 the old c does not matter. The summed size must not be 0.
     * Without trans_a a row of c depends on its own row of a alone, bit for bit (bf16 with AMX: and
     * on the number of rows).
     */
    qp_error_t (*matmul)(qp_queue_t *q, float alpha, qp_mat_t a, bool trans_a, qp_mat_t b,
                         bool trans_b, float beta, qp_mat_t c, qp_mask_t mask);

    /* --- elementwise and rows ----------------------------------------------------------------- */
    /** out [T, D] = rows of table [V, D] (fp32 or bf16) named by token [T] int32; of
     * a negative one (sample() could not draw) zeros. */
    qp_error_t (*embed)(qp_queue_t *q, qp_mat_t out, qp_mat_t table, qp_dptr_t token);
    /** out row i = in row index[i] (int32); index may repeat. In the same type all bits are kept.
     */
    qp_error_t (*gather_rows)(qp_queue_t *q, qp_mat_t out, qp_mat_t in, qp_dptr_t index);
    /**
     * x row i = scale[i] (x row i) + shift[i] w: how the gradients of heads come together. x [N,
     * D]; scale [N] fp32 or none (then the old x does not matter and counts as 0); shift [N] fp32
     * and w [D] fp32 or both none.
     */
    qp_error_t (*combine_rows)(qp_queue_t *q, qp_mat_t x, qp_dptr_t scale, qp_dptr_t shift,
                               qp_dptr_t w);
    /** Writes x->copy; a linear that takes \a x does so too. */
    qp_error_t (*input)(qp_queue_t *q, const qp_input_t *x);
    /** dx (+= with accumulate) from dy, x, rstd; no weight gradient. */
    qp_error_t (*rmsnorm_backward)(qp_queue_t *q, qp_mat_t dx, qp_mat_t dy, qp_mat_t x,
                                   qp_dptr_t rstd, qp_dptr_t weight, bool accumulate);
    /**
     * Rotates the q and k heads of qkv [T, (H + 2G) E] in place by the angles of table
     * [n_position, E] fp32 (cos in the first half of a row, sin in the second), half-split pairing
     * as in HF LLaMA; inverse for backward.
     */
    qp_error_t (*rope)(qp_queue_t *q, qp_mat_t qkv, const qp_attention_t *a, qp_mat_t table,
                       qp_dptr_t position, bool inverse);
    /**
     * Draws a mask [T, n_col]: element (t, c) is kept when half c of key {seed, step, sample[t],
     * position[t], site} is >= p 2^16 (halves of 16 bits, the lower one of a word first).
     */
    qp_error_t (*dropout)(qp_queue_t *q, qp_dptr_t bits, int64_t n_col, float p,
                          const qp_philox_key_t *key, const qp_ragged_t *batch);
    /** y = alpha x + beta y, any of fp32 / bf16 (a cast is alpha 1, beta 0). */
    qp_error_t (*axpby)(qp_queue_t *q, float alpha, qp_mat_t x, float beta, qp_mat_t y);

    /* --- attention ---------------------------------------------------------------------------- */
    /** Causal within each sequence. out [T, H E]; lse [H, T] fp32 kept for backward. qkv after
     * rope. */
    qp_error_t (*attention_forward)(qp_queue_t *q, qp_mat_t out, qp_dptr_t lse, qp_mat_t qkv,
                                    const qp_attention_t *a, const qp_ragged_t *batch);
    qp_error_t (*attention_backward)(qp_queue_t *q, qp_mat_t dqkv, qp_mat_t dout, qp_mat_t out,
                                     qp_dptr_t lse, qp_mat_t qkv, const qp_attention_t *a,
                                     const qp_ragged_t *batch);
    /** Writes this batch's k and v (from qkv after rope) into the cache at n_past + i. */
    qp_error_t (*kv_append)(qp_queue_t *q, const qp_kv_t *kv, qp_mat_t qkv, const qp_attention_t *a,
                            const qp_ragged_t *batch, const qp_kv_map_t *map);
    /** Copies rows of blocks, keys, values and their scales, in all layers. */
    qp_error_t (*kv_copy)(qp_queue_t *q, const qp_kv_copy_t *copies);
    /** out [T, H E]: each new token attends to the cache up to and including itself (after append).
     */
    qp_error_t (*attention_cached)(qp_queue_t *q, qp_mat_t out, qp_mat_t qkv, const qp_kv_t *kv,
                                   const qp_attention_t *a, const qp_ragged_t *batch,
                                   const qp_kv_map_t *map);

    /* --- language-model head, fused over row and vocabulary chunks ---------------------------- */
    /**
     * logprob [N] fp32 = log softmax(hidden W^T)[target]; rows with target < 0 give 0.
     * entropy [N] fp32 or none. dhidden [N, D], if it has data, gets d logprob_n / d hidden_n in
     * the same pass (rows with target < 0: zero). Full logits never exist. W is that of head [V,
     * D], whose mode says how an int8 one computes, as in a linear; with int8_gradient the
     * probabilities are rounded to int8, row by row and some tokens at a time, and the target's row
     * of W enters in fp32.
     */
    qp_error_t (*lm_head)(qp_queue_t *q, qp_dptr_t logprob, qp_dptr_t entropy, qp_mat_t dhidden,
                          qp_mat_t hidden, const qp_weight_t *head, qp_dptr_t target);
    /** kl [N] fp32 = sum over the vocabulary of p (log p - log q), with p and q the softmax of
     * hidden_p head^T and of hidden_q head^T. */
    qp_error_t (*lm_kl)(qp_queue_t *q, qp_dptr_t kl, qp_mat_t hidden_p, qp_mat_t hidden_q,
                        const qp_weight_t *head);
    /** logits [N, V] fp32 = hidden head^T, rows as of matmul or, int8, of a linear; for decoding
     * and tests. */
    qp_error_t (*lm_logits)(qp_queue_t *q, qp_mat_t logits, qp_mat_t hidden,
                            const qp_weight_t *head);
    /**
     * Draws one token per row of logits [N, V]: temperature, then top-k, then top-p as HF's
     * warpers. The uniform is word 0 of key {seed, step, sample[n], position[n], QP_SITE_SAMPLING};
     * ties and order by token id, so the draw does not depend on the other rows. token [N] int32,
     * or -1 where a logit is NaN or infinite; logprob [N] fp32 is of the unwarped (temperature 1)
     * distribution, of all tokens. sample, position: [N] uint32. forbid: [N] uint32, 1: the row
     * must not draw sampling->forbidden (their logits are overwritten); none: every row may.
     */
    qp_error_t (*sample)(qp_queue_t *q, qp_dptr_t token, qp_dptr_t logprob, qp_mat_t logits,
                         const qp_sampling_t *sampling, const qp_philox_key_t *key,
                         qp_dptr_t sample, qp_dptr_t position, qp_dptr_t forbid);

    /* --- optimiser, flat fp32 arrays ---------------------------------------------------------- */
    /** Sum of squares in a fixed order; a NaN or infinity in x makes the result non-finite.
     * Waits. */
    qp_error_t (*sum_squares)(qp_queue_t *q, qp_dptr_t x, int64_t n, double *out);
    /** AdamW (decoupled decay, torch's order of operations); also writes bf16 copy if not none. */
    qp_error_t (*adamw)(qp_queue_t *q, qp_dptr_t param, qp_dptr_t copy_bf16, qp_dptr_t grad,
                        qp_dptr_t m, qp_dptr_t v, int64_t n, const qp_adamw_t *hyper);
} qp_ops_t;

#endif
