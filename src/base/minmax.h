/** \file minmax.h  The lesser and the greater of two counts. */
#ifndef QP_BASE_MINMAX_H
#define QP_BASE_MINMAX_H

#include <stdint.h>

static inline int64_t qp_min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t qp_max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

#endif
