/* The backend "check" on purpose broken programs: each fault shows, whatever the seed of the order;
 * the same program with its waits gives the CPU's bits. */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "compute/ops.h"
#include "testing.h"

enum { N = 64, N_SEED = 6 };

static qp_device_t *open_check(int seed)
{
    const qp_device_config_t config = {
        .backend = QP_BACKEND_CHECK, .compute = QP_COMPUTE_FP32, .threads = 1};
    char text[16];
    qp_device_t *device = NULL;
    snprintf(text, sizeof text, "%d", seed);
    setenv("QUIPU_CHECK_SEED", text, 1);
    CHECK_OK(qp_device_open(&config, 0, 1, &device));
    return device;
}

/* --- faults that end the process -------------------------------------------------------------- */

static void read_on_the_host(qp_device_t *device, qp_dptr_t p)
{
    (void)device;
    float x;
    memcpy(&x, (const char *)p.address + 8, sizeof x);
    fprintf(stderr, "%g\n", (double)x);
}

static void write_on_the_host(qp_device_t *device, qp_dptr_t p)
{
    (void)device;
    *(volatile float *)p.address = 1.0f;
}

static void run_past_the_end(qp_device_t *device, qp_dptr_t p)
{
    const qp_mat_t m = qp_mat(p, QP_F32, 2, N);
    CHECK_OK(device->ops->axpby(qp_device_queue(device), 1.0f, m, 0.0f, m));
}

static void use_what_was_released(qp_device_t *device, qp_dptr_t p)
{
    qp_dptr_t again = p;
    device->ops->release(device, &again);
    CHECK_OK(device->ops->zero(qp_device_queue(device), p, 4));
}

static void release_twice(qp_device_t *device, qp_dptr_t p)
{
    qp_dptr_t again = p;
    device->ops->release(device, &again);
    device->ops->release(device, &p);
}

static void upload_what_may_move(qp_device_t *device, qp_dptr_t p)
{
    static float from[N];
    CHECK_OK(device->ops->upload_async(qp_device_queue(device), p, from, sizeof from));
}

static void download_past_the_end(qp_device_t *device, qp_dptr_t p)
{
    void *to;
    CHECK_OK(device->ops->host_alloc(device, "to", N * sizeof(float) - 1, &to));
    CHECK_OK(device->ops->download_async(qp_device_queue(device), to, p, N * sizeof(float)));
}

static void use_what_was_unregistered(qp_device_t *device, qp_dptr_t p)
{
    static float from[N];
    CHECK_OK(device->ops->host_register(device, from, sizeof from));
    CHECK_OK(device->ops->upload_async(qp_device_queue(device), p, from, sizeof from));
    CHECK_OK(device->ops->synchronize(qp_device_queue(device)));
    device->ops->host_unregister(device, from);
    CHECK_OK(device->ops->upload_async(qp_device_queue(device), p, from, sizeof from));
}

/* Rows and features that reserve() was not told of. */
static void multiply_unreserved(qp_device_t *device, qp_dptr_t p)
{
    const qp_mat_t m = qp_mat(p, QP_F32, 1, N), c = qp_mat(p, QP_F32, 1, 1);
    CHECK_OK(device->ops->matmul(qp_device_queue(device), 1.0f, m, false, m, true, 0.0f, c,
                                 (qp_mask_t){0}));
    CHECK_OK(device->ops->synchronize(qp_device_queue(device)));
}

static void prepare_unreserved(qp_device_t *device, qp_dptr_t p)
{
    qp_input_t x = qp_input(qp_mat(p, QP_F32, 1, N));
    x.copy = x.x;
    CHECK_OK(device->ops->input(qp_device_queue(device), &x));
    CHECK_OK(device->ops->synchronize(qp_device_queue(device)));
}

/* One feature more; two sizes do not add up. */
static void prepare_wider(qp_device_t *device, qp_dptr_t p)
{
    const qp_pass_size_t narrow = {.n_token = 1, .widest = N - 1}, few = {.widest = N};
    CHECK_OK(device->ops->reserve(device, &narrow));
    CHECK_OK(device->ops->reserve(device, &few));
    prepare_unreserved(device, p);
}

/* Runs it in a process of its own, which must abort with the message. */
static void expect_abort(void (*fault)(qp_device_t *, qp_dptr_t), const char *message)
{
    int pipe_end[2];
    char said[1024] = "";
    CHECK(pipe(pipe_end) == 0);
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        qp_dptr_t p = {0};
        dup2(pipe_end[1], STDERR_FILENO);
        qp_device_t *device = open_check(0);
        if (device->ops->alloc(device, "the buffer", N * sizeof(float), &p) == NULL)
            fault(device, p);
        _exit(0);
    }
    close(pipe_end[1]);
    size_t n = 0;
    ssize_t got;
    while (n < sizeof said - 1 && (got = read(pipe_end[0], said + n, sizeof said - 1 - n)) > 0)
        n += (size_t)got;
    close(pipe_end[0]);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %d: %s", status, said);
    CHECK_MSG(strstr(said, message) != NULL, "'%s' is not in: %s", message, said);
}

/* --- faults that show in the numbers ---------------------------------------------------------- */

/* One run of a small program on two queues: what it computes, with one step of it left out. */
typedef enum {
    SOUND,
    OVERWRITE_FROM,    /* of upload_async, before its time has come */
    NO_WAIT_OF_QUEUE,  /* the second queue does not wait for the first */
    READ_BEFORE_EVENT, /* of download_async */
    USE_AFTER_DISCARD, /* what an earlier pass left there */
    NEVER_WRITTEN,     /* what alloc gives */
    N_FAULT
} fault_t;

