#include "executor.h"

#include "checker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <vector>

namespace cuda_on_cpu
{

thread_t *thread_now;
block_t block_now;

namespace
{

enum { STACK_BYTES = 128 << 10, SHARED_BYTES = 99 << 10 };

struct warp_t {
    warp_values_t values[2]; /* of this meeting and the one before */
    unsigned n_met;          /* meetings that are complete */
    int n_here, n_alive;
    const char *what; /* what they meet for */
};

struct fiber_t {
    thread_t thread; /* first: thread_now is one */
    void *stack, *top;
    warp_t *warp;
    bool ended, watched;
    const unsigned *waits_for; /* NULL: runs; else until it is no longer as it was */
    unsigned as_it_was;
};

/* Of the block that runs: there is one at a time. */
struct {
    const char *kernel;
    const std::function<void()> *body;
    std::vector<fiber_t> fiber;
    std::vector<warp_t> warp;
    std::vector<unsigned> order; /* of the threads, warp by warp */
    unsigned n_synced;           /* barriers that are complete */
    unsigned n_here, n_alive;
    std::map<const void *, char *> site;
    char *memory, *dynamic;
    size_t used, n_shared; /* n_shared: what blocks of this kernel touched so far; 0: not known */
    void *scheduler;       /* its stack pointer while a fiber runs */
} now;

std::vector<void *> stacks; /* kept from block to block */

[[noreturn]] void fail(const char *problem, const char *detail)
{
    fprintf(stderr, "cuda_on_cpu: kernel %s, block (%u, %u, %u): %s%s\n", now.kernel,
            block_now.index.x, block_now.index.y, block_now.index.z, problem, detail);
    abort();
}

/* --- fibers ----------------------------------------------------------------------------------- */

#if !defined(__x86_64__)
#error "the switch of stacks is written for x86-64 only"
#endif

extern "C" void cuda_on_cpu_switch(void **from, void *to);
asm(".text\n"
    ".globl cuda_on_cpu_switch\n"
    ".type cuda_on_cpu_switch, @function\n"
    "cuda_on_cpu_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size cuda_on_cpu_switch, . - cuda_on_cpu_switch\n");

fiber_t *fiber_now()
{
    return reinterpret_cast<fiber_t *>(thread_now);
}

void yield()
{
    cuda_on_cpu_switch(&fiber_now()->top, now.scheduler);
}

void wait_until_changed(const unsigned *counter)
{
    fiber_t *fiber = fiber_now();
    fiber->waits_for = counter;
    fiber->as_it_was = *counter;
    while (*counter == fiber->as_it_was)
        yield();
    fiber->waits_for = NULL;
}

void fiber_main()
{
    (*now.body)();
    fiber_t *fiber = fiber_now();
    fiber->ended = true;
    now.n_alive--;
    fiber->warp->n_alive--;
    if (now.n_here > 0)
        fail("a thread has ended, others wait at a barrier", "");
    if (fiber->warp->n_here > 0)
        fail("a lane has ended, others wait at ", fiber->warp->what);
    for (;;)
        yield();
}

/* A stack that looks as if fiber_main() were about to be returned to. Stacks lie a power of two
 * apart: they begin at different lines of a page, or all would want the same few lines of the
 * cache. */
void start(fiber_t *fiber, unsigned i)
{
    const size_t colour = i * 5 % 64 * 64;
    void **top =
        reinterpret_cast<void **>(static_cast<char *>(fiber->stack) + STACK_BYTES - colour);
    *--top = NULL; /* keeps the stack aligned as at a call */
    *--top = reinterpret_cast<void *>(fiber_main);
    for (int i = 0; i < 6; i++)
        *--top = NULL;
    fiber->top = top;
}

void *get_stack(size_t i)
{
    while (stacks.size() <= i) {
        void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED)
            fail("no memory for stacks", "");
        stacks.push_back(stack);
    }
    return stacks[i];
}

/* --- blocks ----------------------------------------------------------------------------------- */

void make_threads()
{
    const dim3 dim = block_now.dim;
    const unsigned n = dim.x * dim.y * dim.z;
    now.fiber.assign(n, fiber_t());
    now.warp.assign((n + WARP - 1) / WARP, warp_t());
    now.n_alive = n;
    now.n_here = now.n_synced = 0;
    for (unsigned i = 0; i < n; i++) {
        fiber_t *fiber = &now.fiber[i];
        fiber->thread.index = {i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)};
        fiber->thread.lane = (int)(i % WARP);
        fiber->warp = &now.warp[i / WARP];
        fiber->warp->n_alive++;
        fiber->warp->values[0].n_lane = fiber->warp->values[1].n_lane = fiber->warp->n_alive;
        fiber->stack = get_stack(i);
        start(fiber, i);
    }
}

bool may_run(const fiber_t *fiber)
{
    return !fiber->ended && (fiber->waits_for == NULL || *fiber->waits_for != fiber->as_it_was);
}

/* Thread i, until it waits or ends. */
void run_thread(unsigned i)
{
    fiber_t *fiber = &now.fiber[i];
    thread_now = &fiber->thread;
    place.thread = (uint16_t)i;
    place.block_epoch = (uint16_t)now.n_synced;
    place.warp_epoch = (uint16_t)fiber->warp->n_met;
    place.stack = static_cast<char *>(fiber->stack);
    place.inside = fiber->watched;
    cuda_on_cpu_switch(&now.scheduler, fiber->top);
}

