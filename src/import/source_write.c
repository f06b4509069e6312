/* A source becomes a base file or an HF folder, streamed in pieces. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/convert.h"
#include "formats/safetensors.h"
#include "import/source.h"

/* --- streaming -------------------------------------------------------------------------------- */

/* Where pieces go. */
typedef struct {
    void *self;
    qp_error_t (*put)(void *self, int64_t spec, int64_t first, int64_t n_row, const float *rows);
} sink_t;

/* Streams tensor \a from of the table into a sink, where it is tensor \a to; rows: room for a
 * piece.
 */
static qp_error_t stream_tensor(qp_source_t *source, int64_t from, int64_t to, const sink_t *sink,
                                float *rows)
{
    int64_t n_spec;
    const qp_tensor_spec_t *spec = &qp_source_tensors(source, &n_spec)[from];
    const int64_t piece = qp_source_piece(spec);
    char text[160];
    snprintf(text, sizeof text, "%ld/%ld %s", (long)(from + 1), (long)n_spec, spec->name);
    qp_log_progress(text);
    for (int64_t first = 0; first < spec->n_row; first += piece) {
        const int64_t left = spec->n_row - first, n_row = left < piece ? left : piece;
        QP_TRY(qp_source_rows(source, from, first, n_row, rows));
        QP_TRY(sink->put(sink->self, to, first, n_row, rows));
    }
    return NULL;
}

/* Streams tensors [begin, end) of the table; those behind its end are made from the embedding. */
static qp_error_t stream(qp_source_t *source, int64_t begin, int64_t end, const sink_t *sink)
{
    int64_t n_spec;
    qp_source_tensors(source, &n_spec);
    float *rows = QP_NEW("source piece", float, qp_source_piece_max(source));
    qp_error_t error = NULL;
    for (int64_t i = begin; error == NULL && i < end; i++)
        error = stream_tensor(source, i < n_spec ? i : 0, i, sink, rows);
    qp_log_progress("");
    qp_free(rows);
    return error;
}

/* --- base file -------------------------------------------------------------------------------- */

static qp_error_t put_in_base(void *self, int64_t spec, int64_t first, int64_t n_row,
                              const float *rows)
{
    return qp_base_writer_rows(self, spec, first, n_row, rows);
}

/* A tied head in int8 is one tensor more than the source has. */
static int64_t n_stored(const qp_source_t *source, qp_base_kinds_t kinds)
{
    qp_tensor_spec_t *spec;
    int64_t n_spec;
    qp_base_tensors(qp_source_config(source), kinds, &spec, &n_spec);
    qp_free(spec);
    return n_spec;
}

static qp_error_t write_base(qp_source_t *source, const char *path, qp_base_kinds_t kinds,
                             bool weights)
{
    int64_t n_score;
    const qp_llama_config_t *config = qp_source_config(source);
    const qp_tokenizer_files_t *tokenizer = qp_source_tokenizer(source);
    const float *score = qp_source_score(source, &n_score);
    qp_base_writer_t *writer = NULL;
    QP_TRY(qp_base_writer_create(path, config, kinds, qp_source_name(source), &writer));
    qp_error_t error = NULL;
    if (weights)
        error = stream(source, 0, n_stored(source, kinds), &(sink_t){writer, put_in_base});
    else
        qp_base_writer_skip(writer);
    if (error == NULL && score != NULL)
        error = qp_base_writer_score(writer, n_score, config->d_model, score);
    if (error == NULL && tokenizer->kind[0] != '\0')
        error = qp_base_writer_tokenizer(writer, tokenizer);
    if (error == NULL && qp_source_generation(source) != NULL)
        error = qp_base_writer_generation(writer, qp_source_generation(source));
    if (error == NULL)
        return qp_base_writer_commit(&writer);
    qp_base_writer_abandon(&writer);
    return error;
}

qp_error_t qp_source_write_base(qp_source_t *source, const char *path, qp_base_kinds_t kinds)
{
    return write_base(source, path, kinds, true);
}

qp_error_t qp_source_write_head(qp_source_t *source, const char *path, qp_base_kinds_t kinds)
{
    return write_base(source, path, kinds, false);
}

/* --- HF folder -------------------------------------------------------------------------------- */

/* The tensors of the folder, in table order, cut into shards. */
typedef struct {
    qp_source_t *source;
    const char *folder;
    qp_dtype_t dtype;
    int64_t n_tensor;    /* of the table; the score head, if any, is one more */
    qp_tensor_t *tensor; /* [n_tensor + 1] */
    int *shard;          /* [n_tensor + 1] number of the shard a tensor goes to, from 0 */
    int n_shard;
    const float *score;
    qp_safetensors_writer_t *writer; /* of the shard being written */
    void *stored;                    /* a piece in its stored type */
} hf_t;

