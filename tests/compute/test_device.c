/* QP_TEST: isa=AVX2,AVX512_CORE_VNNI,AVX512_CORE_BF16
 * Opening a device, its share of the cores, its memory, its group of the deck. */
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "compute/device_deck.h"
#include "compute/ops.h"
#include "testing.h"

static void test_auto_is_cpu(void)
{
    const qp_device_config_t config = {.backend = QP_BACKEND_AUTO};
    qp_device_t *device = NULL;
    CHECK_OK(qp_device_open(&config, 0, 1, &device));
    CHECK(device->config.backend == QP_BACKEND_CPU && strcmp(device->ops->name, "cpu") == 0);
    CHECK(device->host_addressable && device->config.threads >= 1);
    CHECK(qp_device_queue(device)->device == device);
    CHECK(strstr(qp_device_describe(device), "oneDNN") != NULL);
    qp_device_config_t resolved = config;
    const char *why = NULL;
    CHECK_OK(qp_device_resolve(&resolved, &why));
    CHECK(resolved.backend == QP_BACKEND_CPU && device->config.compute == resolved.compute);
    CHECK(why != NULL && strstr(why, "CUDA") != NULL);
    const char *name = qp_device_describe(device);
    const bool bf16 = strstr(name, "BF16") != NULL || strstr(name, "AMX") != NULL;
    CHECK(qp_device_dtype(device) == (bf16 ? QP_BF16 : QP_F32));
    CHECK(strstr(name, bf16 ? ", bf16" : ", fp32") != NULL);
    int host;
    CHECK(qp_device_from_host(device, &host).address == (uintptr_t)&host);
    qp_device_close(&device);
    CHECK(device == NULL);
    qp_device_close(&device);
}

/* Large blocks are cut into pieces that the threads copy and clear. */
static void test_large_blocks_are_whole(void)
{
    enum { N = (5 << 20) + 123 };
    const qp_device_config_t config = {.backend = QP_BACKEND_CPU, .threads = 3};
    qp_device_t *device = NULL;
    qp_dptr_t there = {0};
    uint8_t *from = QP_NEW("test", uint8_t, N), *back = QP_NEW("test", uint8_t, N);
    for (int64_t i = 0; i < N; i++)
        from[i] = (uint8_t)(i % 251);
    CHECK_OK(qp_device_open(&config, 0, 1, &device));
    qp_queue_t *queue = qp_device_queue(device);
    CHECK_OK(device->ops->alloc(device, "test", N, &there));
    CHECK_OK(device->ops->upload(queue, there, from, N - 1)); /* the last byte stays as it is */
    CHECK_OK(device->ops->download(queue, back, there, N));
    CHECK(memcmp(from, back, N - 1) == 0 && back[N - 1] == 0);
    CHECK_OK(device->ops->upload(queue, there, from, N));
    CHECK_OK(device->ops->zero(queue, there, N - 1));
    CHECK_OK(device->ops->download(queue, back, there, N));
    for (int64_t i = 0; i < N - 1; i++)
        from[i] = 0;
    CHECK(memcmp(from, back, N) == 0);
    device->ops->release(device, &there);
    qp_device_close(&device);
    QP_FREE(from);
    QP_FREE(back);
}

/* Ranks that see all cores share them; a rank that is bound to its own keeps them. */
static void test_share_of_cores(void)
{
    const qp_device_config_t config = {.backend = QP_BACKEND_CPU};
    cpu_set_t all, one;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    const int n_all = CPU_COUNT(&all);
    qp_device_t *device = NULL;
    CHECK_OK(qp_device_open(&config, 0, n_all, &device));
    CHECK(n_all < sysconf(_SC_NPROCESSORS_ONLN) || device->config.threads == 1);
    qp_device_close(&device);
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK_OK(qp_device_open(&config, 0, 1, &device));
    CHECK(device->config.threads == 1);
    qp_device_close(&device);
    CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
}

static void test_memory(void)
{
    const qp_device_config_t config = {.backend = QP_BACKEND_CPU, .threads = 2};
    qp_device_t *device = NULL;
    CHECK_OK(qp_device_open(&config, 0, 1, &device));
    CHECK(device->config.threads == 2);
    qp_queue_t *q = qp_device_queue(device);
    const int64_t before = qp_mem_alive();
    qp_dptr_t a, b;
    CHECK_OK(device->ops->alloc(device, "test", 4 * sizeof(int), &a));
    CHECK_OK(device->ops->alloc(device, "test", 4 * sizeof(int), &b));
    CHECK(a.address % 64 == 0);
    const int from[4] = {1, 2, 3, 4};
    int to[4] = {0};
    CHECK_OK(device->ops->upload(q, a, from, sizeof from));
    CHECK_OK(device->ops->copy(q, b, a, sizeof from));
    CHECK_OK(device->ops->zero(q, a, 2 * sizeof(int)));
    CHECK_OK(device->ops->download(q, to, b, sizeof to));
    CHECK(memcmp(to, from, sizeof to) == 0);
    CHECK_OK(device->ops->download(q, to, a, sizeof to));
    CHECK(to[0] == 0 && to[1] == 0 && to[2] == 3);
    CHECK_OK(device->ops->synchronize(q));
    device->ops->release(device, &a);
    device->ops->release(device, &b);
    device->ops->release(device, &b);
    CHECK(qp_dptr_is_null(a) && qp_mem_alive() == before);
    qp_device_close(&device);
}

static void test_deck(void)
{
    const qp_deck_group_t *groups[] = {&qp_device_deck};
    qp_device_config_t config;
    qp_deck_t *deck = NULL;
    CHECK_OK(qp_deck_parse("deck", "device = { compute = \"fp32\"; threads = 3; };", groups, 1,
                           NULL, 0, &deck));
    qp_deck_fill(deck, &qp_device_deck, &config);
    CHECK(config.backend == QP_BACKEND_AUTO && config.compute == QP_COMPUTE_FP32);
    CHECK(config.recompute == QP_RECOMPUTE_AUTO && config.threads == 3);
    qp_deck_destroy(&deck);
    CHECK_FAILS(
        qp_deck_parse("deck", "device = { backend = \"gpu\"; };", groups, 1, NULL, 0, &deck),
        QP_INPUT, "device.backend");
}

int main(void)
{
    test_auto_is_cpu();
    test_large_blocks_are_whole();
    test_share_of_cores();
    test_memory();
    test_deck();
    return qp_test_end();
}
