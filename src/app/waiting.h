/** \file waiting.h  How threads and ranks wait for one another. */
#ifndef QP_APP_WAITING_H
#define QP_APP_WAITING_H

/**
 * Makes waits short unless the user has chosen: GNU's OpenMP spins for many milliseconds at a
 * barrier, and an MPI rank for ever, so that any other load on the machine makes a step several
 * times slower. Both read the environment before main() runs or at MPI_Init(), so the program
 * starts itself once more with what it wants there; where it cannot, all stays as it was.
 */
void qp_waiting_set(char **argv);

#endif
