/** \file dtype.h  Element types shared by files, devices and messages. */
#ifndef QP_BASE_DTYPE_H
#define QP_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"

/*      enum      name    bytes */
#define QP_DTYPES(X)       \
    X(QP_F32, "fp32", 4)   \
    X(QP_BF16, "bf16", 2)  \
    X(QP_F16, "fp16", 2)   \
    X(QP_F64, "fp64", 8)   \
    X(QP_I8, "int8", 1)    \
    X(QP_U8, "uint8", 1)   \
    X(QP_I32, "int32", 4)  \
    X(QP_U32, "uint32", 4) \
    X(QP_I64, "int64", 8)  \
    X(QP_U64, "uint64", 8)

#define QP_DTYPE_ENUM(id, name, bytes) id,
typedef enum { QP_DTYPES(QP_DTYPE_ENUM) QP_N_DTYPE } qp_dtype_t;
#undef QP_DTYPE_ENUM

/** Bytes of one element; inline, as addresses of rows are computed with it. */
static inline size_t qp_dtype_bytes(qp_dtype_t dtype)
{
#define QP_DTYPE_BYTES(id, name, bytes) bytes,
    static const unsigned char bytes_of[] = {QP_DTYPES(QP_DTYPE_BYTES)};
#undef QP_DTYPE_BYTES
    QP_ASSERT(dtype < QP_N_DTYPE);
    return bytes_of[dtype];
}

/** "fp32", "bf16", ... */
const char *qp_dtype_name(qp_dtype_t dtype);

/** bf16 (round to nearest even, NaN kept quiet) and fp16 (IEEE half) to and from fp32. */
static inline float qp_bf16_to_f32(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    return y;
}

static inline uint16_t qp_f32_to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float qp_f16_to_f32(uint16_t x);
uint16_t qp_f32_to_f16(float x);

#endif
