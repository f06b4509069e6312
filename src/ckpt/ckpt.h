/**
 * \file ckpt.h
 * Checkpoints: one HDF5 file, written collectively under a temporary name, checksummed, fsync'ed,
 * marked complete, renamed. Knows no model: owners register entries.
 */
#ifndef QP_CKPT_CKPT_H
#define QP_CKPT_CKPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"
#include "comm/comm.h"

/**
 * Version of the files. Who registers an entry that files of this version lack raises it by one and
 * tells qp_state_since(); files of all versions up to this one are read.
 */
enum { QP_CKPT_VERSION = 2 };

/**
 * One registered piece of state. The global array has \a n_global elements; this rank writes
 * [first, first + n_mine) (slabs of all ranks partition it; n_mine may be 0), and on restart every
 * rank gets the whole array. get() fills a host buffer with this rank's slab; put() receives
 * n_global elements.
 */
typedef struct {
    const char *name; /**< "adapter/param": becomes a data set under /state */
    qp_dtype_t dtype;
    int64_t n_global, first, n_mine;
    qp_error_t (*get)(void *owner, void *slab);
    qp_error_t (*put)(void *owner, const void *data);
    void *owner;
} qp_state_entry_t;

typedef struct qp_state qp_state_t; /**< the registry */

qp_state_t *qp_state_create(void);
void qp_state_register(qp_state_t *state, const qp_state_entry_t *entry);
/** Shorthand for host scalars that live as long as the registry: rank 0 writes, everyone reads. */
void qp_state_register_i64(qp_state_t *state, const char *name, int64_t *value);
void qp_state_register_f64(qp_state_t *state, const char *name, double *value);
/** Shorthand for a replicated host fp32 array: slabs are split evenly over ranks, everyone reads
 * all. */
void qp_state_register_f32(qp_state_t *state, qp_comm_t *comm, const char *name, float *data,
                           int64_t n);
/** Of the entry registered last: files before \a version lack it. Then it is not put, and what its
 * owner holds stands. */
void qp_state_since(qp_state_t *state, int64_t version);
/** Of the entry registered last: a program that does not know it may go on without it. It is marked
 * so in the file. */
void qp_state_ignorable(qp_state_t *state);
void qp_state_destroy(qp_state_t **state);

/** What a checkpoint says of itself besides the entries. */
typedef struct {
    int64_t step;            /**< completed optimiser steps */
    int64_t steps;           /**< of the whole run; -1: an older file does not say */
    const char *method;      /**< "sft" */
    uint64_t base_id;        /**< identity of the base file */
    uint64_t deck_hash;      /**< qp_deck_hash() */
    const char *fingerprint; /**< qp_deck_fingerprint() */
    const char *inputs;      /**< the files that the run reads: "role id name" lines, id in hex */
    const char *by_content;  /**< keys of the fingerprint, " " before and behind each, whose names
                                  may change, since \a inputs tells the contents */
    const char *at_default;  /**< keys of the fingerprint, likewise, that hold their default: what
                                  a file says that does not know them */
    const char *build;       /**< version and revision */
} qp_ckpt_info_t;

typedef struct {
    char *folder; /**< runs/<name>/checkpoints, owned by the caller */
    int64_t keep; /**< newest complete files kept */
} qp_ckpt_config_t;

/**
 * Writes <folder>/step-%06d.h5. Collective. On any rank's failure (full disk, ...) the temporary
 * file is removed, older checkpoints are untouched and every rank returns the same QP_IO error.
 * Afterwards removes complete checkpoints beyond \a keep, and stale temporaries.
 */
qp_error_t qp_ckpt_write(qp_comm_t *comm, const qp_ckpt_config_t *config,
                         const qp_ckpt_info_t *info, const qp_state_t *state);

/**
 * Finds the newest complete checkpoint (by completeness and its own step, not by name alone);
 * damaged ones are named in a warning and skipped. *path is NULL if there is none. Collective;
 * caller's (qp_free).
 */
qp_error_t qp_ckpt_latest(qp_comm_t *comm, const char *folder, char **path, int64_t *step);

/** The \a inputs that a file was made from: "" where an older file does not say. Caller's
 * (qp_free). Collective. */
qp_error_t qp_ckpt_inputs(qp_comm_t *comm, const char *path, char **inputs);

/** What is found of a checkpoint that belongs to a run. */
typedef struct {
    int64_t step, steps;  /**< as in qp_ckpt_info_t */
    double write_seconds; /**< how long the file took to be written; 0: it does not say */
} qp_ckpt_found_t;

/**
 * Whether a run may go on from a file: refuses another base or method, a deck that differs in keys
 * that may not change, naming each "path: was X, is Y", and other inputs, naming the first (all
 * QP_INPUT). A key that the file does not know, and that holds its default, differs in nothing. A
 * file from before inputs were kept is taken with a line in the log. Collective.
 */
qp_error_t qp_ckpt_check(qp_comm_t *comm, const char *path, const qp_ckpt_info_t *expected,
                         qp_ckpt_found_t *found);

/**
 * Restores every entry of a file that belongs to the run. Entries that the file lacks, unless it is
 * older than they are, and those in the file that nobody registered, unless they are marked, are
 * refused by name. An entry is put where it belongs once its
 * checksum was found right; after an error the state is of no use. Rank 0 alone reads, each byte
 * once. Collective.
 */
qp_error_t qp_ckpt_read(qp_comm_t *comm, const char *path, const qp_state_t *state, int64_t *step);

/** Full verification of one file (completeness and all checksums); not collective. */
qp_error_t qp_ckpt_verify(const char *path);

#endif
