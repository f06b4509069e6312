#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "compute/collectives.h"
#include "compute/cuda.h"
#include "cuda/cuda.h"
#include "cuda/gemm/cublaslt.h"

enum { CAPABILITY_LEAST = 80 };

/* What comes into a GPU's memory beside ours when it is first used, estimated: the code of kernels,
 * ours and cuBLASLt's; NCCL's buffers for all of its channels. */
enum { CODE_BYTES = 256 << 20, NCCL_BYTES = 512 << 20 };

qp_error_t qp_cuda_error(cudaError_t status, const char *what, const char *file, int line)
{
    if (status == cudaSuccess)
        return NULL;
    (void)cudaGetLastError(); /* else the next launch would find it again */
    const qp_code_t code = status == cudaErrorMemoryAllocation ? QP_IO : QP_INTERNAL;
    return qp_error_not_null(
        qp_error_create(code, file, line, "CUDA: %s: %s", what, cudaGetErrorString(status)));
}

/* How many GPUs this process sees: one at least. */
static qp_error_t count_devices(int *count)
{
    const cudaError_t status = cudaGetDeviceCount(count);
    if (status == cudaErrorInsufficientDriver) {
        int driver = 0, runtime = 0;
        QP_TRY(QP_CUDA(cudaDriverGetVersion(&driver)));
        QP_TRY(QP_CUDA(cudaRuntimeGetVersion(&runtime)));
        if (driver == 0)
            return QP_ERROR(QP_INPUT,
                            "device.backend = \"cuda\": this node has no driver of NVIDIA's");
        return QP_ERROR(QP_INPUT,
                        "device.backend = \"cuda\": the driver of this node knows CUDA %d.%d, this "
                        "program needs %d.%d or newer",
                        driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    if (status != cudaSuccess || *count == 0) {
        (void)cudaGetLastError();
        return QP_ERROR(QP_INPUT,
                        "device.backend = \"cuda\": this node has no GPU that CUDA can "
                        "use (%s)",
                        cudaGetErrorString(status == cudaSuccess ? cudaErrorNoDevice : status));
    }
    return NULL;
}

static bool is_too_old(const struct cudaDeviceProp *prop)
{
    return 10 * prop->major + prop->minor < CAPABILITY_LEAST;
}

bool qp_cuda_is_there(const char **why)
{
#ifdef CUDA_ON_CPU
    *why = "CUDA runs on the CPU in this program, which is for tests";
    return false;
#else
    struct cudaDeviceProp prop;
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    *why = "there is a GPU";
    if (status == cudaErrorInsufficientDriver)
        *why = "this node has no driver of NVIDIA's, or one that is too old for this program";
    else if (status != cudaSuccess || count == 0)
        *why = "there is no GPU that CUDA can use";
    else if (cudaGetDeviceProperties(&prop, 0) != cudaSuccess || is_too_old(&prop))
        *why = "the GPU of this node is older than compute capability 8.0";
    else
        return true;
    (void)cudaGetLastError();
    return false;
#endif
}

qp_error_t qp_cuda_list(qp_cuda_id_t **ids, int *n)
{
    QP_TRY(count_devices(n));
    *ids = QP_NEW("device", qp_cuda_id_t, *n);
    for (int i = 0; i < *n; i++) {
        struct cudaDeviceProp prop;
        const cudaError_t status = cudaGetDeviceProperties(&prop, i);
        if (status != cudaSuccess) {
            qp_free(*ids);
            *ids = NULL;
            return QP_CUDA(status);
        }
        memcpy((*ids)[i].uuid, &prop.uuid, sizeof(*ids)[i].uuid);
    }
    return NULL;
}

static void device_close(qp_device_t *base)
{
    qp_cuda_device_t *device = (qp_cuda_device_t *)base;
    if (device->base.queue != NULL)
        qp_cuda_queue_destroy(&device->base.queue);
    qp_cublaslt_close(&device->lt);
    qp_cuda_drop_scratch(base);
    qp_cuda_drop_budget(base);
    qp_free(device);
}

/* What later runs and their sizes need of a GPU that is not there. */
static void imagine(qp_cuda_device_t *device, qp_error_t why)
{
    qp_log_warn("a dry run without a GPU: %s%s", why->message,
                device->base.config.memory > 0
                    ? ""
                    : "; device.memory says how much memory a GPU of the run has");
    qp_error_destroy(&why);
    device->n_sm = 132; /* as an H100 */
    snprintf(device->base.description, sizeof device->base.description,
             "cuda: no GPU looked at, %s", qp_dtype_name(qp_device_dtype(&device->base)));
}

static qp_error_t start(qp_cuda_device_t *device)
{
    struct cudaDeviceProp prop;
    int count;
    qp_error_t missing = count_devices(&count);
    if (missing != NULL && device->base.config.dry) {
        imagine(device, missing);
        return NULL;
    }
    QP_TRY(missing);
    QP_TRY(QP_CUDA(cudaSetDevice(device->index)));
    QP_TRY(QP_CUDA(cudaGetDeviceProperties(&prop, device->index)));
    device->is_there = true;
    device->n_sm = prop.multiProcessorCount;
    if (is_too_old(&prop))
        return QP_ERROR(QP_INPUT,
                        "device.backend = \"cuda\": GPU %d (%s) has compute capability %d.%d, this "
                        "program needs 8.0 or newer",
                        device->index, prop.name, prop.major, prop.minor);
    QP_TRY(qp_cublaslt_open(&device->lt));
    QP_TRY(qp_cuda_queue_create(&device->base, &device->base.queue));
    QP_TRY(qp_cuda_reserve(&device->base, &(qp_pass_size_t){0})); /* for ops beside passes */
    snprintf(device->base.description, sizeof device->base.description,
             "cuda: GPU %d, %.80s, %.1f GB, %s", device->index, prop.name,
             (double)prop.totalGlobalMem / 1e9, qp_dtype_name(qp_device_dtype(&device->base)));
    return NULL;
}

static const qp_collectives_maker_t maker = {.create = qp_cuda_collectives_create,
                                             .bytes = qp_cuda_collectives_bytes,
                                             .outside = NCCL_BYTES,
                                             .chunk = QP_CUDA_SUM_CHUNK};

qp_error_t qp_cuda_device_open(const qp_device_config_t *config, int index, int node_size,
                               qp_device_t **out)
{
    (void)node_size;
    qp_cuda_device_t *device = QP_NEW("device", qp_cuda_device_t, 1);
    device->base = (qp_device_t){.ops = &qp_ops_cuda,
                                 .close = device_close,
                                 .config = *config,
                                 .collectives = &maker,
                                 .outside = CODE_BYTES,
                                 .max_head_dim = QP_CUDA_MAX_HEAD_DIM,
                                 .queued = true};
    device->base.config.backend = QP_BACKEND_CUDA;
    device->index = index;
    const qp_error_t error = start(device);
    if (error != NULL)
        device_close(&device->base);
    else
        *out = &device->base;
    return error;
}
