/* The stand-in for NVIDIA's cuBLASLt: int8 products in the stream. It refuses what the vendor's
 * manual excludes for tensor cores with regular layouts (not "TN"; sizes, distances and addresses
 * that are no multiples of what they have to be), and small sizes of which PyTorch found that they
 * fail. */
#include "checker.h"
#include "executor.h"

#include <cublasLt.h>

#include <stdint.h>
#include <string.h>

struct cublasLtContext {
    int n_matmul;
};

struct cuda_on_cpu_matmul {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    cublasOperation_t op[2];
};

struct cuda_on_cpu_layout {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld;
};

struct cuda_on_cpu_preference {
    uint64_t workspace;
    uint32_t align[4]; /* of A, B, C, D */
};

namespace
{

enum { MAGIC = 0x4c74, WORKSPACE = 4 << 20, SMALL = 16 };

/* What stands in the opaque algorithm. */
struct algo_t {
    uint64_t magic;
    uint64_t n, m, k;
    int64_t ld[3];
    uint32_t align; /* of all pointers */
};
static_assert(sizeof(algo_t) <= sizeof(cublasLtMatmulAlgo_t), "");

bool copy_value(void *to, size_t bytes, const void *value, size_t value_bytes)
{
    if (value == NULL || bytes != value_bytes)
        return false;
    memcpy(to, value, bytes);
    return true;
}

bool fits(const algo_t *algo, const cuda_on_cpu_matmul *desc, const cuda_on_cpu_layout *a,
          const cuda_on_cpu_layout *b, const cuda_on_cpu_layout *d)
{
    return desc->compute == CUBLAS_COMPUTE_32I && desc->scale == CUDA_R_32I &&
           desc->op[0] == CUBLAS_OP_T && desc->op[1] == CUBLAS_OP_N && a->type == CUDA_R_8I &&
           b->type == CUDA_R_8I && d->type == CUDA_R_32I && algo->magic == MAGIC &&
           a->rows == algo->k && a->cols == algo->n && b->rows == algo->k && b->cols == algo->m &&
           d->rows == algo->n && d->cols == algo->m && a->ld == algo->ld[0] &&
           b->ld == algo->ld[1] && d->ld == algo->ld[2];
}

bool allowed(const algo_t *t)
{
    bool ok =
        t->n % 4 == 0 && t->k % 4 == 0 && t->n > SMALL && t->m > SMALL && t->k > 0 && t->align >= 4;
    for (int i = 0; i < 3; i++)
        ok = ok && t->ld[i] % 4 == 0 && t->ld[i] >= (int64_t)(i < 2 ? t->k : t->n);
    /* faster ones load 16 bytes at a time */
    return ok && (t->align < 16 || (t->ld[0] % 16 == 0 && t->ld[1] % 16 == 0 && t->k % 16 == 0));
}

void multiply(const int8_t *a, const int8_t *b, int32_t *d, const algo_t *t)
{
    for (uint64_t i = 0; i < t->m; i++)
        for (uint64_t j = 0; j < t->n; j++) {
            const int8_t *x = a + (int64_t)j * t->ld[0], *y = b + (int64_t)i * t->ld[1];
            int32_t sum = 0;
            for (uint64_t p = 0; p < t->k; p++)
                sum += (int32_t)x[p] * (int32_t)y[p];
            d[(int64_t)i * t->ld[2] + (int64_t)j] = sum;
        }
}

} // namespace

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VER_MAJOR * 10000;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS         ? "success"
           : status == CUBLAS_STATUS_NOT_SUPPORTED ? "the functionality is not supported"
                                                   : "an invalid value";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = new cublasLtContext();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    *desc = new cuda_on_cpu_matmul{compute, scale, {CUBLAS_OP_N, CUBLAS_OP_N}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    const int i = attribute - CUBLASLT_MATMUL_DESC_TRANSA;
    int32_t op;
    if (i < 0 || i > 1 || !copy_value(&op, sizeof op, value, bytes))
        return CUBLAS_STATUS_INVALID_VALUE;
    desc->op[i] = static_cast<cublasOperation_t>(op);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    *layout = new cuda_on_cpu_layout{type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new cuda_on_cpu_preference{0, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    const int i = attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
    const bool ok =
        i >= 0 && i < 4
            ? copy_value(&preference->align[i], sizeof preference->align[i], value, bytes)
            : attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES &&
                  copy_value(&preference->workspace, sizeof preference->workspace, value, bytes);
    return ok ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *returned)
{
    *returned = 0;
    if (requested <= 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    algo_t t = {MAGIC, a->cols, b->cols, a->rows, {a->ld, b->ld, d->ld}, preference->align[0]};
    for (int i = 1; i < 4; i++)
        t.align = preference->align[i] < t.align ? preference->align[i] : t.align;
    if (!fits(&t, desc, a, b, d) || !fits(&t, desc, a, b, c) || !allowed(&t) ||
        preference->workspace < WORKSPACE)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    results[0] = cublasLtMatmulHeuristicResult_t();
    memcpy(&results[0].algo, &t, sizeof t);
    results[0].workspaceSize = WORKSPACE;
    *returned = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    algo_t t;
    memcpy(&t, algo, sizeof t);
    const bool fit = fits(&t, desc, a_layout, b_layout, d_layout) &&
                     fits(&t, desc, a_layout, b_layout, c_layout);
    const void *const pointer[] = {a, b, c, d};
    bool aligned = true;
    for (const void *p : pointer)
        aligned = aligned && p != NULL && reinterpret_cast<uintptr_t>(p) % t.align == 0;
    if (!fit || !aligned || workspace == NULL || workspace_bytes < WORKSPACE || c != d)
        return CUBLAS_STATUS_INVALID_VALUE;
    int32_t factor[2];
    memcpy(&factor[0], alpha, sizeof factor[0]);
    memcpy(&factor[1], beta, sizeof factor[1]);
    if (factor[0] != 1 || factor[1] != 0)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    handle->n_matmul++;
    cuda_on_cpu::put_task("cublasLtMatmul", stream, [=] {
        cuda_on_cpu::checker_range(workspace, WORKSPACE, true);
        memset(workspace, 0xff, WORKSPACE); /* it is the library's */
        cuda_on_cpu::checker_rows(a, t.n, t.k, (size_t)t.ld[0], false);
        cuda_on_cpu::checker_rows(b, t.m, t.k, (size_t)t.ld[1], false);
        cuda_on_cpu::checker_rows(d, t.m, t.n * sizeof(int32_t), (size_t)t.ld[2] * sizeof(int32_t),
                                  true);
        multiply(static_cast<const int8_t *>(a), static_cast<const int8_t *>(b),
                 static_cast<int32_t *>(d), &t);
    });
    return CUBLAS_STATUS_SUCCESS;
}