static void make_tensors(hf_t *hf, size_t shard_bytes)
{
    int64_t n_spec, n_score, d_model = qp_source_config(hf->source)->d_model;
    const qp_tensor_spec_t *spec = qp_source_tensors(hf->source, &n_spec);
    hf->score = qp_source_score(hf->source, &n_score);
    hf->n_tensor = n_spec;
    if (hf->score != NULL && strcmp(spec[n_spec - 1].name, "lm_head.weight") == 0)
        hf->n_tensor--; /* a classifier has the score head in its place */
    hf->tensor = QP_NEW("hf", qp_tensor_t, hf->n_tensor + 1);
    hf->shard = QP_NEW("hf", int, hf->n_tensor + 1);
    for (int64_t i = 0; i < hf->n_tensor; i++)
        hf->tensor[i] = (qp_tensor_t){.name = spec[i].name,
                                      .n_dim = spec[i].n_col > 1 ? 2 : 1,
                                      .dim = {spec[i].n_row, spec[i].n_col}};
    if (hf->score != NULL)
        hf->tensor[hf->n_tensor] =
            (qp_tensor_t){.name = "score.weight", .n_dim = 2, .dim = {n_score, d_model}};
    size_t in_shard = 0;
    for (int64_t i = 0; i < hf->n_tensor + (hf->score != NULL); i++) {
        qp_tensor_t *t = &hf->tensor[i];
        t->dtype = hf->dtype;
        t->n_bytes = qp_bytes(qp_tensor_n(t), qp_dtype_bytes(t->dtype));
        if (in_shard > 0 && t->n_bytes > shard_bytes - in_shard) {
            hf->n_shard++;
            in_shard = 0;
        }
        in_shard = t->n_bytes < shard_bytes - in_shard ? in_shard + t->n_bytes : shard_bytes;
        hf->shard[i] = hf->n_shard;
    }
    hf->n_shard++;
}

static char *shard_name(const hf_t *hf, int shard)
{
    if (hf->n_shard == 1)
        return qp_format("model.safetensors");
    return qp_format("model-%05d-of-%05d.safetensors", shard + 1, hf->n_shard);
}

static qp_error_t put_in_shard(void *self, int64_t spec, int64_t first, int64_t n_row,
                               const float *rows)
{
    (void)first;
    hf_t *hf = self;
    int64_t n = n_row * (hf->tensor[spec].n_dim == 2 ? hf->tensor[spec].dim[1] : 1);
    qp_convert_from_f32(hf->dtype, rows, n, hf->stored);
    return qp_safetensors_writer_append(hf->writer, hf->stored,
                                        qp_bytes(n, qp_dtype_bytes(hf->dtype)));
}

static qp_error_t put_score(hf_t *hf)
{
    const qp_tensor_t *t = &hf->tensor[hf->n_tensor];
    void *stored = qp_alloc("hf", t->n_bytes);
    qp_convert_from_f32(hf->dtype, hf->score, qp_tensor_n(t), stored);
    qp_error_t error = qp_safetensors_writer_append(hf->writer, stored, t->n_bytes);
    qp_free(stored);
    return error;
}

static qp_error_t write_shard(hf_t *hf, int shard, int64_t begin, int64_t end)
{
    char *name = shard_name(hf, shard);
    char *path = qp_format("%s/%s", hf->folder, name);
    qp_error_t error =
        qp_safetensors_writer_create(path, hf->tensor + begin, end - begin, &hf->writer);
    int64_t table_end = end < hf->n_tensor ? end : hf->n_tensor;
    if (error == NULL)
        error = stream(hf->source, begin, table_end, &(sink_t){hf, put_in_shard});
    if (error == NULL && end > hf->n_tensor)
        error = put_score(hf);
    if (error == NULL)
        error = qp_safetensors_writer_commit(&hf->writer);
    else
        qp_safetensors_writer_abandon(&hf->writer);
    qp_free(path);
    qp_free(name);
    return error;
}

static qp_error_t write_index(const hf_t *hf)
{
    size_t total = 0;
    qp_str_t json = {0};
    qp_str_puts(&json, "{\n  \"weight_map\": {");
    for (int64_t i = 0; i < hf->n_tensor + (hf->score != NULL); i++) {
        char *name = shard_name(hf, hf->shard[i]);
        qp_str_printf(&json, "%s\n    \"%s\": \"%s\"", i > 0 ? "," : "", hf->tensor[i].name, name);
        qp_free(name);
        total += hf->tensor[i].n_bytes;
    }
    qp_str_printf(&json, "\n  },\n  \"metadata\": {\"total_size\": %zu}\n}\n", total);
    char *path = qp_format("%s/model.safetensors.index.json", hf->folder);
    qp_error_t error = qp_file_write(path, json.data, json.n);
    qp_free(path);
    qp_str_fini(&json);
    return error;
}