/* Another order of the threads: warps and the lanes of each begin anywhere, sometimes backwards. */
void draw_order()
{
    const unsigned n_warp = (unsigned)now.warp.size();
    const unsigned first_warp = draw(n_warp), first_lane = draw(WARP);
    const bool backwards = draw(2) != 0;
    now.order.clear();
    for (unsigned w = 0; w < n_warp; w++) {
        const unsigned warp = (first_warp + w) % n_warp;
        const unsigned n_lane = (unsigned)now.warp[warp].values[0].n_lane;
        for (unsigned i = 0; i < n_lane; i++)
            now.order.push_back(warp * WARP + (first_lane + i) % n_lane);
    }
    if (backwards)
        std::reverse(now.order.begin(), now.order.end());
}

/* The lanes of the warp at that place of the order in turn, until all wait for other warps or have
 * ended: their stacks fit the nearest cache. Whether any of them ran. */
bool run_warp(const unsigned *order, unsigned n_lane)
{
    for (bool any = false, again = true;; any = true) {
        again = false;
        for (unsigned i = 0; i < n_lane; i++) {
            if (!may_run(&now.fiber[order[i]]))
                continue;
            again = true;
            run_thread(order[i]);
        }
        if (!again)
            return any;
    }
}

void run_block()
{
    make_threads();
    memset(now.memory, 0xff, now.n_shared == 0 ? (size_t)SHARED_BYTES : now.n_shared);
    checker_block();
    place.stack_bytes = STACK_BYTES;
    place.own[0] = reinterpret_cast<char *>(now.fiber.data());
    place.own_bytes[0] = now.fiber.size() * sizeof now.fiber[0];
    place.own[1] = reinterpret_cast<char *>(now.warp.data());
    place.own_bytes[1] = now.warp.size() * sizeof now.warp[0];
    place.shared = now.memory;
    place.shared_bytes = SHARED_BYTES;
    draw_order();
    while (now.n_alive > 0) {
        bool any = false;
        for (unsigned at = 0; at < now.order.size();) {
            const unsigned n_lane = (unsigned)now.fiber[now.order[at]].warp->values[0].n_lane;
            any |= run_warp(&now.order[at], n_lane);
            at += n_lane;
        }
        if (!any)
            fail("its threads wait for each other at different places", "");
    }
}

} // namespace

void watch(bool on)
{
    place.inside = fiber_now()->watched = on;
}

unsigned draw(unsigned n)
{
    static uint64_t state;
    static bool seeded;
    if (!seeded) {
        const char *seed = getenv("CUDA_ON_CPU_SEED");
        state = seed == NULL ? 0 : strtoull(seed, NULL, 10);
        seeded = true;
    }
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((state >> 33) % n);
}

void sync_block()
{
    if (++now.n_here < now.n_alive) {
        wait_until_changed(&now.n_synced);
        return;
    }
    if (now.n_alive < now.fiber.size())
        fail("a thread has ended before a barrier of the others", "");
    now.n_here = 0;
    now.n_synced++;
    place.block_epoch = (uint16_t)now.n_synced;
}

const warp_values_t *meet(const char *what, unsigned mask, const void *value, size_t bytes)
{
    warp_t *warp = fiber_now()->warp;
    warp_values_t *values = &warp->values[warp->n_met % 2];
    if (warp->n_here == 0)
        warp->what = what;
    if (warp->what != what && strcmp(warp->what, what) != 0)
        fail("lanes of a warp call different functions, one of them ", what);
    const unsigned all = values->n_lane == WARP ? 0xffffffffu : (1u << values->n_lane) - 1;
    if (warp->n_alive < values->n_lane || (mask & all) != all)
        fail("not all lanes of a warp take part in ", what);
    memcpy(values->of_lane[thread_now->lane], value, bytes);
    if (++warp->n_here < warp->n_alive) {
        wait_until_changed(&warp->n_met);
    } else {
        warp->n_here = 0;
        warp->n_met++;
        place.warp_epoch = (uint16_t)warp->n_met;
    }
    return values;
}

void *shared(const void *site, size_t bytes)
{
    char *&place = now.site[site];
    if (place == NULL) {
        now.used = (now.used + 127) & ~(size_t)127;
        place = now.memory + now.used;
        now.used += bytes;
        if (now.used > SHARED_BYTES)
            fail("more shared memory than a card has", "");
    }
    return place;
}

void *shared_dynamic()
{
    return now.dynamic;
}

void run(const char *name, dim3 grid, dim3 block, size_t shared_bytes,
         const std::function<void()> &body)
{
    if (now.memory == NULL)
        now.memory = static_cast<char *>(
            mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    now.kernel = name;
    now.body = &body;
    now.site.clear();
    now.dynamic = now.memory;
    now.used = shared_bytes;
    now.n_shared = 0;
    block_now.dim = block;
    block_now.grid = grid;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                block_now.index = {x, y, z};
                place.block = (z * grid.y + y) * grid.x + x;
                run_block();
                now.n_shared = now.used;
            }
    place.inside = false;
}

} // namespace cuda_on_cpu
