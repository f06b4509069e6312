/**
 * \file cpu.h
 * Inside of the CPU backend: the device, its scratch memory, rows in fp32, single-threaded products
 * and the functions behind the op table. Nothing outside compute/cpu includes this.
 *
 * How an op uses the cores: it cuts its work into pieces whose borders depend on the sizes alone,
 * then an OpenMP loop hands the pieces to the threads. So results do not depend on the thread
 * count.
 */
#ifndef QP_COMPUTE_CPU_H
#define QP_COMPUTE_CPU_H

#include <omp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "compute/ops_list.h"

/**
 * Versions of a leaf function for the baseline, AVX2 and AVX-512, chosen when the program is
 * loaded. The function must not contain an OpenMP pragma itself (gcc would not clone the loop's
 * body).
 */
#if defined(QP_CPU_NO_CLONES) /* tests/CMakeLists.txt: all code for one instruction set */
#define QP_CPU_CLONES
#elif defined(__x86_64__) && defined(__gnu_linux__)
#define QP_CPU_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define QP_CPU_CLONES
#endif

/* --- device ----------------------------------------------------------------------------------- */

/**
 * Scratch blocks, of which reserve() makes each as large as the largest pass needs. An op uses only
 * its own.
 */
#define QP_CPU_SCRATCH_SLOTS(SLOT)                                               \
    SLOT(ROWS, "input, linear: one row in fp32 per thread")                      \
    SLOT(ACTIVATION, "linear: rows of x or dy in the type of the product")       \
    SLOT(ROW_SCALE, "linear: scales of those rows")                              \
    SLOT(OUTLIER, "linear: outlier columns of x and their numbers")              \
    SLOT(TILE, "linear, matmul: panel and result tile of each thread")           \
    SLOT(CAST_A, "matmul: a in the type of the product")                         \
    SLOT(CAST_B, "matmul: b in the type of the product")                         \
    SLOT(ATTENTION, "attention: plan, blocks of keys and values")                \
    SLOT(ATTENTION_TASK, "attention: one piece per thread")                      \
    SLOT(ATTENTION_SUM, "attention: partial results that are summed at the end") \
    SLOT(HEAD, "lm_head: slices of the head, logits of each thread")             \
    SLOT(HEAD_ROWS, "lm_head, lm_logits: rows, their statistics and sums")       \
    SLOT(KL, "lm_kl: logits of a few rows")                                      \
    SLOT(SAMPLE, "sample: candidates of a row")

#define QP_CPU_SCRATCH_ID(id, what) QP_SCRATCH_##id,
typedef enum { QP_CPU_SCRATCH_SLOTS(QP_CPU_SCRATCH_ID) QP_N_SCRATCH } qp_cpu_scratch_slot_t;
#undef QP_CPU_SCRATCH_ID

/** Bytes of each slot. */
typedef struct {
    size_t bytes[QP_N_SCRATCH];
} qp_cpu_scratch_need_t;

typedef struct qp_cpu_gemm_cache qp_cpu_gemm_cache_t;
struct qp_cpu_int8_product; /* int8.h */
struct qp_cpu_float;        /* float.h */

typedef struct {
    qp_device_t base; /* first: a qp_device_t * is a qp_cpu_device_t * */
    qp_queue_t queue;
    int n_thread;     /* = base.config.threads */
    bool packed_int8; /* int8 weights are packed (weight.h): something multiplies them so */
    bool packed_bf16; /* oneDNN multiplies packed bf16 here (AVX-512 BF16), pack.h */
    const struct qp_cpu_int8_product *int8_product; /* our own, of packed int8; NULL: oneDNN's */
    /* our own of fp32, and of bf16 if computed */
    void (*float_product[QP_N_DTYPE])(const struct qp_cpu_float *p);
    bool dnnl_bf16; /* for rows times a matrix in bf16 oneDNN is asked: there is AMX */
    qp_cpu_gemm_cache_t *gemm;
    void *scratch[QP_N_SCRATCH];
    qp_cpu_scratch_need_t reserved; /* bytes of these */
    const char *op;                 /* of "check", which is being done; else NULL */
} qp_cpu_device_t;

/** Opens the CPU device; see qp_device_open(). */
qp_error_t qp_cpu_device_open(const qp_device_config_t *config, int index, int node_size,
                              qp_device_t **device);

/** What it computes in by itself: bf16 where it has instructions that multiply it, else fp32. */
qp_compute_t qp_cpu_auto_compute(void);

static inline qp_cpu_device_t *qp_cpu_device(qp_queue_t *q)
{
    return (qp_cpu_device_t *)q->device;
}

/** Whether oneDNN multiplies rows of this type by a matrix, else we do; see tile.h. */
static inline bool qp_cpu_by_dnnl(const qp_cpu_device_t *device, qp_dtype_t dtype)
{
    return dtype == QP_BF16 && device->dnnl_bf16;
}

/** Elementwise work below this is not worth waking the other threads. */
enum { QP_CPU_SERIAL = 8192 };

