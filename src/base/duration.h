/** \file duration.h  Times as batch systems and people write them. */
#ifndef QP_BASE_DURATION_H
#define QP_BASE_DURATION_H

#include <stdbool.h>

/**
 * Seconds from "300", "300.5", "5:00" (m:ss), "1:05:00" (h:mm:ss), "1-12" (days-hours), "1-12:30"
 * or "1-12:30:00": the forms of sbatch, but that a number alone is seconds, as PBS has it. Hours
 * behind days are below 24, minutes behind hours and seconds behind minutes below 60. False if it
 * is none of these.
 */
bool qp_duration_parse(const char *text, double *seconds);

#endif
