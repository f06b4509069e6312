/**
 * \file cuda.h
 * Inside of the CUDA backend: the device, its scratch memory, queues, launches and the functions
 * behind the op table. Nothing outside of cuda/ includes this. For C and CUDA C++ alike.
 *
 * The rooms are those of compute/cpu: core, rows, gemm, linear, attention, head. A .cu file has the
 * kernels of an op and the slot that launches them; slots are C functions (QP_CUDA_BEGIN).
 *
 * - A launch is QP_LAUNCH (core/launch.h), nothing else, so that every one is checked and the
 *   sources run on the CPU too (tests/cuda_on_cpu/).
 * - Sums have one order, fixed by the sizes: no atomics on floats.
 * - nvcc contracts nothing (-fmad=false): where a fused multiply-add is meant it says fmaf().
 * - A row that is not finite stays not finite; fmaxf() loses NaN.
 * - Element counts and offsets are int64_t.
 */
#ifndef QP_CUDA_CUDA_H
#define QP_CUDA_CUDA_H

#ifdef __cplusplus
#define QP_CUDA_BEGIN extern "C" {
#define QP_CUDA_END }
#else
#define QP_CUDA_BEGIN
#define QP_CUDA_END
#endif

#include <cuda_runtime_api.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* clang-format off */
QP_CUDA_BEGIN /* functions of C that .cu files call */
#include "base/error.h"
#include "base/mem.h"
#include "comm/comm.h"
QP_CUDA_END

#include "compute/ops_list.h"

QP_CUDA_BEGIN
/* clang-format on */

/* --- device ----------------------------------------------------------------------------------- */

/** Scratch blocks, of which reserve() makes each as large as the largest pass needs. An op uses
 * only its own, on the default queue. */
#define QP_CUDA_SCRATCH_SLOTS(SLOT)                                                \
    SLOT(ACTIVATION, "linear: rows of x or dy in the type of the product")         \
    SLOT(LONG_ROWS, "linear: rows in fp32 that are too long for a multiprocessor") \
    SLOT(TRANSPOSED, "linear: the transposed weights")                             \
    SLOT(PRODUCT, "linear: sums of int8 products")                                 \
    SLOT(OUTLIER, "linear: the numbers of outlier columns of x")                   \
    SLOT(WORKSPACE, "cuBLASLt")                                                    \
    SLOT(MATMUL, "matmul: partial sums")                                           \
    SLOT(ATTENTION, "attention: partial results")                                  \
    SLOT(HEAD, "lm_head, lm_kl: logits of some rows and tokens")                   \
    SLOT(HEAD_ROWS, "lm_head, lm_kl, lm_logits: rows, their statistics and sums")  \
    SLOT(SUM, "sum_squares: partial sums")

#define QP_CUDA_SCRATCH_ID(id, what) QP_CUDA_SCRATCH_##id,
    typedef enum {
        QP_CUDA_SCRATCH_SLOTS(QP_CUDA_SCRATCH_ID) QP_CUDA_N_SCRATCH
    } qp_cuda_scratch_slot_t;
#undef QP_CUDA_SCRATCH_ID

/** Bytes of each slot. */
typedef struct {
    size_t bytes[QP_CUDA_N_SCRATCH];
} qp_cuda_need_t;

/** Features of a head that the kernels of attention are there for. */
enum { QP_CUDA_MAX_HEAD_DIM = 256 };

typedef struct {
    qp_device_t base; /**< first: a qp_device_t * is a qp_cuda_device_t * */
    bool is_there;    /**< else only its sizes are: for a dry run */
    int index;        /**< of CUDA, among what this process sees */
    int n_sm;         /**< multiprocessors */
    char *arena;      /**< the budget's one piece; NULL: there is none */
    void *scratch[QP_CUDA_N_SCRATCH];
    qp_cuda_need_t reserved; /**< bytes of these */
    struct qp_cublaslt *lt;  /**< gemm/cublaslt.h */
} qp_cuda_device_t;

/** A pinned buffer that upload() copies through: two halves, used in turn. */
typedef struct {
    char *host[2];
    cudaEvent_t free[2]; /**< its last copy is done */
    int next;
} qp_cuda_ring_t;

typedef struct {
    qp_queue_t base; /**< first */
    cudaStream_t stream;
    qp_cuda_ring_t ring;
} qp_cuda_queue_t;

static inline qp_cuda_device_t *qp_cuda_device(qp_queue_t *q)
{
    return (qp_cuda_device_t *)q->device;
}

static inline cudaStream_t qp_cuda_stream(qp_queue_t *q)
{
    return ((qp_cuda_queue_t *)q)->stream;
}

/** An error of a CUDA call, or NULL; \a what is the call or the kernel. Clears CUDA's own state. */
qp_error_t qp_cuda_error(cudaError_t status, const char *what, const char *file, int line);

/** The call, as an error of ours. */
#define QP_CUDA(call) qp_cuda_error((call), #call, __FILE__, __LINE__)

/* --- scratch (core/memory.c) ----------------------------------------------------------------- */

