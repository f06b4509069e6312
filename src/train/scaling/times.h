/**
 * \file times.h
 * How long a job takes on a machine: a roofline for what ranks compute, messages and bytes for what
 * they exchange. Pure arithmetic. All times in seconds.
 */
#ifndef QP_TRAIN_SCALING_TIMES_H
#define QP_TRAIN_SCALING_TIMES_H

#include "train/scaling/work.h"

/** Ranks of a job, and of its fullest node. */
typedef struct {
    int64_t n_rank, n_node_rank;
} qp_layout_t;
/** So many ranks, node after node. */
qp_layout_t qp_layout(const qp_machine_t *machine, int64_t n_rank);
int64_t qp_layout_nodes(const qp_layout_t *layout);

/** What a rank has of its node: operations/s of each class, bytes/s, seconds of an op. */
typedef struct {
    double rate[QP_N_WORK];
    double rows, weights;
    double op;
} qp_speed_t;
/** \a fp32: the type of device.compute. Ranks beyond the processors share them, and all of them the
 * node's bandwidth. */
qp_speed_t qp_speed_of_rank(const qp_machine_t *machine, bool fp32, int64_t n_node_rank);
/** Roofline (Williams et al. 2009) class by class: the longer of operations / rate and bytes /
 * bandwidth; and for each op its least. */
double qp_speed_seconds(const qp_speed_t *speed, const qp_work_t *work);

/**
 * An all-to-all or all-gather in which each rank gets n_byte (N - 1) / N: as comm/tree.c and
 * cuda/nccl have them, to and from each rank directly. LogGP (Alexandrov et al. 1995): latency, a
 * gap for each of N - 1 messages, and the bytes: those within the node by each rank's own link,
 * those between nodes by what the node's ranks have together, at the same time.
 */
double qp_exchange_seconds(const qp_machine_t *machine, const qp_layout_t *layout, double n_byte);
/** An all-reduce of a word: 2 log2 N messages one after the other. */
double qp_agree_seconds(const qp_machine_t *machine, const qp_layout_t *layout);
/** The tree sum of n fp32 numbers, so many (chunk) at a time: two exchanges, and between them
 * N - 1 additions of a piece, 12 bytes each. */
double qp_sum_seconds(const qp_machine_t *machine, const qp_layout_t *layout,
                      const qp_speed_t *speed, double n, double chunk);

/** What backward finishes, from the top: parameters of the segments that are summed one by one. */
typedef struct {
    int64_t n_segment; /**< of layers, which take alike */
    double n_head;     /**< parameters of a scalar head, ready before the first layer; or 0 */
    double n_layer;    /**< parameters of each layer */
    double chunk;      /**< numbers summed at once */
} qp_sums_t;
/** How long after a backward of so many seconds the last sum is there, when each begins as soon as
 * its layer and the sum before are done. */
double qp_sums_exposed(const qp_machine_t *machine, const qp_layout_t *layout,
                       const qp_speed_t *speed, const qp_sums_t *sums, double backward);

/** Answers to queries; n_query 0: none. */
typedef struct {
    qp_work_model_t model;
    int64_t n_query;        /**< of all ranks */
    int64_t max_active;     /**< decoded together on a rank */
    double n_prompt, n_new; /**< tokens */
} qp_generation_t;

/** A step and what stands around it. */
typedef struct {
    qp_work_t leaf;          /**< a micro-batch, backward and sums in the local tree included */
    qp_work_t leaf_backward; /**< the part of it behind which sums over ranks hide */
    int64_t n_leaf;          /**< micro-batches of an update, of all ranks */
    int64_t n_update;        /**< updates of a step */
    int64_t n_value;         /**< numbers that a micro-batch says of itself */
    qp_work_t update;        /**< norm and optimiser */
    qp_sums_t sums;
    qp_generation_t generation;
    qp_work_t experience; /**< a micro-batch before the first update: PPO's passes and rewards */
    int64_t n_experience; /**< of them, of all ranks */
    double n_gathered;    /**< numbers of a step that all ranks get from each other */
    double n_token;       /**< of a step, as metrics.csv counts them */
    double load_bytes;    /**< that each node reads at the start */
    double checkpoint_bytes;
    int64_t n_step, checkpoint_every;
    bool fp32;
} qp_job_t;

typedef struct {
    double generate, experience, gradient, update; /**< of a step: what ranks compute */
    double communication;                          /**< of a step: what they wait for each other */
    double step;                                   /**< all of these */
    double load, checkpoint;                       /**< one of each */
    double run;                                    /**< the whole run, with both */
} qp_times_t;

/** Most micro-batches that a rank has of so many (qp_tree_range()). */
int64_t qp_most_leaves(int64_t n_leaf, int64_t n_rank);

qp_times_t qp_job_times(const qp_machine_t *machine, const qp_layout_t *layout,
                        const qp_job_t *job);

#endif
