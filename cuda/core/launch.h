/**
 * \file launch.h
 * How kernels are launched and what they share, for nvcc and for the executor of
 * tests/cuda_on_cpu/. CUDA C++ only.
 *
 *     QP_TRY(QP_LAUNCH(q, (scale_kernel<float, 4>), grid, 256, p, n));
 *     QP_SHARED(float, tile, [64][65]);
 */
#ifndef QP_CUDA_CORE_LAUNCH_H
#define QP_CUDA_CORE_LAUNCH_H

#include <cuda_runtime.h>

#include "cuda/cuda.h"

/** Puts a kernel into the queue; the error of the launch. Arguments are taken by value, now. */
#define QP_LAUNCH(q, kernel, grid, block, ...) \
    QP_LAUNCH_SHARED(q, kernel, grid, block, 0, __VA_ARGS__)

/** The same with \a bytes of dynamic shared memory (QP_SHARED_DYNAMIC). */
#ifdef CUDA_ON_CPU
#define QP_LAUNCH_SHARED(q, kernel, grid, block, bytes, ...)                                \
    qp_cuda_error(cuda_on_cpu::launch(#kernel, (grid), (block), (bytes), qp_cuda_stream(q), \
                                      kernel, __VA_ARGS__),                                 \
                  #kernel, __FILE__, __LINE__)
#else
enum { QP_SHARED_PLAIN = 48 << 10 }; /**< more has to be asked for */

/* clang-format off */
#define QP_LAUNCH_SHARED(q, kernel, grid, block, bytes, ...)                                       \
    qp_cuda_error(                                                                                 \
        ((bytes) > QP_SHARED_PLAIN &&                                                              \
         cudaFuncSetAttribute((const void *)(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, \
                              (int)(bytes)) != cudaSuccess)                                        \
            ? cudaGetLastError()                                                                   \
            : ((kernel)<<<(grid), (block), (bytes), qp_cuda_stream(q)>>>(__VA_ARGS__),             \
               cudaGetLastError()),                                                                \
        #kernel, __FILE__, __LINE__)
/* clang-format on */
#endif

/** Memory that the threads of a block share; at the top of a kernel. */
#ifdef CUDA_ON_CPU
#define QP_SHARED(type, name, ...)                                \
    static char name##_site;                                      \
    using name##_shared_t = type __VA_ARGS__;                     \
    name##_shared_t &name = *reinterpret_cast<name##_shared_t *>( \
        cuda_on_cpu::shared(&name##_site, sizeof(name##_shared_t)))
#define QP_SHARED_DYNAMIC(type, name) \
    type *name = reinterpret_cast<type *>(cuda_on_cpu::shared_dynamic())
#else
#define QP_SHARED(type, name, ...) __shared__ type name __VA_ARGS__
#define QP_SHARED_DYNAMIC(type, name)                           \
    extern __shared__ __align__(16) unsigned char qp_dynamic[]; \
    type *name = reinterpret_cast<type *>(qp_dynamic)
#endif

/** Blocks of \a size that hold n. */
static inline unsigned qp_blocks_of(int64_t n, int64_t size)
{
    return (unsigned)((n + size - 1) / size);
}

#endif
