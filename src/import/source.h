/**
 * \file source.h
 * Where the weights of a model come from: an HF folder (safetensors), a GGUF file, a base.h5
 * (dequantised, un-rotated) or a random generator. All look the same: a config, a tokenizer, and
 * the rows of the tensor table in fp32, in HF layout. Serial; for tools that stream a model.
 */
#ifndef QP_IMPORT_SOURCE_H
#define QP_IMPORT_SOURCE_H

#include "model/adapter/adapter_peft.h"
#include "model/base/base_file.h"

typedef struct qp_source qp_source_t;

/**
 * Opens and checks config, tokenizer and the whole tensor list (names, shapes, types), not the
 * values. The special tokens of the config are those of all files: each EOS that any of them names,
 * the tokenizer's own first; BOS and pad of the first file that has one, of config.json,
 * generation_config.json and the tokenizer's. A folder is an HF model, *.gguf a GGUF file, *.h5 a
 * base. What is wrong: QP_INPUT naming file and tensor.
 */
qp_error_t qp_source_open(const char *path, qp_source_t **source);

/**
 * Random weights of a named shape ("tiny", "1b", "7b", ...), of key=value pairs ("n_layer=2,..."),
 * or a name followed by changes ("7b,n_vocab=128256"). Linears and embeddings are uniform with
 * standard deviation 0.02. Has a byte-level tokenizer if n_vocab >= 257.
 */
qp_error_t qp_source_synthetic(const char *shape, uint32_t seed, qp_source_t **source);

/**
 * \a onto with an adapter folded in, W + scaling B A in fp32; the adapter's score head goes with
 * it. Both must outlive the new source; the adapter was read for this config.
 */
void qp_source_merged(qp_source_t *onto, const qp_peft_t *peft, qp_source_t **source);

void qp_source_close(qp_source_t **source);

const qp_llama_config_t *qp_source_config(const qp_source_t *source);
/** kind is "" when the model has no tokenizer. */
const qp_tokenizer_files_t *qp_source_tokenizer(const qp_source_t *source);
/** The tokenizer itself, or NULL; the source's. */
const qp_tokenizer_t *qp_source_reader(const qp_source_t *source);
/** The text of generation_config.json, or NULL. */
const char *qp_source_generation(const qp_source_t *source);
/** Score head [*n_score, d_model] fp32, or NULL. */
const float *qp_source_score(const qp_source_t *source, int64_t *n_score);
/** What it was opened as, for the record. */
const char *qp_source_name(const qp_source_t *source);
/** The tensor table (qp_llama_tensors of the config). */
const qp_tensor_spec_t *qp_source_tensors(const qp_source_t *source, int64_t *n_spec);

/** Rows of a tensor that make a piece of at most 32 MB in fp32: what streaming loops ask for at a
 * time. */
int64_t qp_source_piece(const qp_tensor_spec_t *spec);
/** The largest piece of the table, in elements. */
int64_t qp_source_piece_max(const qp_source_t *source);

/**
 * Rows [first, first + n_row) of tensor \a spec (index into the table): rows [n_row, n_col] fp32. A
 * NaN or infinity: QP_INPUT naming file, tensor and place. Input pages read are given back.
 */
qp_error_t qp_source_rows(qp_source_t *source, int64_t spec, int64_t first, int64_t n_row,
                          float *rows);

/** Writes a base.h5, complete or not at all. */
qp_error_t qp_source_write_base(qp_source_t *source, const char *path, qp_base_kinds_t kinds);
/** The same without its weights: enough for dry runs. */
qp_error_t qp_source_write_head(qp_source_t *source, const char *path, qp_base_kinds_t kinds);

/** An HF folder's model.safetensors is split into shards of at most this many bytes (a tensor at
 * least). */
#define QP_HF_SHARD_BYTES ((size_t)5 << 30)
/**
 * Writes config.json, generation_config.json and the weights (QP_F32, QP_BF16 or QP_F16) into an
 * existing folder as HF names them, sharded where needed; with a score head the model is a
 * LlamaForSequenceClassification (or Mistral...), which gets a pad token in any case.
 */
qp_error_t qp_source_write_hf(qp_source_t *source, const char *folder, qp_dtype_t dtype,
                              size_t shard_bytes);

/** How far the linears of a written model are from what they should be; of absolute values. */
typedef struct {
    double mean_change, max_change, mean_weight;
} qp_rounding_t;
/** Both sources must be of the same config. */
qp_error_t qp_source_rounding(qp_source_t *exact, qp_source_t *written, qp_rounding_t *rounding);

#endif
