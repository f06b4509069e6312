/** \file inspect.h  The parts of quipu-inspect. Text goes to stdout. */
#ifndef QP_INSPECT_INSPECT_H
#define QP_INSPECT_INSPECT_H

#include <stdbool.h>

#include "h5/h5.h"

/**
 * Tells folders from HDF5 files. Anything else, and what cannot be opened: QP_INPUT that says what
 * it is; a pipe is not waited for.
 */
qp_error_t qp_inspect_kind(const char *path, bool *is_folder);
/** The same where only an HDF5 file will do. */
qp_error_t qp_inspect_check_h5(const char *path);

/** What kind of root attribute it is: decides how it is read and written out. */
typedef enum { QP_SHOW_TEXT, QP_SHOW_NUMBER, QP_SHOW_HEX } qp_show_t;

/** The root attributes of Quipu's formats, in the order they are shown; ends with a NULL name. */
typedef struct {
    const char *name;
    qp_show_t show;
} qp_root_attribute_t;
extern const qp_root_attribute_t qp_root_attributes[];

/** An attribute as text (qp_free); NULL if the file does not have it. */
qp_error_t qp_root_attribute_text(const qp_h5_t *file, const qp_root_attribute_t *attribute,
                                  char **text);

/** Prints a Quipu HDF5 file: its kind, root attributes, and (\a tensors) every data set. */
qp_error_t qp_show_h5(const char *path, bool tensors);
/** Re-computes all checksums of a Quipu HDF5 file; for checkpoints completeness too. */
qp_error_t qp_verify_h5(const char *path);

/** The same for a PEFT adapter folder, shown as far as it can be read and refused as by a run;
 * verifying means that all numbers are finite. */
qp_error_t qp_show_adapter(const char *folder, bool tensors);
qp_error_t qp_verify_adapter(const char *folder);

/** Prints the samples of a shard as rows of JSON, with the tokenizer of a base. Its checksums are
 * verified before. */
qp_error_t qp_show_text(const char *path, const char *base);

/** Prints how two Quipu HDF5 files differ. *same is false if they do. */
qp_error_t qp_diff_h5(const char *path_a, const char *path_b, bool *same);

/** Shows how a run in its folder is going, until it has ended; once where stdout is no terminal. */
qp_error_t qp_watch(const char *folder);

#endif
