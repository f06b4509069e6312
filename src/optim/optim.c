#include "optim/optim.h"

#include <math.h>

#include "base/mem.h"

size_t qp_optim_bytes(int64_t n)
{
    return 2 * qp_budget_piece(qp_bytes(n, sizeof(float)));
}

qp_error_t qp_optim_create(qp_device_t *device, int64_t n, qp_optim_t **optim)
{
    qp_optim_t *o = QP_NEW("optimiser", qp_optim_t, 1);
    qp_dptr_t *const moment[] = {&o->m, &o->v};
    qp_error_t error = NULL;
    o->device = device;
    o->n = n;
    for (int i = 0; i < 2; i++) {
        QP_TRY_DONE(device->ops->alloc(device, "optimiser", qp_bytes(n, sizeof(float)), moment[i]));
        QP_TRY_DONE(
            device->ops->zero(qp_device_queue(device), *moment[i], qp_bytes(n, sizeof(float))));
    }
done:
    if (error != NULL)
        qp_optim_destroy(&o);
    *optim = o;
    return error;
}

void qp_optim_destroy(qp_optim_t **optim)
{
    qp_optim_t *o = *optim;
    if (o == NULL)
        return;
    o->device->ops->release(o->device, &o->m);
    o->device->ops->release(o->device, &o->v);
    QP_FREE(*optim);
}

qp_error_t qp_optim_step(qp_optim_t *optim, const qp_optim_config_t *config, int64_t step,
                         qp_dptr_t param, qp_dptr_t copy_bf16, qp_dptr_t grad, double *grad_norm,
                         bool *skipped)
{
    const qp_ops_t *ops = optim->device->ops;
    qp_queue_t *q = qp_device_queue(optim->device);
    double sum;
    QP_TRY(ops->sum_squares(q, grad, optim->n, &sum));
    *grad_norm = sqrt(sum);
    *skipped = !isfinite(*grad_norm);
    if (*skipped)
        return NULL;
    double scale = 1.0;
    if (config->max_grad_norm > 0.0)
        scale = fmin(1.0, config->max_grad_norm / (*grad_norm + 1e-6));
    const qp_adamw_t hyper = {
        .lr = qp_optim_lr(config, step),
        .beta1 = config->beta1,
        .beta2 = config->beta2,
        .eps = config->eps,
        .weight_decay = config->weight_decay,
        .grad_scale = (float)scale,
        .step = optim->n_update + 1,
    };
    QP_TRY(ops->adamw(q, param, copy_bf16, grad, optim->m, optim->v, optim->n, &hyper));
    optim->n_update++;
    return NULL;
}
