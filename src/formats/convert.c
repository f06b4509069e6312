#include "formats/convert.h"

#include <string.h>

#include "base/error.h"

bool qp_convert_knows(qp_dtype_t dtype)
{
    return dtype == QP_F32 || dtype == QP_F16 || dtype == QP_BF16;
}

/* fp16 without branches: the exponent is moved into place as an fp32 bit pattern and re-biased by
 * one exact multiplication, which also normalises subnormals; infinities and NaN get the top
 * exponent. */
static void from_f16(const uint8_t *from, int64_t n, float *to)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, from + 2 * i, sizeof half);
        uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13, bits;
        float scaled;
        memcpy(&scaled, &magnitude, sizeof scaled);
        scaled *= 0x1p112f;
        memcpy(&bits, &scaled, sizeof bits);
        bits |= magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
        bits |= (uint32_t)(half & 0x8000) << 16;
        memcpy(to + i, &bits, sizeof bits);
    }
}

static void from_bf16(const uint8_t *from, int64_t n, float *to)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, from + 2 * i, sizeof half);
        to[i] = qp_bf16_to_f32(half);
    }
}

void qp_convert_to_f32(qp_dtype_t dtype, const void *from, int64_t n, float *to)
{
    QP_ASSERT(qp_convert_knows(dtype));
    if (n == 0)
        return;
    if (dtype == QP_F32)
        memcpy(to, from, (size_t)n * sizeof *to);
    else if (dtype == QP_F16)
        from_f16(from, n, to);
    else
        from_bf16(from, n, to);
}

void qp_convert_from_f32(qp_dtype_t dtype, const float *from, int64_t n, void *to)
{
    QP_ASSERT(qp_convert_knows(dtype));
    uint16_t *half = to;
    if (dtype == QP_F32)
        memcpy(to, from, (size_t)n * sizeof *from);
    else if (dtype == QP_F16)
        for (int64_t i = 0; i < n; i++)
            half[i] = qp_f32_to_f16(from[i]);
    else
        for (int64_t i = 0; i < n; i++)
            half[i] = qp_f32_to_bf16(from[i]);
}

int64_t qp_find_not_finite(const float *x, int64_t n)
{
    enum { RUN = 4096 }; /* vectorised test of a run, then the exact place */
    for (int64_t first = 0; first < n; first += RUN) {
        int64_t end = first + RUN < n ? first + RUN : n;
        uint32_t bad = 0;
        for (int64_t i = first; i < end; i++) {
            uint32_t bits;
            memcpy(&bits, x + i, sizeof bits);
            bad |= (bits & 0x7f800000u) == 0x7f800000u;
        }
        for (int64_t i = first; bad && i < end; i++)
            if (!__builtin_isfinite(x[i]))
                return i;
    }
    return -1;
}
