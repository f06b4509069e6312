/**
 * \file data.h
 * Sharded data sets of token sequences, the keyed order of an epoch, packing into rows, and ragged
 * batches prefetched while the step computes.
 *
 * Words: a *sample* is what the shard stores (one text, or a chosen/rejected pair); a *sequence* is
 * a run of tokens with its own positions; a *row* holds one or more sequences, at most seq_length
 * tokens; a global batch is global_sequences rows, a micro-batch micro_sequences rows.
 */
#ifndef QP_DATA_DATA_H
#define QP_DATA_DATA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/eos.h"
#include "base/error.h"
#include "comm/comm.h"
#include "deck/deck.h"

/* --- shard files ------------------------------------------------------------------------------ */

/*
 * Written by quipu-prep; format "shard", version 1. Root attributes: kind "sft" | "reward" |
 * "prompt", tokenizer_id, n_vocab (every id is below it), sequences_per_sample (1, or 2 for reward:
 * chosen then rejected), n_sample, source (text), max_token_id (not in an empty shard) and
 * n_without_loss (samples with a sequence of which no token but the first counts in the completion
 * loss); older shards have neither of the last two.
 *
 *   /tokens  int32 [n_token]         all sequences one after another, BOS/EOS included
 *   /loss    uint8 [n_token]         1: a completion token (counts in the completion loss)
 *   /offsets int64 [n_sequence + 1]  into /tokens
 *   /id      int64 [n_sample]        id of the question (or number of the input row)
 *   /margin  fp32  [n_sample]        reward only: difference of the scores (1 without scores)
 *
 * Each with its checksum. No sequence is empty; sft and reward sequences end with EOS (if the
 * tokenizer has one). A shard may hold no sample at all.
 */

typedef struct {
    const char *kind; /**< "sft", "reward" or "prompt" */
    uint64_t tokenizer_id;
    int64_t n_vocab;
    int64_t sequences_per_sample;
} qp_shard_info_t;

/**
 * Writer of one shard: serial (one rank). Tokens wait in an unlinked file beside the shard, so
 * memory holds offsets and ids only; the shard itself appears under its name complete or not at
 * all.
 */
typedef struct qp_shard_writer qp_shard_writer_t;
/** What can be said of a shard's place before there is anything to write: qp_output_check_file().
 */
qp_error_t qp_shard_writer_check(const char *path);
qp_error_t qp_shard_writer_create(const char *path, const qp_shard_info_t *info, const char *source,
                                  qp_shard_writer_t **writer);
/** Appends a sample of info->sequences_per_sample sequences. loss may be NULL (all 1). */
qp_error_t qp_shard_writer_add(qp_shard_writer_t *writer, int64_t id, float margin,
                               const int32_t *const *tokens, const uint8_t *const *loss,
                               const int64_t *n_token);
/**
 * Writes the whole shard under a temporary name and fsyncs: all that can fail but the renaming.
 * Several writers (of several ranks) finish and agree before any of them commits.
 */
qp_error_t qp_shard_writer_finish(qp_shard_writer_t *writer);
/** Finishes if that was not done, and renames; destroys the writer on success and failure. */
qp_error_t qp_shard_writer_commit(qp_shard_writer_t **writer);
/** Removes what was written and destroys the writer; NULL is allowed. */
void qp_shard_writer_abandon(qp_shard_writer_t **writer);

/* --- data sets -------------------------------------------------------------------------------- */

typedef struct qp_dataset qp_dataset_t;

/**
 * Opens all shards that match the patterns (globs; sorted by name, each file once), which are of
 * one kind: the given one, or with NULL that of the first shard (qp_dataset_kind). Collective;
 * offsets and margins of all samples are read once and held by every rank. Checksums are verified
 * here, the shards shared out over the ranks, except those above QP_SHARD_VERIFY_BYTES
 * (quipu-inspect --verify does those). Another kind or tokenizer, damage, nothing found: QP_INPUT.
 */
enum { QP_SHARD_VERIFY_BYTES = 256 << 20 };
qp_error_t qp_dataset_open(qp_comm_t *comm, const qp_deck_strings_t *patterns, const char *kind,
                           uint64_t tokenizer_id, qp_dataset_t **dataset);
void qp_dataset_close(qp_dataset_t **dataset);