/** Threads for elementwise work on n elements. */
static inline int qp_cpu_threads(qp_queue_t *q, int64_t n)
{
    return n < QP_CPU_SERIAL ? 1 : qp_cpu_device(q)->n_thread;
}

/* --- scratch (core/scratch.c) ------------------------------------------------------------------
 */

/**
 * \a bytes of the slot's 64-aligned memory, valid until the same slot is asked for again; contents
 * undefined. More than reserve() was told of is allocated now; inside an op of the backend "check"
 * it ends the program with a message. Not inside a parallel region.
 */
void *qp_cpu_scratch(qp_cpu_device_t *device, qp_cpu_scratch_slot_t slot, size_t bytes);

/** Makes each slot at least so large; contents are not kept. Counted under "scratch". */
void qp_cpu_scratch_grow(qp_cpu_device_t *device, const qp_cpu_scratch_need_t *need);

/** The slot is to have \a bytes at least. */
static inline void qp_cpu_need(qp_cpu_scratch_need_t *need, qp_cpu_scratch_slot_t slot,
                               size_t bytes)
{
    if (bytes > need->bytes[slot])
        need->bytes[slot] = bytes;
}

/** Sizes of pieces that one scratch block is cut into. */
static inline size_t qp_cpu_round64(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/** Next 64-aligned piece of a block of memory. */
static inline void *qp_cpu_carve(char **at, size_t bytes)
{
    void *piece = *at;
    *at += qp_cpu_round64(bytes);
    return piece;
}

/** Keeps the first error of several threads in *first and frees the others. NULL is allowed. */
void qp_cpu_keep_error(qp_error_t *first, qp_error_t error);

/* --- addresses -------------------------------------------------------------------------------- */

static inline void *qp_cpu_pointer(qp_dptr_t p)
{
    return (void *)p.address;
}

static inline float *qp_cpu_f32(qp_dptr_t p)
{
    return (float *)p.address;
}

static inline uint16_t *qp_cpu_bf16(qp_dptr_t p)
{
    return (uint16_t *)p.address;
}

static inline int32_t *qp_cpu_i32(qp_dptr_t p)
{
    return (int32_t *)p.address;
}

static inline uint32_t *qp_cpu_u32(qp_dptr_t p)
{
    return (uint32_t *)p.address;
}

/** Address of element (row, col). */
static inline void *qp_cpu_at(const qp_mat_t *m, int64_t row, int64_t col)
{
    return (char *)m->data.address + (size_t)(row * m->ld + col) * qp_dtype_bytes(m->dtype);
}

/* --- frozen weights --------------------------------------------------------------------------- */

/** A weight with the parts of its storage; how they lie is told in weight.h. */
typedef struct {
    qp_weight_kind_t kind;
    int64_t n_out, n_in;
    qp_linear_mode_t mode;
    qp_dptr_t data;    /**< packed or plain weights */
    qp_dptr_t scale;   /**< [n_out] fp32, absmax / 127 of each row; int8 kinds */
    qp_dptr_t row_sum; /**< [n_out] int32 sums of the int8 rows; int8 kinds */
    qp_dptr_t col_sum; /**< [n_in] int32 sums of the int8 columns; QP_WEIGHT_INT8 */
    qp_dptr_t bias;    /**< [n_out] fp32 or none */
} qp_cpu_weight_t;

/* --- rows in fp32 ----------------------------------------------------------------------------- */

/** Reads n elements of an fp32 or bf16 row; inlined, so that it vectorises in QP_CPU_CLONES. */
static inline void qp_cpu_load(float *restrict to, qp_dtype_t dtype, const void *from, int64_t n)
{
    if (dtype == QP_F32) {
        memcpy(to, from, (size_t)n * sizeof *to);
        return;
    }
    const uint16_t *restrict half = from;
    for (int64_t i = 0; i < n; i++)
        to[i] = qp_bf16_to_f32(half[i]);
}

/** Writes n elements as fp32 or bf16. */
static inline void qp_cpu_store(void *to, qp_dtype_t dtype, const float *restrict from, int64_t n)
{
    if (dtype == QP_F32) {
        memcpy(to, from, (size_t)n * sizeof *from);
        return;
    }
    uint16_t *restrict half = to;
    for (int64_t i = 0; i < n; i++)
        half[i] = qp_f32_to_bf16(from[i]);
}

/** to += from, in the type of to. */
static inline void qp_cpu_add(void *to, qp_dtype_t dtype, const float *restrict from, int64_t n)
{
    if (dtype == QP_F32) {
        float *restrict whole = to;
        for (int64_t i = 0; i < n; i++)
            whole[i] += from[i];
        return;
    }
    uint16_t *restrict half = to;
    for (int64_t i = 0; i < n; i++)
        half[i] = qp_f32_to_bf16(qp_bf16_to_f32(half[i]) + from[i]);
}

/* --- products of one thread ------------------------------------------------------------------- */

/**
 * c [m, n] = alpha op(a) op(b), or c += with accumulate; op transposes when told. Row-major with
 * leading dimensions ld* (of a and b as they are stored). Types: fp32 x fp32 -> fp32, bf16 x bf16
 * -> fp32 or bf16, uint8 x int8 -> int32 (alpha 1). Sums are in fp32 or int32.
 */
typedef struct {
    int64_t m, n, k;
    int64_t lda, ldb, ldc;
    int32_t trans_a, trans_b;
    int32_t a, b, c; /* qp_dtype_t */
    int32_t accumulate;
    float alpha;
    int32_t packed_b; /* b is int8 (weight.h; needed for uint8) or bf16 (pack.h) in blocks */
} qp_cpu_gemm_spec_t;

/** A product made ready; owned by the device, valid until it is closed. */
typedef struct qp_cpu_gemm qp_cpu_gemm_t;

/**
 * Finds the product in the device's cache, or makes it (milliseconds; keep the number of different
 * sizes small). Not inside a parallel region, and before qp_cpu_gemm_run() of the same region.
 */
qp_error_t qp_cpu_gemm_get(qp_cpu_device_t *device, const qp_cpu_gemm_spec_t *spec,
                           const qp_cpu_gemm_t **gemm);

/**
 * Computes it in the calling thread. \a thread is omp_get_thread_num() of a parallel region of at
 * most device->n_thread threads (0 outside). Any number of threads may run the same product.
 */
qp_error_t qp_cpu_gemm_run(const qp_cpu_gemm_t *gemm, int thread, const void *a, const void *b,
                           void *c);

/* --- what ops need for passes up to a size: from the same computations that they use ------------
 */

void qp_cpu_input_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                          qp_cpu_scratch_need_t *need);
void qp_cpu_matmul_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                           qp_cpu_scratch_need_t *need);
void qp_cpu_linear_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                           qp_cpu_scratch_need_t *need);
void qp_cpu_attention_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                              qp_cpu_scratch_need_t *need);
void qp_cpu_lm_head_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                            qp_cpu_scratch_need_t *need);
void qp_cpu_lm_logits_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                              qp_cpu_scratch_need_t *need);
void qp_cpu_lm_kl_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                          qp_cpu_scratch_need_t *need);
void qp_cpu_sample_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                           qp_cpu_scratch_need_t *need);

