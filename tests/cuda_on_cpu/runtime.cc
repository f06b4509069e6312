/* Streams, events, launches and copies of the stand-in for NVIDIA's runtime: work is done late, in
 * an order that the seed draws. */
#include "runtime.h"

#include "checker.h"
#include "executor.h"
#include "faults.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <deque>
#include <vector>

using namespace cuda_on_cpu;

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

enum { SHARED_MOST = 99 << 10 }; /* of a block: what every card since sm_80 gives */

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
std::vector<cudaStream_t> streams;
int n_stream; /* that ever were */
clock_t host; /* what it has waited for */
cudaError_t last_error;
int launches_left; /* until one fails; 0: none will */

/* --- work ------------------------------------------------------------------------------------- */

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
        checker_begin(task.name, stream->id, stream->n_done, known);
        task.work();
    }
    stream->n_done++;
}

/* Work of other streams that nothing holds back, sometimes. */
void do_others(cudaStream_t stream)
{
    for (cudaStream_t other : streams)
        while (other != stream && !other->task.empty() && !is_blocked(&other->task.front()) &&
               !other->task.front().meets && draw(3) == 0)
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

} // namespace

namespace cuda_on_cpu
{

guard_t::guard_t()
{
    pthread_mutex_lock(&lock);
}

guard_t::~guard_t()
{
    pthread_mutex_unlock(&lock);
}

void fail(const char *problem)
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

void finish_all()
{
    for (cudaStream_t stream : streams)
        finish(stream, stream->n_put);
}

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

cudaError_t cudaGetLastError(void)
{
    guard_t guard;
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaDeviceSynchronize(void)
{
    guard_t guard;
    finish_all();
    return cudaSuccess;
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
                     checker_range(from, bytes, false);
                     checker_range(to, bytes, true);
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
                     checker_range(to, bytes, true);
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
