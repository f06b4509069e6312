/** \file cuda.h  The door to the backend in the folder cuda/, where the program is built with it
 * (QUIPU_HAS_CUDA). */
#ifndef QP_COMPUTE_CUDA_H
#define QP_COMPUTE_CUDA_H

#include "compute/device.h"

/** Whether "auto" is this backend here: there is a GPU that it can use. *why (a static string)
 * tells why, or why not. */
bool qp_cuda_is_there(const char **why);

/** What a GPU is known by on all nodes. */
typedef struct {
    unsigned char uuid[16];
} qp_cuda_id_t;

/** The GPUs that this rank sees, one at least (qp_free). QP_INPUT: there is none, no driver, or one
 * that is too old. */
qp_error_t qp_cuda_list(qp_cuda_id_t **ids, int *n);

/** Opens the GPU of that index; see qp_device_open(). QP_INPUT as qp_cuda_list(), or it is too old.
 */
qp_error_t qp_cuda_device_open(const qp_device_config_t *config, int index, int node_size,
                               qp_device_t **device);

#endif
