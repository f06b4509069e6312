#include "base/moments.h"

static double element(const void *x, qp_dtype_t dtype, int64_t i)
{
    return dtype == QP_F32 ? (double)((const float *)x)[i] : ((const double *)x)[i];
}

qp_moments_t qp_moments(const void *x, qp_dtype_t dtype, int64_t n)
{
    qp_moments_t m = {0};
    double sum = 0.0;
    QP_ASSERT(dtype == QP_F32 || dtype == QP_F64);
    for (int64_t i = 0; i < n; i++)
        sum += element(x, dtype, i);
    if (n > 0)
        m.mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        m.squares += (element(x, dtype, i) - m.mean) * (element(x, dtype, i) - m.mean);
    const double bessel = n > 1 ? (double)n / ((double)n - 1.0) : 1.0;
    if (n > 0)
        m.var = m.squares / (double)n * bessel;
    return m;
}