/** What a run is going to do with a data set. */
typedef struct {
    int64_t n_vocab;      /**< of the smallest model that reads it */
    bool learns;          /**< tokens are predicted: sft and dpo */
    bool completion_only; /**< and only those of completions */
} qp_dataset_use_t;
/**
 * A token id that a model does not have, or nothing to learn in any sample: QP_INPUT naming the
 * place; how many samples have nothing to learn is logged. Reads the shards that do not tell
 * (older ones). \a what stands in front ("data.train"). Collective.
 */
qp_error_t qp_dataset_check(qp_comm_t *comm, const qp_dataset_t *dataset,
                            const qp_dataset_use_t *use, const char *what);
/** Appends a line "role id path" for each shard, in their order: what a checkpoint keeps of them.
 */
void qp_dataset_inputs(const qp_dataset_t *dataset, const char *role, qp_str_t *lines);
/**
 * Puts the shards into the order of such lines, so that samples keep their numbers where files were
 * renamed; left alone where they are not the same shards. Before a plan is made. Rank-local.
 */
void qp_dataset_arrange(qp_dataset_t *dataset, const char *role, const char *lines);
/** "sft", "reward" or "prompt"; the data set's own. */
const char *qp_dataset_kind(const qp_dataset_t *dataset);
int64_t qp_dataset_n_sample(const qp_dataset_t *dataset);
int64_t qp_dataset_n_token(const qp_dataset_t *dataset);
int64_t qp_dataset_sequences_per_sample(const qp_dataset_t *dataset);
/** Tokens of the longest sequence in it. */
int64_t qp_dataset_longest(const qp_dataset_t *dataset);
/** Margin of pair i (global index): by how much the chosen sequence is better; 0 without pairs. */
float qp_dataset_margin(const qp_dataset_t *dataset, int64_t i);
/** Runs of tokens read from the files so far: for tests of what a resumed run does not read. */
int64_t qp_dataset_n_read(const qp_dataset_t *dataset);
/** Reads sample i (global index): *tokens and *loss (qp_free), n_token [sequences_per_sample].
 * Rank-local. */
qp_error_t qp_dataset_read(const qp_dataset_t *dataset, int64_t i, int32_t **tokens, uint8_t **loss,
                           int64_t *n_token);

/** Keyed bijection of [0, n): Feistel network on Philox, cycle walking (Black, Rogaway 2002). */
int64_t qp_permute(uint32_t seed, uint32_t epoch, int64_t n, int64_t i);

/* --- packing and batches ---------------------------------------------------------------------- */

/**
 * - isolated: samples in permuted order, those longer than seq_length split into pieces, each piece
 *   into the fullest row that still has room (best fit); every piece is a sequence of its own.
 * - contaminated: as TRL packs: permuted samples one after another (each ends with EOS), cut every
 *   seq_length tokens, the remainder of the epoch dropped; a row is one sequence.
 * - none: one sample a row (chosen and rejected together), each sequence cut at seq_length.
 */
typedef enum { QP_PACK_ISOLATED, QP_PACK_CONTAMINATED, QP_PACK_NONE } qp_packing_t;

/**
 * Samples of which any sequence is longer than seq_length.
 * - cut: as the packing says (none cuts, the others split). Prompts refuse it: half a question asks
 *   something else.
 * - drop: left out whole, in every packing.
 * - auto: drop for pairs, as TRL does (the end of an answer is where it is rated), and for prompts;
 *   else cut.
 */
typedef enum { QP_OVERLONG_AUTO, QP_OVERLONG_CUT, QP_OVERLONG_DROP } qp_overlong_t;

typedef struct {
    qp_deck_strings_t train, eval; /**< glob patterns of shards */
    int64_t seq_length;
    int packing;          /**< qp_packing_t: "isolated|contaminated|none" */
    int overlong;         /**< qp_overlong_t: "auto|cut|drop" */
    bool completion_only; /**< loss on completion tokens only */
    bool shuffle;
    int64_t eval_rows; /**< 0: all */
} qp_data_config_t;

typedef struct {
    int64_t global_sequences; /**< rows per optimiser step over all ranks */
    int64_t micro_sequences;  /**< rows per forward/backward */
} qp_batch_config_t;

extern const qp_deck_group_t qp_data_deck, qp_batch_deck;

