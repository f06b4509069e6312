/**
 * \file checker.h
 * Watches what kernels read and write. Kernels that are compiled with -fsanitize=thread call
 * __tsan_read4() and its like at each access; here they are ours, not the sanitizer's. Found are,
 * in whatever order the threads ran:
 *
 * - two accesses of different threads, one of them a write, with no barrier between them: of the
 *   block, or of the warp where both are in one; threads of different blocks have none; atomics
 *   may meet each other, but nothing else;
 * - the same between kernels and copies of different streams with no event between them;
 * - reads of what nobody has written, in shared memory and on the device;
 * - accesses outside of allocations, and of host memory.
 *
 * Each ends the program with a message. Without that flag nothing is called, and nothing found.
 */
#ifndef CUDA_ON_CPU_CHECKER_H
#define CUDA_ON_CPU_CHECKER_H

#include <stddef.h>
#include <stdint.h>

#include <vector>

namespace cuda_on_cpu
{

/** Whose turn it is, kept by executor.cc. */
struct place_t {
    uint32_t block;       /**< number in the grid */
    uint16_t thread;      /**< number in the block */
    uint16_t block_epoch; /**< barriers of the block so far */
    uint16_t warp_epoch;  /**< meetings of the warp so far */
    const char *stack;    /**< of the thread, of stack_bytes */
    size_t stack_bytes;
    const char *shared; /**< of the block, of shared_bytes */
    size_t shared_bytes;
    const char *own[2]; /**< the executor's own records, of own_bytes each */
    size_t own_bytes[2];
    bool inside; /**< of a kernel */
};
extern place_t place;

/** Blocks of device memory from this size on take room only where they are used: they are for tests
 * of offsets. What a kernel reads of one, or writes to it, has been copied there or set before. */
const size_t HUGE_BLOCK = (size_t)1 << 30;

/** The device's memory lies in [arena, arena + bytes). */
void checker_open(char *arena, size_t bytes);
void checker_alloc(const char *start, size_t bytes);
void checker_free(const char *start, size_t bytes);

/** Work \a index of stream \a stream begins; it comes after what \a known says: so many pieces of
 * work of each stream. */
void checker_begin(const char *name, int stream, uint64_t index,
                   const std::vector<uint64_t> &known);
/** A block of that work begins: its shared memory holds nothing. */
void checker_block();

/** The work copies or sets these bytes. */
void checker_range(const void *start, size_t bytes, bool write);
/** The same for rows of a matrix that are stride bytes apart. */
void checker_rows(const void *start, uint64_t n_row, size_t row_bytes, size_t stride, bool write);

} // namespace cuda_on_cpu

#endif
