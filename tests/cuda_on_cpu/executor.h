/**
 * \file executor.h
 * Runs kernels on the CPU: the threads of a block are fibers that take turns, in an order that a
 * seed draws (environment variable CUDA_ON_CPU_SEED); blocks come one after the other. What threads
 * of a block agree on is checked: a barrier that some of them do not reach, a shuffle that lanes of
 * a warp call differently, ends the program with the kernel's name.
 */
#ifndef CUDA_ON_CPU_EXECUTOR_H
#define CUDA_ON_CPU_EXECUTOR_H

#include <cuda_runtime_api.h>

#include <functional>
#include <tuple>

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
    {
    }
};

namespace cuda_on_cpu
{

enum { WARP = 32, LANE_BYTES = 64 };

/** What the lanes of a warp brought to a meeting. */
struct warp_values_t {
    int n_lane;
    char of_lane[WARP][LANE_BYTES];
};

struct thread_t {
    uint3 index;
    int lane; /**< in its warp */
};

struct block_t {
    uint3 index;
    dim3 dim, grid;
};

extern thread_t *thread_now; /**< whose turn it is */
extern block_t block_now;

/** All threads of the block wait for each other. */
void sync_block();

/**
 * All lanes of the warp bring a value of at most LANE_BYTES and see those of all; they stay until
 * this lane comes to the next meeting but one. \a what is the same in all lanes, and \a mask has
 * all of them.
 */
const warp_values_t *meet(const char *what, unsigned mask, const void *value, size_t bytes);

/** The block's memory for a declaration, found by its address; full of NaN when a block starts. */
void *shared(const void *site, size_t bytes);
void *shared_dynamic();

/** Puts a kernel into the stream (runtime.cc). */
cudaError_t put_kernel(const char *name, dim3 grid, dim3 block, size_t shared_bytes,
                       cudaStream_t stream, std::function<void()> body);

/** Puts work into the stream that is no kernel: what a library of the vendor would do there. \a
 * meets: it waits for such work of other processes. */
void put_task(const char *name, cudaStream_t stream, std::function<void()> work,
              bool meets = false);

/** Within such work: other threads get their turn, which a card would not have kept from them. */
void pause_host();

/** Runs all blocks now. */
void run(const char *name, dim3 grid, dim3 block, size_t shared_bytes,
         const std::function<void()> &body);

/** What this thread does from here on is the kernel's, or no longer (checker.h). */
void watch(bool on);

/** An atomic of this thread (checker.h). */
void atomic_access(void *p, size_t bytes);

/** A number from the seed, from 0 to n - 1. */
unsigned draw(unsigned n);

template <typename... P, typename... A>
cudaError_t launch(const char *name, dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, void (*kernel)(P...), A... arguments)
{
    std::tuple<P...> kept(arguments...);
    return put_kernel(name, grid, block, shared_bytes, stream, [kernel, kept] {
        std::tuple<P...> mine = kept; /* both on the thread's own stack */
        void (*body)(P...) = kernel;
        watch(true);
        std::apply(body, mine);
        watch(false);
    });
}

} // namespace cuda_on_cpu

#endif
