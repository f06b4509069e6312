/** \file cuda.h  The door to the backend in the folder cuda/, where the program is built with it
 * (QUIPU_HAS_CUDA). */
#ifndef QP_COMPUTE_CUDA_H
#define QP_COMPUTE_CUDA_H

#include "compute/device.h"

/** Whether "auto" is this backend here: there is a GPU that it can use. *why (a static string)
 * tells why, or why not. */
bool qp_cuda_is_there(const char **why);

/** Opens the GPU of this rank; see qp_device_open(). QP_INPUT: there is no driver, it is too old,
 * or there are fewer GPUs than ranks on the node. */
qp_error_t qp_cuda_device_open(const qp_device_config_t *config, int node_rank, int node_size,
                               qp_device_t **device);

#endif