/** \a bytes of the slot, aligned to 256, for an op of the default queue; aborts if reserve() was
 * told of no such pass. */
void *qp_cuda_scratch(qp_queue_t *q, qp_cuda_scratch_slot_t slot, size_t bytes);

/** For the end of a device: all of its scratch; what take_budget() took, once nothing is alive. */
void qp_cuda_drop_scratch(qp_device_t *device);
void qp_cuda_drop_budget(qp_device_t *device);

/** The slot is to have \a bytes at least. */
static inline void qp_cuda_need(qp_cuda_need_t *need, qp_cuda_scratch_slot_t slot, size_t bytes)
{
    if (bytes > need->bytes[slot])
        need->bytes[slot] = bytes;
}

static inline size_t qp_cuda_round256(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

/** Next piece of a block, aligned to 256. */
static inline void *qp_cuda_carve(char **at, size_t bytes)
{
    char *piece = *at;
    *at += qp_cuda_round256(bytes);
    return piece;
}

/** What the ops of a room need for a pass. */
typedef void qp_cuda_need_of_t(const qp_cuda_device_t *device, const qp_pass_size_t *size,
                               qp_cuda_need_t *need);
qp_cuda_need_of_t qp_cuda_rows_need, qp_cuda_matmul_need, qp_cuda_linear_need,
    qp_cuda_attention_need, qp_cuda_head_need;

/* --- slots ------------------------------------------------------------------------------------ */

#define QP_CUDA_DECLARE(slot, ...) \
    qp_error_t qp_cuda_##slot(qp_queue_t *q QP_EACH(QP_PARAMETER, __VA_ARGS__));
QP_QUEUE_OPS(QP_CUDA_DECLARE)
#undef QP_CUDA_DECLARE

qp_error_t qp_cuda_memory_info(qp_device_t *device, int64_t *free_bytes, int64_t *all_bytes);
qp_error_t qp_cuda_take_budget(qp_device_t *device, const qp_budget_t *budget);
size_t qp_cuda_scratch_bytes(const qp_device_t *device, const qp_pass_size_t *size, int n);
qp_error_t qp_cuda_reserve(qp_device_t *device, const qp_pass_size_t *size);
qp_error_t qp_cuda_alloc(qp_device_t *device, const char *label, size_t bytes, qp_dptr_t *out);
void qp_cuda_release(qp_device_t *device, qp_dptr_t *p);
qp_error_t qp_cuda_host_alloc(qp_device_t *device, const char *label, size_t bytes, void **out);
void qp_cuda_host_release(qp_device_t *device, void *p);
qp_error_t qp_cuda_host_register(qp_device_t *device, void *p, size_t bytes);
void qp_cuda_host_unregister(qp_device_t *device, void *p);
qp_error_t qp_cuda_queue_create(qp_device_t *device, qp_queue_t **queue);
void qp_cuda_queue_destroy(qp_queue_t **queue);
qp_error_t qp_cuda_synchronize(qp_queue_t *q);
qp_error_t qp_cuda_event_create(qp_device_t *device, qp_event_t **event);
void qp_cuda_event_destroy(qp_event_t **event);
qp_error_t qp_cuda_event_record(qp_queue_t *q, qp_event_t *event);
qp_error_t qp_cuda_event_wait(qp_queue_t *q, qp_event_t *event);
qp_error_t qp_cuda_event_synchronize(qp_event_t *event);
qp_error_t qp_cuda_upload(qp_queue_t *q, qp_dptr_t to, const void *from, size_t bytes);
qp_error_t qp_cuda_upload_async(qp_queue_t *q, qp_dptr_t to, const void *from, size_t bytes);
qp_error_t qp_cuda_download(qp_queue_t *q, void *to, qp_dptr_t from, size_t bytes);
qp_error_t qp_cuda_download_async(qp_queue_t *q, void *to, qp_dptr_t from, size_t bytes);
qp_error_t qp_cuda_copy(qp_queue_t *q, qp_dptr_t to, qp_dptr_t from, size_t bytes);
qp_error_t qp_cuda_zero(qp_queue_t *q, qp_dptr_t p, size_t bytes);
qp_error_t qp_cuda_discard(qp_queue_t *q, qp_dptr_t p, size_t bytes);
size_t qp_cuda_weight_bytes(const qp_device_t *device, const qp_weight_t *w);
qp_error_t qp_cuda_sum_squares(qp_queue_t *q, qp_dptr_t x, int64_t n, double *out);

extern const qp_ops_t qp_ops_cuda;

/* --- collectives (nccl/collectives.c); see compute/collectives.h -------------------------------
 */

/** Elements summed at once. */
enum { QP_CUDA_SUM_CHUNK = 4 << 20 };

struct qp_collectives;
qp_error_t qp_cuda_collectives_create(qp_comm_t *comm, qp_device_t *device, int64_t n_max,
                                      struct qp_collectives **c);
size_t qp_cuda_collectives_bytes(const qp_device_t *device, int n_rank, int64_t n_max);

QP_CUDA_END

#endif
