/* Device memory and pinned memory of the stand-in for NVIDIA's runtime: what is on the device can
 * be read while work is done, and by nobody else. */
#include "checker.h"
#include "executor.h"
#include "faults.h"
#include "runtime.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <deque>
#include <map>

using namespace cuda_on_cpu;

namespace
{

enum { PAGE = 4096, OPEN = PROT_READ | PROT_WRITE };
const size_t ARENA = (size_t)1 << 38;

std::map<const char *, size_t> pinned; /* start and bytes */
std::map<char *, size_t> blocks;       /* of device memory */

/* Addresses are given out again as late as is cheap: an arena that only grows makes each change of
 * its protection slow. */
struct freed_t {
    char *start;
    size_t pages;
};
enum { QUARANTINE = 32 };
std::deque<freed_t> freed;
char *arena;
size_t arena_used, n_bytes_used;
int key = -1; /* of the arena's protection; -1: there are none */

size_t bytes_of(const char *variable, size_t otherwise)
{
    const char *bytes = getenv(variable);
    return bytes != NULL ? strtoull(bytes, NULL, 10) : otherwise;
}

/* What one call gets at most, whatever is said to be free: another program was faster. */
size_t most_bytes()
{
    return bytes_of("CUDA_ON_CPU_MALLOC", SIZE_MAX);
}

void open_arena()
{
    void *memory = mmap(NULL, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        fail("no address space");
    arena = static_cast<char *>(memory);
    key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
    if (key >= 0 && pkey_mprotect(arena, ARENA, OPEN, key) != 0)
        fail("pkey_mprotect failed");
    checker_open(arena, ARENA);
}

/* New memory is full of NaN; one that is huge takes room only where it is used. */
void fill(char *start, size_t bytes)
{
    open_memory(true);
    char *page = start - (uintptr_t)start % PAGE;
    if (key < 0 && mprotect(page, bytes + (size_t)(start - page), OPEN) != 0)
        fail("mprotect failed");
    if (bytes < HUGE_BLOCK)
        memset(start, 0xff, bytes);
    open_memory(false);
}

} // namespace

namespace cuda_on_cpu
{

/* By a protection key where the CPU has them: a register instead of a call. */
void open_memory(bool open)
{
    if (key >= 0)
        pkey_set(key, open ? 0 : PKEY_DISABLE_ACCESS);
    else if (arena_used > 0 && mprotect(arena, arena_used, open ? OPEN : PROT_NONE) != 0)
        fail("mprotect failed");
}

size_t device_bytes()
{
    return bytes_of("CUDA_ON_CPU_MEMORY", (size_t)16 << 30);
}

bool is_on_device(const void *p, size_t bytes)
{
    auto after = blocks.upper_bound(static_cast<char *>(const_cast<void *>(p)));
    if (after == blocks.begin())
        return false;
    --after;
    return static_cast<const char *>(p) + bytes <= after->first + after->second;
}

bool is_pinned(const void *p, size_t bytes)
{
    auto after = pinned.upper_bound(static_cast<const char *>(p));
    if (after == pinned.begin())
        return false;
    --after;
    return static_cast<const char *>(p) + bytes <= after->first + after->second;
}

} // namespace cuda_on_cpu

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all_bytes)
{
    guard_t guard;
    *all_bytes = device_bytes();
    *free_bytes = *all_bytes > n_bytes_used ? *all_bytes - n_bytes_used : 0;
    return cudaSuccess;
}

/* A place for so many pages, with one page behind it that is nobody's. */
static char *find_place(size_t pages)
{
    for (size_t i = 0; i + QUARANTINE < freed.size(); i++)
        if (freed[i].pages == pages) {
            char *start = freed[i].start;
            freed.erase(freed.begin() + (long)i);
            return start;
        }
    char *start = arena + arena_used;
    arena_used += pages + PAGE;
    return start;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    guard_t guard;
    *p = NULL;
    if (n_bytes_used + bytes > device_bytes() || bytes > most_bytes())
        return keep(cudaErrorMemoryAllocation);
    if (arena == NULL)
        open_arena();
    const size_t pages = (bytes + PAGE - 1) / PAGE * PAGE;
    char *start = find_place(pages);
    fill(start, pages);
    checker_alloc(start, bytes);
    blocks[start] = bytes;
    n_bytes_used += bytes;
    *p = start;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    guard_t guard;
    if (p == NULL)
        return cudaSuccess;
    auto found = blocks.find(static_cast<char *>(p));
    if (found == blocks.end())
        return keep(cudaErrorInvalidValue);
    finish_all();
    checker_free(found->first, found->second);
    n_bytes_used -= found->second;
    const size_t pages = (found->second + PAGE - 1) / PAGE * PAGE;
    madvise(p, pages, MADV_DONTNEED);
    freed.push_back({found->first, pages});
    blocks.erase(found);
    return cudaSuccess;
}

void cuda_on_cpu_piece(void *p, size_t bytes, bool given)
{
    guard_t guard;
    char *start = static_cast<char *>(p);
    if (!is_on_device(p, bytes))
        fail("a piece of what is not on the device");
    if (given)
        fill(start, bytes);
    if (given)
        checker_alloc(start, bytes);
    else
        checker_free(start, bytes);
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags)
{
    (void)flags;
    guard_t guard;
    *p = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE + PAGE);
    if (*p == NULL)
        return keep(cudaErrorMemoryAllocation);
    pinned[static_cast<char *>(*p)] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p)
{
    guard_t guard;
    if (p == NULL)
        return cudaSuccess;
    finish_all();
    if (pinned.erase(static_cast<char *>(p)) == 0)
        return keep(cudaErrorInvalidValue);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned flags)
{
    (void)flags;
    guard_t guard;
    pinned[static_cast<char *>(p)] = bytes;
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *p)
{
    guard_t guard;
    return pinned.erase(static_cast<char *>(p)) == 1 ? cudaSuccess : keep(cudaErrorInvalidValue);
}