/* out = 2 from, by the first queue; out += 1 from, by the second one. */
static void run(qp_device_t *device, fault_t fault, float out[N])
{
    const qp_ops_t *ops = device->ops;
    qp_queue_t *q = qp_device_queue(device), *second = NULL;
    qp_event_t *done = NULL, *back = NULL;
    qp_dptr_t a = {0}, b = {0};
    void *from = NULL, *to = NULL;
    CHECK_OK(ops->queue_create(device, &second));
    CHECK_OK(ops->event_create(device, &done));
    CHECK_OK(ops->event_create(device, &back));
    CHECK_OK(ops->alloc(device, "a", N * sizeof(float), &a));
    CHECK_OK(ops->alloc(device, "b", N * sizeof(float), &b));
    CHECK_OK(ops->host_alloc(device, "from", N * sizeof(float), &from));
    CHECK_OK(ops->host_alloc(device, "to", N * sizeof(float), &to));
    const qp_mat_t ma = qp_mat(a, QP_F32, 1, N), mb = qp_mat(b, QP_F32, 1, N);
    for (int i = 0; i < N; i++)
        ((float *)from)[i] = (float)i;
    if (fault != NEVER_WRITTEN)
        CHECK_OK(ops->upload_async(q, a, from, N * sizeof(float)));
    if (fault == OVERWRITE_FROM)
        memset(from, 0, N * sizeof(float));
    if (fault == USE_AFTER_DISCARD)
        CHECK_OK(ops->discard(q, a, N * sizeof(float)));
    CHECK_OK(ops->axpby(q, 2.0f, ma, 0.0f, mb));
    CHECK_OK(ops->event_record(q, done));
    if (fault != NO_WAIT_OF_QUEUE)
        CHECK_OK(ops->event_wait(second, done));
    CHECK_OK(ops->axpby(second, 1.0f, ma, 1.0f, mb));
    CHECK_OK(ops->download_async(second, to, b, N * sizeof(float)));
    CHECK_OK(ops->event_record(second, back));
    if (fault != READ_BEFORE_EVENT)
        CHECK_OK(ops->event_synchronize(back));
    memcpy(out, to, N * sizeof(float));
    CHECK_OK(ops->synchronize(second));
    ops->release(device, &a);
    ops->release(device, &b);
    ops->host_release(device, from);
    ops->host_release(device, to);
    ops->event_destroy(&done);
    ops->event_destroy(&back);
    ops->queue_destroy(&second);
}

static bool is_right(const float out[N])
{
    for (int i = 0; i < N; i++)
        if (out[i] != 3.0f * (float)i)
            return false;
    return true;
}

/* upload() reads at once, whatever happens to its source. */
static void test_upload_reads_at_once(qp_device_t *device)
{
    float from[N], to[N];
    qp_dptr_t p = {0};
    qp_queue_t *q = qp_device_queue(device);
    CHECK_OK(device->ops->alloc(device, "test", sizeof from, &p));
    for (int i = 0; i < N; i++)
        from[i] = 3.0f * (float)i;
    CHECK_OK(device->ops->upload(q, p, from, sizeof from));
    memset(from, 0, sizeof from);
    CHECK_OK(device->ops->download(q, to, p, sizeof to));
    CHECK(is_right(to));
    device->ops->release(device, &p);
}

/* Of each fault, with how many seeds it shows. Without a wait the order may be right by chance. */
static void test_faults_show(void)
{
    static const char *const name[N_FAULT] = {"sound",
                                              "from overwritten",
                                              "no wait of the queue",
                                              "read before the event",
                                              "use after discard",
                                              "never written"};
    for (int fault = SOUND; fault < N_FAULT; fault++) {
        int n_wrong = 0;
        for (int seed = 0; seed < N_SEED; seed++) {
            float out[N];
            qp_device_t *device = open_check(seed);
            run(device, (fault_t)fault, out);
            n_wrong += !is_right(out);
            test_upload_reads_at_once(device);
            qp_device_close(&device);
        }
        const int least = fault == SOUND ? 0 : fault == NO_WAIT_OF_QUEUE ? 2 : N_SEED;
        CHECK_MSG(fault == SOUND ? n_wrong == 0 : n_wrong >= least, "%s: wrong with %d of %d seeds",
                  name[fault], n_wrong, N_SEED);
    }
}

int main(void)
{
    expect_abort(read_on_the_host,
                 "host code reads or writes device memory: byte 8 of 'the buffer'");
    expect_abort(write_on_the_host, "byte 0 of 'the buffer' (256 bytes)");
    expect_abort(run_past_the_end, "axpby is given 512 bytes at byte 0 of 'the buffer'");
    expect_abort(use_what_was_released,
                 "zero is given 4 bytes at byte 0 of 'the buffer' (256 bytes, "
                 "released)");
    expect_abort(release_twice, "release is given 0 bytes");
    expect_abort(upload_what_may_move, "upload_async is given 256 bytes of host memory");
    expect_abort(download_past_the_end, "which is not pinned");
    expect_abort(use_what_was_unregistered, "upload_async is given 256 bytes of host memory");
    expect_abort(multiply_unreserved, "matmul wants");
    expect_abort(prepare_unreserved, "input comes with n_token = 1, but reserve()");
    expect_abort(prepare_wider, "no such pass (the last one: 0)");
    test_faults_show();
    return qp_test_end();
}