/**
 * A ragged micro-batch in host memory; all arrays owned by it and re-used by the loader. The
 * identity of a sequence is the place of its first token in the global batch (row * tokens of a row
 * + token in the row): no two of a step are equal, and it does not depend on ranks or
 * micro-batches. Of pairs, sequences 2i and 2i + 1 are the chosen and the rejected one of a sample.
 */
typedef struct {
    int64_t n_token, n_seq;
    int32_t *token;      /**< [n_token] */
    int32_t *target;     /**< [n_token] next token, -1 where nothing is predicted or counted */
    int32_t *position;   /**< [n_token] from 0 in each sequence */
    uint32_t *sample;    /**< [n_token] random-number identity of its sequence: see above */
    uint8_t *completion; /**< [n_token] 1: the token belongs to a completion */
    int32_t *cu_seqlens; /**< [n_seq + 1] */
    float *margin;       /**< [n_seq] of the pair that a sequence belongs to; 0 without pairs */
    int64_t n_target;    /**< counted targets */
} qp_batch_t;

/**
 * Rows of one epoch: a function of (data set, config, seed, epoch) alone; the same on all ranks. A
 * data set too small for one row, all of it too long, or a config that does not go with its kind:
 * QP_INPUT. eos is only used to check what contaminated packing relies on: that each sample ends
 * with one of them, where there are any. Not collective.
 */
typedef struct qp_plan qp_plan_t;
qp_error_t qp_plan_create(const qp_dataset_t *dataset, const qp_data_config_t *config,
                          const qp_eos_t *eos, uint32_t seed, uint32_t epoch, qp_plan_t **plan);
void qp_plan_destroy(qp_plan_t **plan);
int64_t qp_plan_n_row(const qp_plan_t *plan);
/** Samples left out (overlong), samples that packing "none" cut, and tokens that are in no row. */
int64_t qp_plan_n_left_out(const qp_plan_t *plan);
int64_t qp_plan_n_cut(const qp_plan_t *plan);
int64_t qp_plan_n_dropped(const qp_plan_t *plan);
/** Logs each of these that is not 0 in a line that begins with \a what ("data.train"). */
void qp_plan_log(const qp_plan_t *plan, const qp_dataset_t *dataset, const qp_data_config_t *config,
                 const char *what);

/**
 * The stream of global batches. Step s (0-based) takes rows [s * global, (s + 1) * global) of the
 * endless sequence of epochs (an epoch's last rows that do not fill a batch join the next epoch's
 * first). Each rank gets its micro-batches by qp_tree_range(). A thread reads ahead. Creating one
 * at first_step > 0 plans the epochs before it but reads none of their tokens. What an epoch leaves
 * out or cuts is logged. Fewer rows in an epoch than global_sequences: QP_INPUT. Collective; the
 * data set must outlive it.
 */
typedef struct qp_loader qp_loader_t;
qp_error_t qp_loader_create(qp_comm_t *comm, const qp_dataset_t *dataset,
                            const qp_data_config_t *config, const qp_batch_config_t *batch,
                            const qp_eos_t *eos, uint32_t seed, int64_t first_step,
                            qp_loader_t **loader);
void qp_loader_destroy(qp_loader_t **loader);

/** The micro-batches of this rank for one step; valid until the next call. */
typedef struct {
    int64_t step;        /**< 0-based */
    double epoch;        /**< progress in epochs at its end */
    int64_t first_micro; /**< global index of this rank's first micro-batch */
    int64_t n_micro;     /**< of this rank (may be 0) */
    const qp_batch_t *micro;
    int64_t n_target_global; /**< counted targets of the whole global batch */
    int64_t n_token_global;
} qp_step_batch_t;
/** Next step's batch; waits for the reader. Collective (sums the counts; agrees on read errors). */
qp_error_t qp_loader_next(qp_loader_t *loader, qp_step_batch_t *batch);

/**
 * Evaluation: calls visit(owner, batch) for each of this rank's micro-batches of the plan's first
 * n_row rows (0: all), in order. Not collective; the caller reduces.
 */
qp_error_t qp_plan_visit(qp_comm_t *comm, const qp_dataset_t *dataset, const qp_plan_t *plan,
                         int64_t micro_sequences, int64_t n_row,
                         qp_error_t (*visit)(void *owner, const qp_batch_t *batch), void *owner);

#endif
