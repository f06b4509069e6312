/**
 * \file accumulate.h
 * The gradient of a global batch: micro-batches are the leaves of one fixed binary tree (comm.h),
 * so the sum has the same bits on 1, 2, 4, ... ranks. The last local micro-batch's layers go to the
 * other ranks as soon as their backward is done.
 */
#ifndef QP_TRAIN_MICRO_ACCUMULATE_H
#define QP_TRAIN_MICRO_ACCUMULATE_H

#include "comm/comm.h"
#include "model/pass/pass.h"

typedef struct qp_accumulator qp_accumulator_t;

/** Device bytes for this rank's share of n_leaf leaves; host bytes, if that is another memory. */
size_t qp_accumulator_bytes(const qp_device_t *device, int n_rank, int64_t n_leaf, int64_t n_param);
size_t qp_accumulator_host_bytes(const qp_device_t *device, int n_rank, int64_t n_param);

/** For gradients of \a adapter over up to n_leaf leaves per step. Collective. */
qp_error_t qp_accumulator_create(qp_comm_t *comm, qp_adapter_t *adapter, int64_t n_leaf,
                                 qp_accumulator_t **accumulator);
void qp_accumulator_destroy(qp_accumulator_t **accumulator);

/**
 * Adds the gradient of local micro-batch i (0-based on this rank) to adapter->grad. It must hand
 * \a pass to the model's backward (seed and step are set by the caller, layer_done by the
 * accumulator).
 */
typedef qp_error_t (*qp_leaf_t)(void *owner, int64_t i, const qp_pass_t *pass);

/**
 * Runs this rank's leaves and leaves the global sum in adapter->grad on every rank. Collective; a
 * leaf's error is returned on its own rank only, after all ranks have taken part (the sum is then
 * worthless): agree on it.
 */
qp_error_t qp_accumulate(qp_accumulator_t *accumulator, int64_t n_leaf, const qp_pass_t *pass,
                         qp_leaf_t leaf, void *owner);

/** n_value doubles of each leaf of a batch; their totals do not depend on the rank count. */
typedef struct {
    int64_t n_leaf, n_value;
    double *value; /**< [n_leaf, n_value]; this rank fills its own leaves */
} qp_leaf_values_t;

/** Room for up to n_leaf leaves. */
void qp_leaf_values_init(qp_leaf_values_t *values, int64_t n_leaf, int64_t n_value);
void qp_leaf_values_fini(qp_leaf_values_t *values);
/** Zeroes all. */
void qp_leaf_values_clear(qp_leaf_values_t *values);
double *qp_leaf_values_at(qp_leaf_values_t *values, int64_t leaf);
/** total [n_value] = sums over all leaves in their order, the same bits everywhere. Collective. */
void qp_leaf_values_total(qp_comm_t *comm, qp_leaf_values_t *values, double *total);

#endif
