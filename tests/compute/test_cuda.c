/* Opening a GPU, and what a user is told where there is none. Without the CUDA backend:
 * that it is refused by name. */
#include <stdlib.h>
#include <string.h>

#include "compute/ops.h"
#include "testing.h"

static const qp_device_config_t cuda = {.backend = QP_BACKEND_CUDA};

#ifndef QUIPU_HAS_CUDA

static void test_refused(void)
{
    qp_device_t *device = NULL;
    CHECK_FAILS(qp_device_open(&cuda, 0, 1, &device), QP_INPUT, "was built without it");
    CHECK(device == NULL);
}

int main(void)
{
    test_refused();
    return qp_test_end();
}

#elif defined(CUDA_ON_CPU)

/* The stand-in for the driver shows so many GPUs; -1: it is too old; -2: there is none. */
static void show(const char *n_device)
{
    CHECK(setenv("CUDA_ON_CPU_DEVICES", n_device, 1) == 0);
}

static void test_open(const char *n_device, int index, const char *found)
{
    qp_device_t *device = NULL;
    show(n_device);
    if (!CHECK_OK(qp_device_open(&cuda, index, 1, &device)))
        return;
    CHECK(strstr(qp_device_describe(device), found) != NULL);
    CHECK(device->config.compute == QP_COMPUTE_BF16); /* what "auto" is on a GPU */
    CHECK(device->queued && !device->host_addressable);
    qp_device_close(&device);
}

static void test_rejected(const char *n_device, const char *message)
{
    qp_device_t *device = NULL;
    show(n_device);
    CHECK_FAILS(qp_device_open(&cuda, 0, 1, &device), QP_INPUT, message);
    CHECK(device == NULL);
}

static void test_memory(void)
{
    qp_device_t *device = NULL;
    qp_dptr_t p = {0};
    int64_t before, unused, all;
    show("1");
    CHECK(setenv("CUDA_ON_CPU_MEMORY", "100000000", 1) == 0);
    if (!CHECK_OK(qp_device_open(&cuda, 0, 1, &device)))
        return;
    CHECK_OK(device->ops->memory_info(device, &before, &all));
    CHECK(all == 100000000 && before == all); /* scratch that is there moves into a budget */
    CHECK_FAILS(device->ops->alloc(device, "weights", 200000000, &p), QP_IO,
                "weights: the GPU has no room for 200.0 MB more: ");
    CHECK_OK(device->ops->alloc(device, "weights", 40000000, &p));
    CHECK_OK(device->ops->memory_info(device, &unused, &all));
    CHECK(unused == before - 40000000);
    device->ops->release(device, &p);
    qp_device_close(&device);
}

/* A part of a GPU, and one that is planned for and not there. */
static void test_planned(const char *n_device, bool dry, double memory, int64_t free_expected,
                         int64_t all_expected)
{
    qp_device_config_t config = cuda;
    qp_device_t *device = NULL;
    int64_t unused = 0, all = 0;
    config.dry = dry;
    config.memory = memory;
    show(n_device);
    if (!CHECK_OK(qp_device_open(&config, 0, 1, &device)))
        return;
    CHECK_OK(device->ops->memory_info(device, &unused, &all));
    CHECK(unused == free_expected && all == all_expected);
    CHECK(device->outside > 0);
    qp_device_close(&device);
}

static void test_budget(void)
{
    qp_device_t *device = NULL;
    qp_budget_t budget = {0};
    const qp_pass_size_t none = {0};
    show("1");
    if (!CHECK_OK(qp_device_open(&cuda, 0, 1, &device)))
        return;
    qp_budget_add(&budget, "scratch", device->ops->scratch_bytes(device, &none, 1));
    qp_budget_add(&budget, "base", 100000000);
    CHECK_FAILS(device->ops->take_budget(device, &budget), QP_IO,
                "the run's memory, in one piece: the GPU has no room for ");
    qp_device_close(&device);
}

int main(void)
{
    test_open("8", 3, "GPU 3,");
    test_open("1", 0, "GPU 0,");
    test_rejected("0", "no GPU");
    test_rejected("-1", "the driver of this node knows CUDA 12.4, this program needs 13.0");
    test_rejected("-2", "this node has no driver of NVIDIA's");
    test_memory();
    test_budget();
    test_planned("1", false, 0.06, 60000000, 60000000);
    test_planned("1", false, 0.2, 100000000, 100000000); /* more than it has */
    test_planned("1", true, 0.2, 200000000, 200000000);  /* another GPU */
    test_planned("-2", true, 0, -1, 629145600);          /* what a driver takes of one */
    test_planned("-2", true, 80, 80000000000 - 629145600, 80000000000);
    test_planned("-2", true, 0.1, 0, 100000000);
    return qp_test_end();
}

#else

int main(void)
{
    qp_device_t *device = NULL;
    qp_error_t error = qp_device_open(&cuda, 0, 1, &device);
    if (error != NULL) /* a machine without a GPU: it must be the user's error, in words */
        CHECK(error->code == QP_INPUT && strstr(error->message, "device.backend") != NULL);
    qp_error_destroy(&error);
    qp_device_close(&device);
    return qp_test_end();
}

#endif
