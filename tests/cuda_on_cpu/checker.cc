#include "checker.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

namespace cuda_on_cpu
{

place_t place;

/* Only with the kernels that call the hooks is there anything to keep. */
#ifdef CUDA_ON_CPU_CHECK
static const bool on = true;
#else
static const bool on = false;
#endif

namespace
{

enum { WARP_SIZE = 32 };

/* Several readers, as far as it matters: where they are. */
enum readers_t : uint16_t { ONE, OF_WARP, OF_BLOCK, OF_GRID };

/* The last access of a kind to a byte. work 0: none. */
struct access_t {
    uint32_t work, block;
    uint16_t thread, block_epoch, warp_epoch;
    uint16_t readers : 15;
    uint16_t atomic : 1; /* it was, and so may be the next one */
};

enum kind_t { READ, WRITE, ATOMIC };

struct byte_t {
    access_t write, read;
};

enum state_t : uint8_t { OUTSIDE, UNWRITTEN, WRITTEN };

/* One piece of work: a kernel or a copy. */
struct work_t {
    const char *name;
    int stream;
    uint64_t index;
};

char *arena;
size_t arena_bytes;
byte_t *bytes; /* of the arena, sparse */
uint8_t *states;
std::vector<byte_t> shared_bytes_of_block;
std::vector<work_t> works(1);
std::vector<uint64_t> known;
uint32_t work_now, n_block; /* blocks are numbered through for shared memory */

void *sparse(size_t n)
{
    void *memory =
        mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("cuda_on_cpu: no memory for the checker");
        abort();
    }
    return memory;
}

[[noreturn]] void report(const char *problem, const char *address, const access_t *other,
                         void *from)
{
    Dl_info info;
    fprintf(stderr, "cuda_on_cpu: %s in %s, block %u, thread %u, at %p (%s)\n", problem,
            works[work_now].name, place.block, place.thread, (const void *)address,
            address >= place.shared && address < place.shared + place.shared_bytes
                ? "shared memory"
                : "device memory");
    if (other != NULL)
        fprintf(stderr, "cuda_on_cpu: the other one: block %u, thread %u\n", other->block,
                other->thread);
    if (from != NULL && dladdr(from, &info) != 0)
        fprintf(stderr, "cuda_on_cpu: addr2line -Cfe %s 0x%zx\n", info.dli_fname,
                (size_t)((char *)from - (char *)info.dli_fbase));
    abort();
}

/* Whether something that another piece of work did is over. */
bool is_over(uint32_t work)
{
    const work_t *then = &works[work];
    return then->stream == works[work_now].stream || known[(size_t)then->stream] > then->index;
}

bool same_warp(const access_t *a)
{
    return a->thread / WARP_SIZE == place.thread / WARP_SIZE;
}

/* Whether an access of this piece of work came before a barrier that this thread has passed. */
bool is_before(const access_t *a, bool in_shared)
{
    if (!in_shared && a->block != place.block)
        return false;
    if (a->readers == OF_GRID)
        return false;
    if (a->block_epoch != place.block_epoch)
        return true;
    if (a->readers == OF_BLOCK)
        return false;
    if (a->readers == ONE && a->thread == place.thread)
        return true;
    return same_warp(a) && a->warp_epoch != place.warp_epoch;
}

void check_order(const access_t *a, bool in_shared, const char *problem, const char *address,
                 void *from)
{
    if (a->work == 0)
        return;
    const uint32_t now = in_shared ? n_block : work_now;
    const bool fine = a->work == now ? is_before(a, in_shared) : in_shared || is_over(a->work);
    if (!fine)
        report(a->work == now ? problem : "no event between two streams", address, a, from);
}

access_t access_now(bool in_shared)
{
    return {in_shared ? n_block : work_now,
            place.block,
            place.thread,
            place.block_epoch,
            place.warp_epoch,
            ONE,
            0};
}

void note_read(access_t *last, bool in_shared)
{
    access_t here = access_now(in_shared);
    const bool current = last->work == here.work;
    if (current && last->block != here.block)
        here.readers = OF_GRID;
    else if (current && last->block_epoch == here.block_epoch &&
             (last->thread != here.thread || last->readers != ONE))
        here.readers = same_warp(last) && last->readers <= OF_WARP ? OF_WARP : OF_BLOCK;
    if (current && last->readers == OF_GRID)
        here.readers = OF_GRID;
    *last = here;
}

/* Atomics of all threads may meet, but nothing else without a barrier. What was written just before
 * stays noted, for others to find. */
void check_atomic(byte_t *byte, const char *address, bool in_shared, void *from)
{
    const access_t here = access_now(in_shared), *last = &byte->write;
    const bool current = last->work == here.work;
    if (!current || !last->atomic)
        check_order(last, in_shared, "an atomic without a barrier after a write", address, from);
    check_order(&byte->read, in_shared, "an atomic without a barrier after a read", address, from);
    if (current && !last->atomic && last->block == here.block &&
        last->block_epoch == here.block_epoch)
        return;
    note_read(&byte->write, in_shared);
    byte->write.atomic = 1;
}

void check_byte(byte_t *byte, const char *address, bool in_shared, bool write, void *from)
{
    check_order(&byte->write, in_shared,
                write ? "two writes without a barrier" : "a read without a barrier after a write",
                address, from);
    if (!write) {
        note_read(&byte->read, in_shared);
        return;
    }
    check_order(&byte->read, in_shared, "a write without a barrier after a read", address, from);
    byte->write = access_now(in_shared);
}

void check_device(const char *address, size_t n, kind_t kind, void *from)
{
    for (size_t i = 0; i < n; i++) {
        const size_t at = (size_t)(address + i - arena);
        if (states[at] == OUTSIDE)
            report("an access outside of an allocation", address + i, NULL, from);
        if (kind != WRITE && states[at] == UNWRITTEN)
            report("a read of what nobody has written", address + i, NULL, from);
        if (kind != READ)
            states[at] = WRITTEN;
        if (kind == ATOMIC)
            check_atomic(&bytes[at], address + i, false, from);
        else
            check_byte(&bytes[at], address + i, false, kind == WRITE, from);
    }
}

void check_shared(const char *address, size_t n, kind_t kind, void *from)
{
    if (shared_bytes_of_block.size() < place.shared_bytes)
        shared_bytes_of_block.resize(place.shared_bytes);
    for (size_t i = 0; i < n; i++) {
        byte_t *byte = &shared_bytes_of_block[(size_t)(address + i - place.shared)];
        if (kind != WRITE && byte->write.work != n_block)
            report("a read of what nobody has written", address + i, NULL, from);
        if (kind == ATOMIC)
            check_atomic(byte, address + i, true, from);
        else
            check_byte(byte, address + i, true, kind == WRITE, from);
    }
}

bool is_within(const char *p, const char *start, size_t n)
{
    return p >= start && p < start + n;
}

void access(void *pointer, size_t n, kind_t kind, void *from)
{
    const char *p = static_cast<char *>(pointer);
    Dl_info info;
    if (!place.inside || is_within(p, place.stack, place.stack_bytes) ||
        is_within(p, place.own[0], place.own_bytes[0]) ||
        is_within(p, place.own[1], place.own_bytes[1]))
        return;
    if (is_within(p, place.shared, place.shared_bytes))
        check_shared(p, n, kind, from);
    else if (is_within(p, arena, arena_bytes))
        check_device(p, n, kind, from);
    else if (dladdr(p, &info) == 0) /* constants of the program are fine */
        report("an access of host memory", p, NULL, from);
}

} // namespace

