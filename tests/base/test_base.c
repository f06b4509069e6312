/* Errors, strings, dtypes, Philox and memory counters. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/philox.h"
#include "base/str.h"
#include "testing.h"

static void test_errors(void)
{
    qp_error_t error = QP_ERROR(QP_INPUT, "row %d is bad", 7);
    error = qp_error_context(error, "file.h5");
    CHECK(error->code == QP_INPUT);
    CHECK(strcmp(error->message, "file.h5: row 7 is bad") == 0);
    qp_error_destroy(&error);
    CHECK(error == NULL);
    CHECK(qp_error_context(NULL, "nothing") == NULL);
}

static void test_half_precision_round_trips(void)
{
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t h = (uint16_t)i;
        float f = qp_f16_to_f32(h);
        if (!isnan(f))
            CHECK_MSG(qp_f32_to_f16(f) == h, "fp16 %04x", i);
        float b = qp_bf16_to_f32(h);
        if (!isnan(b))
            CHECK_MSG(qp_f32_to_bf16(b) == h, "bf16 %04x", i);
    }
    CHECK(qp_f32_to_bf16(1.00390625f) == 0x3f80); /* half way: to even */
    CHECK(qp_f32_to_f16(65520.0f) == 0x7c00);
    CHECK(qp_f32_to_f16(65519.0f) == 0x7bff);
}

/* Known answer of Random123's kat_vectors for philox4x32 with ten rounds. */
static void test_philox_known_answer(void)
{
    qp_philox_key_t key = {.seed = 0xa4093822u,
                           .step = 0x299f31d0u,
                           .sample = 0x243f6a88u,
                           .position = 0x85a308d3u,
                           .site = 0x13198a2eu};
    uint32_t out[4];
    qp_philox(&key, 0x03707344u, out);
    const uint32_t expected[4] = {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u};
    CHECK(memcmp(out, expected, sizeof out) == 0);
    double sum = 0.0, sum2 = 0.0;
    for (uint64_t i = 0; i < 20000; i++) {
        double x = qp_philox_normal(&key, i);
        sum += x;
        sum2 += x * x;
    }
    CHECK(fabs(sum / 20000) < 0.03 && fabs(sum2 / 20000 - 1.0) < 0.05);
}

static void test_nearest(void)
{
    const char *const names[] = {"lora.r", "lora.alpha", "optim.lr"};
    CHECK(strcmp(qp_nearest("lora.alhpa", names, 3), "lora.alpha") == 0);
    CHECK(qp_nearest("zzzzzzzzzz", names, 3) == NULL);
}

static void test_memory_counts(void)
{
    int64_t before = qp_mem_alive();
    char *p = qp_alloc("test", 100);
    CHECK(qp_mem_alive() == before + 100 && (uintptr_t)p % 64 == 0 && p[99] == 0);
    p = qp_realloc("test", p, 200);
    CHECK(qp_mem_alive() == before + 200);
    QP_FREE(p);
    CHECK(p == NULL && qp_mem_alive() == before);
}

int main(void)
{
    test_errors();
    test_half_precision_round_trips();
    test_philox_known_answer();
    test_nearest();
    test_memory_counts();
    return qp_test_end();
}
