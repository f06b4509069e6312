/**
 * \file output.h
 * Whether what is going to be written can be, asked before the work that it takes. What stands
 * under a name and does not belong there: QP_INPUT; no place, or no right to write: QP_IO. Both
 * name the path and what is in the way. Nothing is left behind. Not collective.
 */
#ifndef QP_BASE_OUTPUT_H
#define QP_BASE_OUTPUT_H

#include "base/error.h"

/** A file of this name can be made or replaced: nothing else stands there, no link to nowhere, and
 * its folder is there and can be written to. */
qp_error_t qp_output_check_file(const char *path);

/** The same of a folder, which may be there, or be made with all that it lies in. */
qp_error_t qp_output_check_folder(const char *path);

/** Something can be made beside this name: its folder is there and can be written to. */
qp_error_t qp_output_check_beside(const char *path);

#endif
