/**
 * \file base_file.h
 * base.h5: weights, scales, config and tokenizer of a model in one file. Format "base", version 2;
 * version 1 where lm_head is not int8, which is all that differs.
 *
 * Root attributes: precision "int8" | "llm_int8" | "bf16" | "fp32"; lm_head "int8", or absent:
 * it is as embeddings are; config (JSON text of
 * qp_llama_config_t, names as in HF config.json; eos_token_id is a list where there are several);
 * base_id (XXH3 over all data-set checksums in name order, as hex text); source (what it was
 * imported from). Each data set has its checksum:
 *
 * - /tensors/<HF name>, e.g. model.layers.0.self_attn.q_proj.weight: row-major [n_out, n_in] as in
 *   HF. Linears: int8 (int8 kinds; columns rotated in "int8"), bf16 or fp32. Embeddings: bf16, or
 *   fp32 in an fp32 base. lm_head.weight: the same, and absent when tied; or int8 with rotated
 *   columns, tied or not. Norms and biases: fp32.
 * - /tensors/<HF name>_scale: [n_out] fp32, absmax/127 of each row; of what is int8.
 * - /score/weight: [n_score, d_model] fp32; head of a merged reward model only.
 * - /tokenizer/kind, model, config: as qp_tokenizer_files_t.
 * - /generation_config: the text of generation_config.json, where the model had one.
 */
#ifndef QP_MODEL_BASE_BASE_FILE_H
#define QP_MODEL_BASE_BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/eos.h"
#include "base/error.h"
#include "compute/ops.h"
#include "h5/h5.h"
#include "model/llama/llama.h"
#include "text/tokenizer.h"

/** The precision of a base is the kind of its linears: "fp32", "bf16", "int8" or "llm_int8". */
const char *qp_precision_name(qp_weight_kind_t precision);
qp_error_t qp_precision_parse(const char *name, qp_weight_kind_t *precision);

/** Kinds of the weights of a base. */
typedef struct {
    qp_weight_kind_t linear;  /**< its precision */
    qp_weight_kind_t lm_head; /**< QP_WEIGHT_INT8, or as embeddings are */
} qp_base_kinds_t;
/** With a head as embeddings are: bf16, or fp32 in an fp32 base. */
qp_base_kinds_t qp_base_kinds(qp_weight_kind_t precision);
/** What an import makes: lm_head is "int8" or what embeddings are; NULL: the latter. */
qp_error_t qp_base_kinds_choose(qp_weight_kind_t precision, const char *lm_head,
                                qp_base_kinds_t *kinds);

/** Rotates one row in place: block-diagonal orthonormal Hadamard (its own inverse). */
void qp_hadamard_row(float *row, int64_t n);
/** absmax int8 of one row: q = rn(127 x / absmax), returns scale = absmax / 127 (0 for a zero row).
 */
float qp_quantise_row(const float *row, int64_t n, int8_t *q);

enum { QP_BASE_VERSION = 2 };

/** What stands at the root of a base file; fields owned (fini). */
typedef struct {
    qp_llama_config_t config;
    qp_base_kinds_t kinds;
    uint64_t base_id;
    char *source;
    bool has_weights; /**< or it is the head of a base, for dry runs alone */
} qp_base_info_t;
/** Reads and checks the root of an open base file. Rank-local. */
qp_error_t qp_base_info_read(const qp_h5_t *file, qp_base_info_t *info);
void qp_base_info_fini(qp_base_info_t *info);
/** Of a base at \a path without weights: QP_INPUT. */
qp_error_t qp_base_check_weights(const qp_base_info_t *info, const char *path);
/** The tokenizer of an open base file; QP_INPUT if it has none. Rank-local. */
qp_error_t qp_base_tokenizer_read(const qp_h5_t *file, qp_tokenizer_files_t *files);
/** Root and tokenizer of the base at \a path; info is the caller's (fini) in any case. Rank-local.
 */
qp_error_t qp_base_header_read(const char *path, qp_base_info_t *info, qp_tokenizer_t **tokenizer);
/** Its generation_config.json (qp_free), or NULL. Rank-local. */
qp_error_t qp_base_generation_read(const qp_h5_t *file, char **text);

/** The tensors of a base: the table of its model, and at the end a tied head that is int8, which is
 * made from the embedding. *specs is the caller's (qp_free). */
void qp_base_tensors(const qp_llama_config_t *config, qp_base_kinds_t kinds,
                     qp_tensor_spec_t **specs, int64_t *n_spec);
/** Kind of the weights that a class of tensors holds; norms and biases: fp32. What is stored as
 * int8 has row scales beside it. */
qp_weight_kind_t qp_base_kind(qp_base_kinds_t kinds, qp_tensor_class_t tensor_class);

/** Streaming writer of a base (serial): rows of each tensor arrive in fp32, in table order. */
typedef struct qp_base_writer qp_base_writer_t;
qp_error_t qp_base_writer_create(const char *path, const qp_llama_config_t *config,
                                 qp_base_kinds_t kinds, const char *source,
                                 qp_base_writer_t **writer);
/** Appends rows [first, first + n_row) of tensor \a spec (index into qp_base_tensors()); rotates,
 * quantises, checks NaN. */
qp_error_t qp_base_writer_rows(qp_base_writer_t *writer, int64_t spec, int64_t first, int64_t n_row,
                               const float *rows);
qp_error_t qp_base_writer_tokenizer(qp_base_writer_t *writer, const qp_tokenizer_files_t *files);
qp_error_t qp_base_writer_generation(qp_base_writer_t *writer, const char *text);
/** Stores a score head [n_score, d_model] beside the table. */
qp_error_t qp_base_writer_score(qp_base_writer_t *writer, int64_t n_score, int64_t d_model,
                                const float *score);
/** Leaves all rows out: the head of a base, which plans a run and cannot be loaded. */
void qp_base_writer_skip(qp_base_writer_t *writer);
/** All rows must have arrived. Writes base_id, fsyncs, renames. Destroys the writer either way. */
qp_error_t qp_base_writer_commit(qp_base_writer_t **writer);
void qp_base_writer_abandon(qp_base_writer_t **writer);

#endif
