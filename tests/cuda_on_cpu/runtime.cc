/* Streams, events and memory of the stand-in for NVIDIA's runtime: work is done late, in an order
 * that the seed draws, and device memory is unreadable while no work is done. */
#include "checker.h"
#include "executor.h"
#include "faults.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <string>
#include <vector>

namespace
{

typedef std::vector<uint64_t> clock_t; /* so many pieces of work of each stream */

struct task_t {
    const char *name;
    std::function<void()> work;
    cudaStream_t after; /* waits for the place until in it; NULL: for nothing */
    uint64_t until;
    clock_t host;       /* what the host had waited for when it gave the task */
    bool meets = false; /* the work of other processes: done when it must be, never by chance, since
                           the host waits inside of it as it does not for a card */
};

struct moment_t {
    uint64_t n_done;
    clock_t known;
};

} // namespace

struct cuda_on_cpu_stream {
    int id;
    std::deque<task_t> task;
    uint64_t n_put, n_done;
    std::vector<moment_t> history; /* what it came after, whenever that became more */
};

struct cuda_on_cpu_event {
    cudaStream_t stream; /* NULL: never recorded */
    uint64_t until;
};

namespace
{

enum { PAGE = 4096, OPEN = PROT_READ | PROT_WRITE };
enum { SHARED_MOST = 99 << 10 }; /* of a block: what every card since sm_80 gives */
const size_t ARENA = (size_t)1 << 38;

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
std::vector<cudaStream_t> streams;
int n_stream;                          /* that ever were */
clock_t host;                          /* what it has waited for */
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
cudaError_t last_error;
int launches_left; /* until one fails; 0: none will */
thread_local int current_device;

struct guard_t {
    guard_t()
    {
        pthread_mutex_lock(&lock);
    }
    ~guard_t()
    {
        pthread_mutex_unlock(&lock);
    }
};

[[noreturn]] void fail(const char *problem)
{
    fprintf(stderr, "cuda_on_cpu: %s\n", problem);
    abort();
}

cudaError_t keep(cudaError_t error)
{
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

size_t bytes_of(const char *variable, size_t otherwise)
{
    const char *bytes = getenv(variable);
    return bytes != NULL ? strtoull(bytes, NULL, 10) : otherwise;
}

size_t device_bytes()
{
    return bytes_of("CUDA_ON_CPU_MEMORY", (size_t)16 << 30);
}

/* What one call gets at most, whatever is said to be free: another program was faster. */
size_t most_bytes()
{
    return bytes_of("CUDA_ON_CPU_MALLOC", SIZE_MAX);
}

/* --- work ------------------------------------------------------------------------------------- */

/* By a protection key where the CPU has them: a register instead of a call. */
void open_memory(bool open)
{
    if (key >= 0)
        pkey_set(key, open ? 0 : PKEY_DISABLE_ACCESS);
    else if (arena_used > 0 && mprotect(arena, arena_used, open ? OPEN : PROT_NONE) != 0)
        fail("mprotect failed");
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
    cuda_on_cpu::checker_open(arena, ARENA);
}

/* New memory is full of NaN; one that is huge takes room only where it is used. */
void fill(char *start, size_t bytes)
{
    open_memory(true);
    char *page = start - (uintptr_t)start % PAGE;
    if (key < 0 && mprotect(page, bytes + (size_t)(start - page), OPEN) != 0)
        fail("mprotect failed");
    if (bytes < cuda_on_cpu::HUGE_BLOCK)
        memset(start, 0xff, bytes);
    open_memory(false);
}

bool is_blocked(const task_t *task)
{
    return task->after != NULL && task->after->n_done < task->until;
}

void join(clock_t *to, const clock_t &from)
{
    if (to->size() < from.size())
        to->resize(from.size());
    for (size_t i = 0; i < from.size(); i++)
        (*to)[i] = (*to)[i] > from[i] ? (*to)[i] : from[i];
}

/* What is over when a stream has come so far. */
clock_t known_at(const cuda_on_cpu_stream *stream, uint64_t n_done)
{
    clock_t known;
    for (const moment_t &moment : stream->history)
        if (moment.n_done <= n_done)
            known = moment.known;
    known.resize((size_t)n_stream);
    known[(size_t)stream->id] = n_done;
    return known;
}

void do_first(cudaStream_t stream)
{
    task_t task = stream->task.front();
    stream->task.pop_front();
    clock_t known = known_at(stream, stream->n_done);
    const clock_t before = known;
    join(&known, task.host);
    if (task.after != NULL)
        join(&known, known_at(task.after, task.until));
    if (known != before)
        stream->history.push_back({stream->n_done, known});
    if (task.work) {
        cuda_on_cpu::checker_begin(task.name, stream->id, stream->n_done, known);
        task.work();
    }
    stream->n_done++;
}

/* Work of other streams that nothing holds back, sometimes. */
void do_others(cudaStream_t stream)
{
    for (cudaStream_t other : streams)
        while (other != stream && !other->task.empty() && !is_blocked(&other->task.front()) &&
               !other->task.front().meets && cuda_on_cpu::draw(3) == 0)
            do_first(other);
}

void do_until(cudaStream_t stream, uint64_t until)
{
    while (stream->n_done < until) {
        do_others(stream);
        const task_t *task = &stream->task.front();
        if (is_blocked(task))
            do_until(task->after, task->until);
        do_first(stream);
    }
}

/* The host waits. */
void finish(cudaStream_t stream, uint64_t until)
{
    if (stream->n_done < until) {
        open_memory(true);
        do_until(stream, until);
        open_memory(false);
    }
    join(&host, known_at(stream, until));
}

void put(cudaStream_t stream, task_t task)
{
    task.host = host;
    stream->task.push_back(std::move(task));
    stream->n_put++;
}

void finish_all()
{
    for (cudaStream_t stream : streams)
        finish(stream, stream->n_put);
}

/* --- memory ----------------------------------------------------------------------------------- */

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

} // namespace

namespace cuda_on_cpu
{

cudaError_t put_kernel(const char *name, dim3 grid, dim3 block, size_t shared_bytes,
                       cudaStream_t stream, std::function<void()> body)
{
    guard_t guard;
    const uint64_t n = (uint64_t)block.x * block.y * block.z;
    if (n == 0 || n > 1024 || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
        grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffffu)
        return keep(cudaErrorInvalidConfiguration);
    if (shared_bytes > SHARED_MOST)
        return keep(cudaErrorInvalidValue);
    if (launches_left > 0 && --launches_left == 0)
        return keep(cudaErrorLaunchOutOfResources);
    put(stream, {name, [=] { run(name, grid, block, shared_bytes, body); }, NULL, 0, {}});
    return cudaSuccess;
}

void put_task(const char *name, cudaStream_t stream, std::function<void()> work, bool meets)
{
    guard_t guard;
    put(stream, {name, std::move(work), NULL, 0, {}, meets});
}

void pause_host()
{
    pthread_mutex_unlock(&lock);
    usleep(50);
    pthread_mutex_lock(&lock);
}

} // namespace cuda_on_cpu

int cuda_on_cpu_fail_launch(int n)
{
    guard_t guard;
    const int left = launches_left;
    launches_left = n;
    return left;
}

/* --- the API ---------------------------------------------------------------------------------- */

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

cudaError_t cudaGetLastError(void)
{
    guard_t guard;
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
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
    current_device = device;
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

cudaError_t cudaDeviceSynchronize(void)
{
    guard_t guard;
    finish_all();
    return cudaSuccess;
}

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
    cuda_on_cpu::checker_alloc(start, bytes);
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
    cuda_on_cpu::checker_free(found->first, found->second);
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
        cuda_on_cpu::checker_alloc(start, bytes);
    else
        cuda_on_cpu::checker_free(start, bytes);
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

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    (void)flags;
    guard_t guard;
    *stream = new cuda_on_cpu_stream();
    (*stream)->id = n_stream++;
    streams.push_back(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    guard_t guard;
    finish_all(); /* a task elsewhere may wait for a place in this one */
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == stream)
            streams.erase(streams.begin() + (long)i);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    guard_t guard;
    finish(stream, stream->n_put);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    (void)flags;
    guard_t guard;
    put(stream, {"wait", nullptr, event->stream, event->until, {}});
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    (void)flags;
    *event = new cuda_on_cpu_event();
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    guard_t guard;
    event->stream = stream;
    event->until = stream->n_put;
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    guard_t guard;
    return event->stream == NULL || event->stream->n_done >= event->until ? cudaSuccess
                                                                          : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    guard_t guard;
    if (event->stream != NULL)
        finish(event->stream, event->until);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    guard_t guard;
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (bytes == 0)
        return cudaSuccess;
    if (to_device ? !is_on_device(to, bytes) : !is_pinned(to, bytes))
        fail("a copy to memory that is not on the device, or not pinned");
    if (from_device ? !is_on_device(from, bytes) : !is_pinned(from, bytes))
        fail("a copy from memory that is not on the device, or not pinned");
    put(stream, {"a copy",
                 [=] {
                     cuda_on_cpu::checker_range(from, bytes, false);
                     cuda_on_cpu::checker_range(to, bytes, true);
                     memmove(to, from, bytes);
                 },
                 NULL,
                 0,
                 {}});
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    guard_t guard;
    if (bytes == 0)
        return cudaSuccess;
    if (!is_on_device(to, bytes))
        fail("memory to be set is not on the device");
    put(stream, {"a memset",
                 [=] {
                     cuda_on_cpu::checker_range(to, bytes, true);
                     memset(to, value, bytes);
                 },
                 NULL,
                 0,
                 {}});
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    (void)kernel;
    (void)attribute;
    (void)value;
    return cudaSuccess;
}