/* --- the functions behind qp_ops_cpu; contracts in ops.h. All work is done on return. ----------
 */

qp_error_t qp_cpu_memory_info(qp_device_t *device, int64_t *free_bytes, int64_t *all_bytes);
qp_error_t qp_cpu_take_budget(qp_device_t *device, const qp_budget_t *budget);
size_t qp_cpu_scratch_bytes(const qp_device_t *device, const qp_pass_size_t *size, int n);
qp_error_t qp_cpu_reserve(qp_device_t *device, const qp_pass_size_t *size);
qp_error_t qp_cpu_alloc(qp_device_t *device, const char *label, size_t bytes, qp_dptr_t *out);
void qp_cpu_release(qp_device_t *device, qp_dptr_t *p);
qp_error_t qp_cpu_host_alloc(qp_device_t *device, const char *label, size_t bytes, void **out);
void qp_cpu_host_release(qp_device_t *device, void *p);
qp_error_t qp_cpu_host_register(qp_device_t *device, void *p, size_t bytes);
void qp_cpu_host_unregister(qp_device_t *device, void *p);

qp_error_t qp_cpu_queue_create(qp_device_t *device, qp_queue_t **queue);
void qp_cpu_queue_destroy(qp_queue_t **queue);
qp_error_t qp_cpu_synchronize(qp_queue_t *q);
qp_error_t qp_cpu_event_create(qp_device_t *device, qp_event_t **event);
void qp_cpu_event_destroy(qp_event_t **event);
qp_error_t qp_cpu_event_record(qp_queue_t *q, qp_event_t *event);
qp_error_t qp_cpu_event_wait(qp_queue_t *q, qp_event_t *event);
qp_error_t qp_cpu_event_synchronize(qp_event_t *event);

qp_error_t qp_cpu_upload(qp_queue_t *q, qp_dptr_t to, const void *from, size_t bytes);
qp_error_t qp_cpu_download(qp_queue_t *q, void *to, qp_dptr_t from, size_t bytes);
qp_error_t qp_cpu_copy(qp_queue_t *q, qp_dptr_t to, qp_dptr_t from, size_t bytes);
qp_error_t qp_cpu_zero(qp_queue_t *q, qp_dptr_t p, size_t bytes);
qp_error_t qp_cpu_discard(qp_queue_t *q, qp_dptr_t p, size_t bytes);

size_t qp_cpu_weight_bytes(const qp_device_t *device, const qp_weight_t *w);

#define QP_CPU_DECLARE(name, ...) \
    qp_error_t qp_cpu_##name(qp_queue_t *q QP_EACH(QP_PARAMETER, __VA_ARGS__));
QP_QUEUE_OPS(QP_CPU_DECLARE)

qp_error_t qp_cpu_sum_squares(qp_queue_t *q, qp_dptr_t x, int64_t n, double *out);

extern const qp_ops_t qp_ops_cpu;

#endif
