/** \file runtime.h  What the parts of the stand-in for NVIDIA's runtime know of one another. */
#ifndef CUDA_ON_CPU_RUNTIME_H
#define CUDA_ON_CPU_RUNTIME_H

#include <cuda_runtime_api.h>

namespace cuda_on_cpu
{

/** One thread of the host at a time. */
struct guard_t {
    guard_t();
    ~guard_t();
};

/** What is no error of CUDA's, but of a program that would go wrong on a card: says so and aborts.
 */
[[noreturn]] void fail(const char *problem);

/** For cudaGetLastError(). */
cudaError_t keep(cudaError_t error);

/** The host waits for all streams. */
void finish_all();

/** Device memory can be read and written, by this thread, or by nobody. */
void open_memory(bool open);

/** A device has so many bytes (CUDA_ON_CPU_MEMORY). */
size_t device_bytes();

bool is_on_device(const void *p, size_t bytes);
bool is_pinned(const void *p, size_t bytes);

} // namespace cuda_on_cpu

#endif
