/** \file library.h  Libraries of the vendor that are opened when they are needed: the program
 * starts on nodes that do not have them. */
#ifndef QP_CUDA_CORE_LIBRARY_H
#define QP_CUDA_CORE_LIBRARY_H

#include "cuda/cuda.h"

QP_CUDA_BEGIN

typedef struct {
    const char *what;        /**< for messages: "NVIDIA's library NCCL" */
    const char *const *name; /**< [n_name], the best first */
    int n_name;
    void *handle;
} qp_library_t;

/** QP_INPUT: none of the names is found. */
qp_error_t qp_library_open(qp_library_t *library);
/** A function, stored as a pointer of \a bytes at \a to. QP_INPUT: there is none of that name. */
qp_error_t qp_library_find(const qp_library_t *library, const char *function, void *to,
                           size_t bytes);
void qp_library_close(qp_library_t *library);

QP_CUDA_END

#endif
