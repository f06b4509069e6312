/**
 * \file quipu-plot.c
 * Curves of one or more runs, side by side, as SVG or PNG.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/program.h"
#include "train/report/plot.h"

static const char usage[] =
    "usage: quipu-plot METRICS.CSV... -o CURVES.SVG|CURVES.PNG\n"
    "\n"
    "Draws loss, gradient norm, learning rate and speed of one or more runs with gnuplot.\n"
    "\n"
    "  -o FILE    where to; the ending says which kind\n"
    "  --version  version and revision\n"
    "  --help     this text\n"
    "\n"
    "Exit codes: 0 done; 2 wrong input or no gnuplot; 3 I/O failed.\n";

typedef struct {
    const char **metrics; /* [n_metrics] */
    int n_metrics;
    const char *output;
} arguments_t;

static qp_error_t parse(int argc, char **argv, arguments_t *arguments)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-o") == 0 && i + 1 < argc)
            arguments->output = argv[++i];
        else if (argv[i][0] == '-')
            return QP_ERROR(QP_INPUT, "%s: no such option, or its value is missing; see --help",
                            argv[i]);
        else
            arguments->metrics[arguments->n_metrics++] = argv[i];
        QP_TRY(qp_program_check_name(argv[i]));
    }
    if (arguments->n_metrics == 0 || arguments->output == NULL)
        return QP_ERROR(QP_INPUT, "metrics.csv files and -o FILE are expected; see --help");
    return NULL;
}

int main(int argc, char **argv)
{
    if (qp_program_answers("quipu-plot", usage, argc, argv))
        return QP_OK;
    arguments_t arguments = {.metrics = QP_NEW("arguments", const char *, argc)};
    qp_error_t error = parse(argc, argv, &arguments);
    if (error == NULL)
        error = qp_plot(arguments.metrics, arguments.n_metrics, arguments.output);
    qp_free(arguments.metrics);
    return qp_mem_exit_code(qp_error_report(&error));
}
