#include "compute/cpu/cpu.h"

void qp_cpu_keep_error(qp_error_t *first, qp_error_t error)
{
    if (error == NULL)
        return;
#pragma omp critical(qp_cpu_keep_error)
    {
        if (*first == NULL)
            *first = error;
        else
            qp_error_destroy(&error);
    }
}
