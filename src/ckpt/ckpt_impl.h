/** \file ckpt_impl.h  The registry, and what the verbs share; for the sources of this folder. */
#ifndef QP_CKPT_CKPT_IMPL_H
#define QP_CKPT_CKPT_IMPL_H

#include "ckpt/ckpt.h"
#include "h5/h5.h"

#define QP_CKPT_IGNORABLE "ignorable" /**< attribute of a data set; its value does not matter */
#define QP_CKPT_TEMPORARY ".part"     /**< behind the final name while a file is being written */

typedef struct {
    qp_state_entry_t is; /**< its name is owned: "/state/<name>" */
    bool scalar;         /**< one element, written by rank 0 */
    int64_t since;       /**< files before this version lack it */
    bool ignorable;
    void *shorthand; /**< owner made by a shorthand, or NULL */
} qp_state_item_t;

struct qp_state {
    int64_t n_item, capacity;
    qp_state_item_t *item;
};

/** Opens a file by this process alone and checks that it is a complete checkpoint. */
qp_error_t qp_ckpt_open(const char *path, qp_h5_t **file, int64_t *step);

/** Rank-local: removes complete checkpoints but the \a keep newest and \a latest, and stale
 * temporaries. */
void qp_ckpt_rotate(const char *folder, int64_t keep, const char *latest);

#endif