/* transformers reads a text's score at its last token that is no pad: so the pad of a classifier is
 * preferably a token that ends no text. */
static int64_t classifier_pad(const qp_llama_config_t *c)
{
    const int64_t choice[] = {c->pad_token_id, c->bos_token_id};
    for (int i = 0; i < 2; i++)
        if (choice[i] >= 0 && !qp_eos_has(&c->eos, (int32_t)choice[i]))
            return choice[i];
    return c->pad_token_id >= 0 ? c->pad_token_id : qp_eos_first(&c->eos);
}

/* Labels are numbered as transformers numbers them. */
static void make_classifier(const hf_t *hf, json_t *root)
{
    const qp_llama_config_t *c = qp_source_config(hf->source);
    const int64_t pad = classifier_pad(c);
    json_t *labels = json_object(), *ids = json_object();
    for (int64_t i = 0; i < hf->tensor[hf->n_tensor].dim[0]; i++) {
        char id[32], label[40];
        snprintf(id, sizeof id, "%ld", (long)i);
        snprintf(label, sizeof label, "LABEL_%ld", (long)i);
        json_object_set_new(labels, id, json_string(label));
        json_object_set_new(ids, label, json_integer((json_int_t)i));
    }
    const char *name = c->family == QP_FAMILY_MISTRAL ? "MistralForSequenceClassification"
                                                      : "LlamaForSequenceClassification";
    json_object_set_new(root, "architectures", json_pack("[s]", name));
    json_object_set_new(root, "id2label", labels);
    json_object_set_new(root, "label2id", ids);
    if (pad >= 0)
        json_object_set_new(root, "pad_token_id", json_integer(pad));
    else
        qp_log_warn("%s: the model has no pad, BOS or EOS token: transformers can only rate one "
                    "text at a time",
                    hf->folder);
}

static qp_error_t write_config(const hf_t *hf)
{
    static const char *const dtype_names[QP_N_DTYPE] = {
        [QP_F32] = "float32", [QP_BF16] = "bfloat16", [QP_F16] = "float16"};
    char *text = qp_llama_config_to_json(qp_source_config(hf->source));
    json_t *root = json_loads(text, 0, NULL);
    QP_ASSERT(root != NULL);
    json_object_set_new(root, "torch_dtype", json_string(dtype_names[hf->dtype]));
    if (hf->score != NULL)
        make_classifier(hf, root);
    char *made = json_dumps(root, JSON_INDENT(2));
    char *path = qp_format("%s/config.json", hf->folder);
    qp_error_t error = qp_file_write(path, made, strlen(made));
    free(made);
    qp_free(path);
    qp_free(text);
    json_decref(root);
    return error;
}

static qp_error_t write_generation(const hf_t *hf)
{
    char *text =
        qp_llama_generation_to_json(qp_source_config(hf->source), qp_source_generation(hf->source));
    if (text == NULL)
        return NULL;
    char *path = qp_format("%s/generation_config.json", hf->folder);
    qp_error_t error = qp_file_write(path, text, strlen(text));
    qp_free(path);
    qp_free(text);
    return error;
}

qp_error_t qp_source_write_hf(qp_source_t *source, const char *folder, qp_dtype_t dtype,
                              size_t shard_bytes)
{
    hf_t hf = {.source = source, .folder = folder, .dtype = dtype};
    make_tensors(&hf, shard_bytes);
    hf.stored = qp_alloc("hf", qp_bytes(qp_source_piece_max(source), qp_dtype_bytes(dtype)));
    qp_error_t error = NULL;
    int64_t n = hf.n_tensor + (hf.score != NULL);
    for (int64_t begin = 0, end; error == NULL && begin < n; begin = end) {
        for (end = begin + 1; end < n && hf.shard[end] == hf.shard[begin]; end++)
            ;
        error = write_shard(&hf, hf.shard[begin], begin, end);
    }
    if (error == NULL && hf.n_shard > 1)
        error = write_index(&hf);
    if (error == NULL)
        error = write_config(&hf);
    if (error == NULL && hf.score == NULL) /* a classifier generates nothing */
        error = write_generation(&hf);
    qp_free(hf.tensor);
    qp_free(hf.shard);
    qp_free(hf.stored);
    return error;
}
