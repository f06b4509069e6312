/** \file plot.h  Curves of metrics.csv files, drawn by gnuplot. */
#ifndef QP_TRAIN_REPORT_PLOT_H
#define QP_TRAIN_REPORT_PLOT_H

#include "base/error.h"

/**
 * Draws what metrics of one or more runs have of rewards, KL, losses, accuracies, lengths, gradient
 * norm, learning rate and speed (the first six of them) into \a output
 * (.svg or .png). No gnuplot: QP_INPUT. Rank-local.
 */
qp_error_t qp_plot(const char *const *metrics, int n_metrics, const char *output);

/** The same at the end of a run: what goes wrong is only logged, for the run itself is good. */
void qp_plot_try(const char *const *metrics, int n_metrics, const char *output);

#endif
