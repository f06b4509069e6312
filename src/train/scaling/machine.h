/**
 * \file machine.h
 * A machine that a run is planned for: what its data sheets say, and what share of that the program
 * reaches. Its file is read as a deck is.
 */
#ifndef QP_TRAIN_SCALING_MACHINE_H
#define QP_TRAIN_SCALING_MACHINE_H

#include "deck/deck.h"

/** Classes of work, by what holds them up on a processor. */
typedef enum {
    QP_WORK_INT8,      /**< products with frozen weights, both operands int8 */
    QP_WORK_FLOAT,     /**< the same in the type of device.compute */
    QP_WORK_ADAPTER,   /**< products of LoRA matrices */
    QP_WORK_ATTENTION, /**< scores and sums of values, of the pairs that are not masked */
    QP_WORK_HEAD,      /**< LM head in the type of device.compute */
    QP_WORK_ROWS,      /**< element by element: norms, rotary positions, residuals, SwiGLU, AdamW */
    QP_N_WORK
} qp_work_class_t;

typedef struct {
    const char *name;
    int64_t nodes;
} qp_machine_whole_t;

typedef struct {
    int64_t processors; /**< each is for one rank */
    int64_t ranks;      /**< of a node; more than processors share them. 0: as many */
    double memory;      /**< GB that a job can use */
    double bandwidth;   /**< GB/s of all its processors together; 0: no limit of its own */
    double latency;     /**< us from rank to rank */
    double link;        /**< GB/s of a rank to others of its node */
} qp_machine_node_t;

typedef enum { QP_PROCESSOR_CPU, QP_PROCESSOR_CUDA } qp_processor_kind_t;

typedef struct {
    int kind;                /**< qp_processor_kind_t */
    int64_t cores;           /**< of a CPU */
    double int8, bf16, fp32; /**< 10^12 operations/s; bf16 0: it has none */
    double memory;           /**< GB of a GPU */
    double bandwidth;        /**< GB/s to its memory */
} qp_machine_processor_t;

typedef struct {
    double latency;   /**< us from node to node */
    double bandwidth; /**< GB/s of a node, in each direction */
    double message;   /**< us that a rank needs for each message beside its bytes */
} qp_machine_network_t;

typedef struct {
    double read, write;         /**< GB/s of a node */
    double read_all, write_all; /**< GB/s of all nodes together; 0: no limit */
} qp_machine_storage_t;

/** Shares of the processor's figures; 0: qp_machine_complete() fills them in. */
typedef struct {
    double int8, float_, adapter, attention, head; /**< of its operations/s */
    double rows, weights; /**< of its bandwidth: by elementwise work; by products of few rows */
    double op;            /**< us that an op takes at least */
    double wait;          /**< us until a rank sees that an exchange is done */
} qp_machine_reached_t;

typedef struct {
    qp_machine_whole_t machine;
    qp_machine_node_t node;
    qp_machine_processor_t processor;
    qp_machine_network_t network;
    qp_machine_storage_t storage;
    qp_machine_reached_t reached;
    qp_deck_t *deck; /**< owns the strings; NULL: static ones */
} qp_machine_t;

/** Schema of a machine's file, for its help. Static. */
const qp_deck_group_t *const *qp_machine_groups(int *n_group);
/** Whether a "path=value" of --set is for the machine and not for the deck. */
bool qp_machine_takes(const char *set);

/** Reads, checks and completes a machine's file. All problems that the schema can see come in one
 * QP_INPUT error. Rank-local. */
qp_error_t qp_machine_read(const char *path, const char *const *sets, int n_set,
                           qp_machine_t *machine);
void qp_machine_fini(qp_machine_t *machine);

/**
 * Fills in what is 0 and has a default: ranks of a node, bandwidth of a node, shares. Those of a
 * CPU are this program's own, measured (doc/performance.md); those of a GPU were confirmed by no
 * card and stand for what other programs reach.
 */
void qp_machine_complete(qp_machine_t *machine);

/** Deck lines that plan a run for its processors: "device.backend=cpu" and so on (qp_free). */
char *qp_machine_deck_lines(const qp_machine_t *machine);

#endif
