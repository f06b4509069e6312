/** \file nccl_library.h  NCCL, opened by its name. */
#ifndef QP_CUDA_NCCL_NCCL_LIBRARY_H
#define QP_CUDA_NCCL_NCCL_LIBRARY_H

#include <nccl.h>

#include "cuda/core/library.h"

#define QP_NCCL_FUNCTIONS(F)  \
    F(ncclGetUniqueId)        \
    F(ncclCommInitRankConfig) \
    F(ncclCommGetAsyncError)  \
    F(ncclCommDestroy)        \
    F(ncclGroupStart)         \
    F(ncclGroupEnd)           \
    F(ncclSend)               \
    F(ncclRecv)               \
    F(ncclAllReduce)          \
    F(ncclGetErrorString)

typedef struct {
    qp_library_t library;
#define QP_NCCL_MEMBER(name) __typeof__(&(name)) name;
    QP_NCCL_FUNCTIONS(QP_NCCL_MEMBER)
#undef QP_NCCL_MEMBER
} qp_nccl_t;

/** QP_INPUT: it is not there, or too old. On error there is nothing to close. */
qp_error_t qp_nccl_open(qp_nccl_t *nccl);
void qp_nccl_close(qp_nccl_t *nccl);

#endif
