/* Learning rates are those of transformers (tests/golden/make_schedules.py printed the table). */
#include <math.h>

#include "optim/optim.h"
#include "testing.h"

static const struct {
    int schedule;
    int64_t warmup_steps, steps;
    double lr[10];
} golden[] = {
    {QP_SCHEDULE_CONSTANT,
     3,
     10,
     {0, 6.666666666666667e-05, 0.00013333333333333334, 2e-4, 2e-4, 2e-4, 2e-4, 2e-4, 2e-4, 2e-4}},
    {QP_SCHEDULE_LINEAR,
     3,
     10,
     {0, 6.666666666666667e-05, 0.00013333333333333334, 2e-4, 0.00017142857142857143,
      0.00014285714285714287, 0.00011428571428571428, 8.5714285714285713e-05,
      5.7142857142857142e-05, 2.8571428571428571e-05}},
    {QP_SCHEDULE_COSINE,
     3,
     10,
     {0, 6.666666666666667e-05, 0.00013333333333333334, 2e-4, 0.00019009688679024191,
      0.00016234898018587337, 0.00012225209339563145, 7.7747906604368577e-05,
      3.7651019814126654e-05, 9.9031132097580962e-06}},
    {QP_SCHEDULE_LINEAR,
     0,
     7,
     {2e-4, 0.00017142857142857143, 0.00014285714285714287, 0.00011428571428571428,
      8.5714285714285713e-05, 5.7142857142857142e-05, 2.8571428571428571e-05}},
    {QP_SCHEDULE_COSINE,
     0,
     7,
     {2e-4, 0.00019009688679024191, 0.00016234898018587337, 0.00012225209339563145,
      7.7747906604368577e-05, 3.7651019814126654e-05, 9.9031132097580962e-06}},
    {QP_SCHEDULE_COSINE,
     7,
     7,
     {0, 2.8571428571428571e-05, 5.7142857142857142e-05, 8.5714285714285713e-05,
      0.00011428571428571428, 0.00014285714285714287, 0.00017142857142857143}},
};

int main(void)
{
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        const qp_optim_config_t config = {.lr = 2.0e-4,
                                          .schedule = golden[i].schedule,
                                          .warmup_steps = golden[i].warmup_steps,
                                          .steps = golden[i].steps};
        for (int64_t step = 0; step < golden[i].steps; step++) {
            double lr = qp_optim_lr(&config, step);
            CHECK_MSG(fabs(lr - golden[i].lr[step]) <= 1e-15 * 2.0e-4 + 1e-15 * lr,
                      "row %zu, step %lld: %.17g, expected %.17g", i, (long long)step, lr,
                      golden[i].lr[step]);
        }
    }
    return qp_test_end();
}
