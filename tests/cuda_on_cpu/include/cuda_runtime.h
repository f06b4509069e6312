/**
 * \file cuda_runtime.h
 * CUDA C++ as C++: kernels are functions whose threads are fibers (executor.h).
 */
#ifndef CUDA_ON_CPU_RUNTIME_H
#define CUDA_ON_CPU_RUNTIME_H

#include <cuda_runtime_api.h>

#include "executor.h"

#include <math.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define threadIdx (cuda_on_cpu::thread_now->index)
#define blockIdx (cuda_on_cpu::block_now.index)
#define blockDim (cuda_on_cpu::block_now.dim)
#define gridDim (cuda_on_cpu::block_now.grid)

static inline void __syncthreads()
{
    cuda_on_cpu::sync_block();
}

static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    char nothing = 0;
    (void)cuda_on_cpu::meet("__syncwarp", mask, &nothing, 1);
}

template <typename T>
static inline T cuda_on_cpu_take(const cuda_on_cpu::warp_values_t *values, int lane)
{
    T value;
    memcpy(&value, values->of_lane[lane], sizeof value);
    return value;
}

/** Shuffles within groups of \a width lanes; a lane outside of the group, or none: one's own. */
template <typename T> static inline T __shfl_sync(unsigned mask, T x, int from, int width = 32)
{
    const int lane = cuda_on_cpu::thread_now->lane;
    const auto *values = cuda_on_cpu::meet("__shfl_sync", mask, &x, sizeof x);
    return cuda_on_cpu_take<T>(values, (lane & ~(width - 1)) | (from & (width - 1)));
}

template <typename T> static inline T __shfl_xor_sync(unsigned mask, T x, int by, int width = 32)
{
    const int lane = cuda_on_cpu::thread_now->lane;
    const auto *values = cuda_on_cpu::meet("__shfl_xor_sync", mask, &x, sizeof x);
    return cuda_on_cpu_take<T>(
        values, ((lane ^ by) & ~(width - 1)) == (lane & ~(width - 1)) ? lane ^ by : lane);
}

template <typename T> static inline T __shfl_up_sync(unsigned mask, T x, int by, int width = 32)
{
    const int lane = cuda_on_cpu::thread_now->lane;
    const auto *values = cuda_on_cpu::meet("__shfl_up_sync", mask, &x, sizeof x);
    return cuda_on_cpu_take<T>(values, (lane & (width - 1)) >= by ? lane - by : lane);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    const auto *values = cuda_on_cpu::meet("__ballot_sync", mask, &predicate, sizeof predicate);
    unsigned all = 0;
    for (int lane = 0; lane < values->n_lane; lane++)
        all |= (unsigned)(cuda_on_cpu_take<int>(values, lane) != 0) << lane;
    return all;
}

/* Threads of all blocks take turns: plain arithmetic is atomic. The checker is told what it is. */
#define CUDA_ON_CPU_ATOMIC __attribute__((no_sanitize("thread"), noinline)) static
template <typename T> CUDA_ON_CPU_ATOMIC T atomicAdd(T *p, T x)
{
    cuda_on_cpu::atomic_access(p, sizeof *p);
    const T old = *p;
    *p = old + x;
    return old;
}

template <typename T> CUDA_ON_CPU_ATOMIC T atomicMin(T *p, T x)
{
    cuda_on_cpu::atomic_access(p, sizeof *p);
    const T old = *p;
    *p = old < x ? old : x;
    return old;
}

static inline float __uint_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float __int_as_float(int bits)
{
    return __uint_as_float((unsigned)bits);
}

static inline int __float_as_int(float x)
{
    return (int)__float_as_uint(x);
}

/** To nearest, ties to even. */
static inline int __float2int_rn(float x)
{
    return (int)nearbyintf(x);
}

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)(((unsigned long long)a * b) >> 32);
}

/** c plus the sum of the products of four signed bytes. */
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++)
        c += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return c;
}

struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

#endif
