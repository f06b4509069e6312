#include "cuda/gemm/cublaslt.h"

#include <cublasLt.h>
#include <string.h>

#include "cuda/core/library.h"

/* Names of the library, the best first. */
#ifdef QP_CUBLASLT_SONAME
static const char *const names[] = {QP_CUBLASLT_SONAME};
#else
static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
#endif

#define FUNCTIONS(F)                        \
    F(cublasLtGetVersion)                   \
    F(cublasLtGetStatusString)              \
    F(cublasLtCreate)                       \
    F(cublasLtDestroy)                      \
    F(cublasLtMatmulDescCreate)             \
    F(cublasLtMatmulDescDestroy)            \
    F(cublasLtMatmulDescSetAttribute)       \
    F(cublasLtMatrixLayoutCreate)           \
    F(cublasLtMatrixLayoutDestroy)          \
    F(cublasLtMatmulPreferenceCreate)       \
    F(cublasLtMatmulPreferenceDestroy)      \
    F(cublasLtMatmulPreferenceSetAttribute) \
    F(cublasLtMatmulAlgoGetHeuristic)       \
    F(cublasLtMatmul)

/* Shapes whose algorithm is kept: those of a model at the numbers of rows that come again. */
enum { N_PLAN = 256 };
static const size_t WORKSPACE_BYTES = (size_t)32 << 20;

/* A product as the library sees it, column by column: c^T [n, m] = b a^T, where what it calls A is
 * b as [k, n] transposed, and B is a as [k, m]. */
typedef struct {
    qp_int8_product_t shape; /* without pointers */
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
} plan_t;

struct qp_cublaslt {
    qp_library_t library;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatmulPreference_t preference;
    plan_t plan[N_PLAN];
    int n_plan, next; /* next: to be replaced when all are in use */
#define MEMBER(name) __typeof__(&(name)) name;
    FUNCTIONS(MEMBER)
#undef MEMBER
};

/* The call of a function of the library, as an error of ours. */
#define LT(lt, name, ...) lt_error((lt), (lt)->name(__VA_ARGS__), #name, __LINE__)

static qp_error_t lt_error(const qp_cublaslt_t *lt, cublasStatus_t status, const char *what,
                           int line)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return NULL;
    return qp_error_not_null(qp_error_create(QP_INTERNAL, __FILE__, line, "cuBLASLt: %s: %s", what,
                                             lt->cublasLtGetStatusString(status)));
}

/* --- library ---------------------------------------------------------------------------------- */

static qp_error_t load(qp_cublaslt_t *lt)
{
    lt->library = (qp_library_t){
        .what = "NVIDIA's library cuBLASLt", .name = names, .n_name = sizeof names / sizeof *names};
    QP_TRY(qp_library_open(&lt->library));
#define FIND(name) QP_TRY(qp_library_find(&lt->library, #name, &lt->name, sizeof lt->name));
    FUNCTIONS(FIND)
#undef FIND
    const size_t version = lt->cublasLtGetVersion();
    if (version / 10000 < CUBLAS_VER_MAJOR)
        return QP_ERROR(QP_INPUT,
                        "device.backend = \"cuda\": NVIDIA's library cuBLASLt is version %zu.%zu, "
                        "this program needs %d.0 or newer",
                        version / 10000, version % 10000 / 100, CUBLAS_VER_MAJOR);
    return NULL;
}