void checker_open(char *start, size_t n)
{
    if (!on)
        return;
    arena = start;
    arena_bytes = n;
    bytes = static_cast<byte_t *>(sparse(n * sizeof *bytes));
    states = static_cast<uint8_t *>(sparse(n));
}

void checker_alloc(const char *start, size_t n)
{
    if (on && n < HUGE_BLOCK)
        memset(states + (start - arena), UNWRITTEN, n);
}

void checker_free(const char *start, size_t n)
{
    if (!on)
        return;
    if (n < HUGE_BLOCK)
        memset(states + (start - arena), OUTSIDE, n);
    else /* all of it is zero again, OUTSIDE */
        madvise(states + (start - arena), n, MADV_DONTNEED);
}

void checker_begin(const char *name, int stream, uint64_t index, const std::vector<uint64_t> &all)
{
    if (!on)
        return;
    works.push_back({name, stream, index});
    known = all;
    work_now = (uint32_t)works.size() - 1;
    place = {};
}

void checker_block()
{
    n_block++;
}

void checker_range(const void *start, size_t n, bool write)
{
    const char *p = static_cast<const char *>(start);
    if (on && is_within(p, arena, arena_bytes))
        for (size_t i = 0; i < n; i++) {
            const size_t at = (size_t)(p + i - arena);
            if (write)
                states[at] = WRITTEN;
            check_byte(&bytes[at], p + i, false, write, NULL);
        }
}

void atomic_access(void *p, size_t n)
{
    if (on)
        access(p, n, ATOMIC, __builtin_return_address(0));
}

void checker_rows(const void *start, uint64_t n_row, size_t row_bytes, size_t stride, bool write)
{
    for (uint64_t i = 0; i < n_row; i++)
        checker_range(static_cast<const char *>(start) + i * stride, row_bytes, write);
}

} // namespace cuda_on_cpu

/* --- what the compiler calls ------------------------------------------------------------------ */

#define HOOK(name, n, kind)                                                          \
    void name(void *p)                                                               \
    {                                                                                \
        cuda_on_cpu::access(p, (n), cuda_on_cpu::kind, __builtin_return_address(0)); \
    }
#define HOOKS(n)                    \
    HOOK(__tsan_read##n, n, READ)   \
    HOOK(__tsan_write##n, n, WRITE) \
    HOOK(__tsan_unaligned_read##n, n, READ) HOOK(__tsan_unaligned_write##n, n, WRITE)

extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void *p, size_t n)
{
    cuda_on_cpu::access(p, n, cuda_on_cpu::READ, __builtin_return_address(0));
}
void __tsan_write_range(void *p, size_t n)
{
    cuda_on_cpu::access(p, n, cuda_on_cpu::WRITE, __builtin_return_address(0));
}
void __tsan_func_entry(void *)
{
}
void __tsan_func_exit(void)
{
}
void __tsan_init(void)
{
}
void __tsan_vptr_update(void **, void *)
{
}
void __tsan_vptr_read(void **)
{
}
}
