/* Which devices there are, as the stand-in for NVIDIA's runtime says: the environment. */
#include "runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

using namespace cuda_on_cpu;

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorLaunchOutOfResources:
        return "too many resources requested for launch";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    default:
        return "invalid argument";
    }
}

const char *cudaGetErrorName(cudaError_t error)
{
    return error == cudaSuccess ? "cudaSuccess" : "cudaError";
}

/* Numbers of the devices that the process sees. */
static std::vector<int> visible(int n)
{
    std::vector<int> seen;
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (list == NULL) {
        for (int i = 0; i < n; i++)
            seen.push_back(i);
        return seen;
    }
    for (char *end; *list != '\0'; list = *end == ',' ? end + 1 : end) {
        const long i = strtol(list, &end, 10);
        if (end == list || i < 0 || i >= n)
            break; /* what stands behind one that is none does not count */
        seen.push_back((int)i);
    }
    return seen;
}

static int n_physical()
{
    const char *n = getenv("CUDA_ON_CPU_DEVICES");
    return n == NULL ? 8 : atoi(n);
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    if (n_physical() < 0) /* -1 stands for a driver that is too old, -2 for none */
        return cudaErrorInsufficientDriver;
    *count = (int)visible(n_physical()).size();
    return *count == 0 ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    int count;
    if (cudaGetDeviceCount(&count) != cudaSuccess || device < 0 || device >= count)
        return cudaErrorInvalidDevice;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    const std::vector<int> seen = visible(n_physical());
    if (device < 0 || device >= (int)seen.size())
        return cudaErrorInvalidDevice;
    memset(prop, 0, sizeof *prop);
    const char *node = getenv("CUDA_ON_CPU_NODE");
    snprintf(prop->uuid.bytes, sizeof prop->uuid.bytes, "%.8s-%d", node != NULL ? node : "here",
             seen[(size_t)device]);
    snprintf(prop->name, sizeof prop->name, "CUDA on the CPU");
    prop->totalGlobalMem = device_bytes();
    prop->major = 8;
    prop->multiProcessorCount = 4;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    const char *n = getenv("CUDA_ON_CPU_DEVICES");
    *version = n == NULL || atoi(n) >= 0 ? 13000 : atoi(n) == -1 ? 12040 : 0;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}