/* What all products have in common. */
static qp_error_t start(qp_cublaslt_t *lt)
{
    static const cublasLtMatmulPreferenceAttributes_t align_of[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const int32_t transpose = CUBLAS_OP_T, plain = CUBLAS_OP_N;
    const uint32_t align = QP_INT8_ALIGN;
    const uint64_t workspace = WORKSPACE_BYTES;
    QP_TRY(load(lt));
    QP_TRY(LT(lt, cublasLtCreate, &lt->handle));
    QP_TRY(LT(lt, cublasLtMatmulDescCreate, &lt->desc, CUBLAS_COMPUTE_32I, CUDA_R_32I));
    QP_TRY(LT(lt, cublasLtMatmulDescSetAttribute, lt->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
              sizeof transpose));
    QP_TRY(LT(lt, cublasLtMatmulDescSetAttribute, lt->desc, CUBLASLT_MATMUL_DESC_TRANSB, &plain,
              sizeof plain));
    QP_TRY(LT(lt, cublasLtMatmulPreferenceCreate, &lt->preference));
    QP_TRY(LT(lt, cublasLtMatmulPreferenceSetAttribute, lt->preference,
              CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    for (int i = 0; i < 4; i++)
        QP_TRY(LT(lt, cublasLtMatmulPreferenceSetAttribute, lt->preference, align_of[i], &align,
                  sizeof align));
    return NULL;
}

qp_error_t qp_cublaslt_open(qp_cublaslt_t **out)
{
    *out = QP_NEW("device", qp_cublaslt_t, 1);
    const qp_error_t error = start(*out);
    if (error != NULL)
        qp_cublaslt_close(out);
    return error;
}

/* Nobody could do something about a status here. */
static void drop_plan(const qp_cublaslt_t *lt, plan_t *plan)
{
    cublasLtMatrixLayout_t *const layout[] = {&plan->a, &plan->b, &plan->c};
    for (int i = 0; i < 3; i++) {
        if (*layout[i] != NULL)
            (void)lt->cublasLtMatrixLayoutDestroy(*layout[i]);
        *layout[i] = NULL;
    }
}

void qp_cublaslt_close(qp_cublaslt_t **out)
{
    qp_cublaslt_t *lt = *out;
    if (lt == NULL)
        return;
    for (int i = 0; i < lt->n_plan; i++)
        drop_plan(lt, &lt->plan[i]);
    if (lt->preference != NULL)
        (void)lt->cublasLtMatmulPreferenceDestroy(lt->preference);
    if (lt->desc != NULL)
        (void)lt->cublasLtMatmulDescDestroy(lt->desc);
    if (lt->handle != NULL)
        (void)lt->cublasLtDestroy(lt->handle);
    qp_library_close(&lt->library);
    QP_FREE(lt);
    *out = NULL;
}

/* --- products --------------------------------------------------------------------------------- */

static bool same_shape(const qp_int8_product_t *a, const qp_int8_product_t *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->lda == b->lda && a->ldb == b->ldb &&
           a->ldc == b->ldc;
}

static qp_error_t make_plan(const qp_cublaslt_t *lt, plan_t *plan, const qp_int8_product_t *p)
{
    cublasLtMatmulHeuristicResult_t best;
    int n_found = 0;
    *plan = (plan_t){.shape = *p};
    QP_TRY(LT(lt, cublasLtMatrixLayoutCreate, &plan->a, CUDA_R_8I, (uint64_t)p->k, (uint64_t)p->n,
              p->ldb));
    QP_TRY(LT(lt, cublasLtMatrixLayoutCreate, &plan->b, CUDA_R_8I, (uint64_t)p->k, (uint64_t)p->m,
              p->lda));
    QP_TRY(LT(lt, cublasLtMatrixLayoutCreate, &plan->c, CUDA_R_32I, (uint64_t)p->n, (uint64_t)p->m,
              p->ldc));
    const qp_error_t error = LT(lt, cublasLtMatmulAlgoGetHeuristic, lt->handle, lt->desc, plan->a,
                                plan->b, plan->c, plan->c, lt->preference, 1, &best, &n_found);
    if (error != NULL)
        return qp_error_context(error, "int8 product [%lld, %lld] x [%lld, %lld]^T",
                                (long long)p->m, (long long)p->k, (long long)p->n, (long long)p->k);
    if (n_found < 1)
        return QP_ERROR(QP_INTERNAL, "cuBLASLt has no int8 product [%lld, %lld] x [%lld, %lld]^T",
                        (long long)p->m, (long long)p->k, (long long)p->n, (long long)p->k);
    QP_TRY(lt_error(lt, best.state, "cublasLtMatmulAlgoGetHeuristic", __LINE__));
    plan->algo = best.algo;
    return NULL;
}

/* The plan of a shape: there, or made in the place of the oldest one. */
static qp_error_t get_plan(qp_cublaslt_t *lt, const qp_int8_product_t *p, const plan_t **out)
{
    for (int i = 0; i < lt->n_plan; i++)
        if (same_shape(&lt->plan[i].shape, p)) {
            *out = &lt->plan[i];
            return NULL;
        }
    plan_t plan;
    const qp_error_t error = make_plan(lt, &plan, p);
    if (error != NULL) {
        drop_plan(lt, &plan);
        return error;
    }
    plan_t *place = &lt->plan[lt->next];
    drop_plan(lt, place);
    *place = plan;
    lt->next = (lt->next + 1) % N_PLAN;
    lt->n_plan += lt->n_plan < N_PLAN;
    *out = place;
    return NULL;
}

static bool is_aligned(const void *p)
{
    return (uintptr_t)p % QP_INT8_ALIGN == 0;
}

qp_error_t qp_cublaslt_int8(qp_queue_t *q, const qp_int8_product_t *p)
{
    static const int32_t one = 1, zero = 0;
    qp_cublaslt_t *lt = qp_cuda_device(q)->lt;
    const plan_t *plan;
    QP_ASSERT(p->m % QP_INT8_ROWS == 0 && p->n % QP_INT8_ROWS == 0 && p->k % QP_INT8_ALIGN == 0);
    QP_ASSERT(p->lda % QP_INT8_ALIGN == 0 && p->ldb % QP_INT8_ALIGN == 0 && p->ldc % 4 == 0);
    QP_ASSERT(is_aligned(p->a) && is_aligned(p->b) && is_aligned(p->c));
    QP_TRY(get_plan(lt, p, &plan));
    void *workspace = qp_cuda_scratch(q, QP_CUDA_SCRATCH_WORKSPACE, WORKSPACE_BYTES);
    return LT(lt, cublasLtMatmul, lt->handle, lt->desc, &one, p->b, plan->a, p->a, plan->b, &zero,
              p->c, plan->c, p->c, plan->c, &plan->algo, workspace, WORKSPACE_BYTES,
              qp_cuda_stream(q));
}

size_t qp_cublaslt_workspace(const qp_cuda_device_t *device)
{
    (void)device;
    return WORKSPACE_BYTES;
}
