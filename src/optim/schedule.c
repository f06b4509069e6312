#include <math.h>

#include "optim/optim.h"

static double at_least_one(int64_t n)
{
    return n > 1 ? (double)n : 1.0;
}

/* Share of lr after the warm-up, by progress in [0, 1] from the end of the warm-up to the last
 * step. */
static double decay(int schedule, double progress)
{
    const double pi = 3.14159265358979323846;
    switch ((qp_schedule_t)schedule) {
    case QP_SCHEDULE_CONSTANT:
        return 1.0;
    case QP_SCHEDULE_LINEAR:
        return fmax(0.0, 1.0 - progress);
    case QP_SCHEDULE_COSINE:
        return fmax(0.0, 0.5 * (1.0 + cos(pi * progress)));
    }
    return 1.0;
}

double qp_optim_lr(const qp_optim_config_t *config, int64_t step)
{
    int64_t warmup = config->warmup_steps;
    if (step < warmup)
        return config->lr * (double)step / at_least_one(warmup);
    return config->lr *
           decay(config->schedule, (double)(step - warmup) / at_least_one(config->steps - warmup));
}
