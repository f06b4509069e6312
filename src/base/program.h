/** \file program.h  What the tools have in common before their work: help, version, options. */
#ifndef QP_BASE_PROGRAM_H
#define QP_BASE_PROGRAM_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/** True if --help (-h) or --version is among the arguments; then it has been answered on stdout. */
bool qp_program_answers(const char *name, const char *usage, int argc, char **argv);

/** A name of a file with a newline or another control character: QP_INPUT. */
qp_error_t qp_program_check_name(const char *argument);

/** The value of --\a option as an integer in [min, max], in decimal digits; else QP_INPUT naming
 * it. */
qp_error_t qp_program_integer(const char *option, const char *text, int64_t min, int64_t max,
                              int64_t *value);
/** As a number in [min, max]. */
qp_error_t qp_program_number(const char *option, const char *text, double min, double max,
                             double *value);

/**
 * The next option: its number in \a options, its value in optarg; -1: there is none left, and
 * optind is the first argument that is none. "--name=value" and "--name value" are the same.
 * Unknown (with the nearest name) or without its value: QP_INPUT.
 */
qp_error_t qp_program_next(const char *name, const struct option *options, int argc, char **argv,
                           int *option);

/**
 * Hands every option to \a take, its value in optarg; afterwards optind is the first argument that
 * is none. Unknown, without its value, or with control characters: QP_INPUT naming it.
 */
qp_error_t qp_program_options(const char *name, const struct option *options, int argc, char **argv,
                              qp_error_t (*take)(void *owner, int option), void *owner);

#endif
