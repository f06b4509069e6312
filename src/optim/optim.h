/**
 * \file optim.h
 * AdamW on one flat array, gradient clipping and learning-rate schedules.
 */
#ifndef QP_OPTIM_OPTIM_H
#define QP_OPTIM_OPTIM_H

#include "compute/ops.h"
#include "deck/deck.h"

typedef enum { QP_SCHEDULE_CONSTANT, QP_SCHEDULE_LINEAR, QP_SCHEDULE_COSINE } qp_schedule_t;

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    double max_grad_norm; /**< 0: off */
    int schedule;         /**< qp_schedule_t: "constant|linear|cosine" */
    int64_t warmup_steps, steps;
} qp_optim_config_t;

extern const qp_deck_group_t qp_optim_deck;

/** Learning rate of 0-based step, as transformers' get_*_schedule_with_warmup. */
double qp_optim_lr(const qp_optim_config_t *config, int64_t step);

/** First and second moments of a flat fp32 array of n parameters on a device. */
typedef struct {
    qp_device_t *device;
    int64_t n;
    int64_t n_update; /**< updates done (bias correction) */
    qp_dptr_t m, v;   /**< [n] fp32 */
} qp_optim_t;

/** Bytes that create() takes on the device; for the memory plan. */
size_t qp_optim_bytes(int64_t n);
qp_error_t qp_optim_create(qp_device_t *device, int64_t n, qp_optim_t **optim);
void qp_optim_destroy(qp_optim_t **optim);

/**
 * One update at 0-based \a step with clipping to max_grad_norm (torch's clip_grad_norm_: scale =
 * min(1, max / (norm + 1e-6))). *grad_norm gets the norm before clipping; when it is not finite
 * nothing is changed and *skipped is true. Rank-local: ranks with the same bits in make the same
 * bits.
 */
qp_error_t qp_optim_step(qp_optim_t *optim, const qp_optim_config_t *config, int64_t step,
                         qp_dptr_t param, qp_dptr_t copy_bf16, qp_dptr_t grad, double *grad_norm,
                         bool *skipped);

#endif
