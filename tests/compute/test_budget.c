/* QP_TEST: check=1
 * A budget: its rows, and devices that hold a run to it. */
#include <stdlib.h>
#include <string.h>

#include "compute/device.h"
#include "compute/ops.h"
#include "testing.h"

static void test_rows(void)
{
    qp_budget_t b = {0};
    size_t at = 1;
    qp_budget_add(&b, "base", 1000);
    qp_budget_add(&b, "adapter", 256);
    qp_budget_add(&b, "base", 0); /* an empty piece has an address, too */
    CHECK(b.n == 2 && qp_budget_bytes(&b) == 1024 + 256 + 256 && qp_budget_place(&b) == 1536);
    CHECK_FAILS(qp_budget_take(&b, "optimiser", 1, &at), QP_INTERNAL,
                "optimiser: 1 bytes of the device are wanted beyond the memory plan, which has 0");
    CHECK_OK(qp_budget_take(&b, "base", 1, &at));
    CHECK(at == 0);
    CHECK_OK(qp_budget_take(&b, "base", 1000, &at));
    CHECK(at == 256 && b.row[0].alive == 1280 && b.row[0].peak == 1280);
    CHECK_OK(qp_budget_take(&b, "adapter", 256, &at));
    CHECK(at == 1280);
    CHECK_FAILS(qp_budget_take(&b, "base", 1, &at), QP_INTERNAL,
                "base: 1 bytes of the device are wanted beyond the memory plan, which has 1280 for "
                "it, 1280 of them in use");
    qp_budget_give_back(&b, "base", 1000); /* its place has to wait for the other one */
    CHECK_FAILS(qp_budget_take(&b, "base", 1000, &at), QP_INTERNAL, "base: 1000 bytes");
    qp_budget_give_back(&b, "base", 1);
    CHECK_OK(qp_budget_take(&b, "base", 1280, &at));
    CHECK(at == 0 && b.row[0].peak == 1280 && b.row[1].alive == 256);
}

/* An op in two pieces of memory that lie beside each other. */
static void use(qp_device_t *device, qp_dptr_t a, qp_dptr_t b)
{
    const float ones[4] = {1, 2, 3, 4};
    float sum[4] = {0};
    qp_queue_t *q = qp_device_queue(device);
    CHECK_OK(device->ops->upload(q, a, ones, sizeof ones));
    CHECK_OK(device->ops->axpby(q, 2.0f, qp_mat(a, QP_F32, 1, 4), 0.0f, qp_mat(b, QP_F32, 1, 4)));
    CHECK_OK(device->ops->download(q, sum, b, sizeof sum));
    CHECK(sum[0] == 2.0f && sum[3] == 8.0f);
}

/* Nothing beyond the plan, wherever a run stands: so nothing is allocated in a step. */
static void test_device(void)
{
    const qp_device_config_t config = {.compute = QP_COMPUTE_FP32, .threads = 1};
    const qp_pass_size_t none = {0};
    qp_device_t *device = NULL;
    qp_budget_t budget = {0};
    qp_dptr_t a = {0}, b = {0}, c = {0};
    int64_t before = 0, unused = 0, all = 0;
    setenv("QUIPU_CHECK_MEMORY", "200000000", 1);
    if (!CHECK_OK(qp_device_open(&config, 0, 1, &device)))
        return;
    const qp_ops_t *ops = device->ops;
    CHECK_OK(ops->memory_info(device, &before, &all));
    qp_budget_add(&budget, "pair", 16);
    qp_budget_add(&budget, "pair", 16);
    const size_t scratch = ops->scratch_bytes(device, &none, 1);
    if (scratch > 0)
        qp_budget_add(&budget, "scratch", scratch);
    CHECK_OK(ops->take_budget(device, &budget));
    CHECK_OK(ops->alloc(device, "pair", 16, &a));
    CHECK_OK(ops->alloc(device, "pair", 16, &b));
    use(device, a, b);
    if (!device->host_addressable) {
        CHECK_FAILS(ops->alloc(device, "pair", 16, &c), QP_INTERNAL, "beyond the memory plan");
        CHECK_FAILS(ops->alloc(device, "other", 16, &c), QP_INTERNAL, "beyond the memory plan");
        CHECK(qp_dptr_is_null(c) && device->budget.row[0].peak == device->budget.row[0].bytes);
        CHECK_OK(ops->memory_info(device, &unused, &all));
        CHECK(unused <= before - (int64_t)qp_budget_bytes(&budget));
        ops->release(device, &b);
        ops->release(device, &a);
        CHECK_OK(ops->alloc(device, "pair", 16, &b));
        CHECK_OK(ops->alloc(device, "pair", 16, &a));
        use(device, b, a);
    }
    ops->release(device, &a);
    ops->release(device, &b);
    qp_device_close(&device);
}

int main(void)
{
    test_rows();
    test_device();
    return qp_test_end();
}
