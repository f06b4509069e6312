/**
 * \file tiny.h
 * Tiny models for the tests of src/model: the weights, adapters and tokens that
 * tests/golden/make_model.py describes, made here from the same integer hash.
 */
#ifndef QP_TEST_TINY_H
#define QP_TEST_TINY_H

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "formats/safetensors.h"
#include "model/pass/pass.h"
#include "testing.h"

/** Word i of the stream of a name; see words() of the maker. */
static inline uint32_t tiny_word(const char *name, int64_t i)
{
    uint32_t seed = 0x811c9dc5u;
    for (const char *c = name; *c != '\0'; c++)
        seed = (seed ^ (uint8_t)*c) * 0x01000193u;
    uint32_t x = (uint32_t)i * 0x9e3779b9u + seed;
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}

static inline float tiny_uniform(const char *name, int64_t i, float scale)
{
    return ((float)(tiny_word(name, i) >> 8) * 0x1p-24f - 0.5f) * scale;
}

/* --- the model -------------------------------------------------------------------------------- */

/** A golden file and what the tests need of it all the time. */
typedef struct {
    qp_safetensors_t *file;
    qp_llama_config_t config;
    qp_lora_config_t lora;
} tiny_t;

static inline const void *tiny_golden(const tiny_t *tiny, const char *name)
{
    const qp_tensor_t *tensor = qp_safetensors_find(tiny->file, name);
    CHECK_MSG(tensor != NULL, "golden %s", name);
    return tensor->data;
}

static inline void tiny_open(const char *name, tiny_t *tiny)
{
    char path[64];
    snprintf(path, sizeof path, "tests/golden/model_%s.safetensors", name);
    memset(tiny, 0, sizeof *tiny);
    CHECK_OK(qp_safetensors_open(qp_test_source(path), &tiny->file));
    const qp_tensor_t *config = qp_safetensors_find(tiny->file, "config");
    char *text = qp_format("%.*s", (int)config->n_bytes, (const char *)config->data);
    CHECK_OK(qp_llama_config_from_json(path, text, &tiny->config));
    qp_free(text);
    const int32_t *lora = tiny_golden(tiny, "lora");
    tiny->lora.r = lora[0];
    tiny->lora.alpha = lora[1];
    tiny->lora.use_rslora = lora[2] != 0;
    for (int l = 0; l < QP_N_LINEAR; l++)
        tiny->lora.target[l] = lora[3 + l] != 0;
}

static inline void tiny_close(tiny_t *tiny)
{
    qp_safetensors_close(&tiny->file);
}

/** Writes the base file of a tiny model. Rank-local: call it on rank 0. */
static inline void tiny_write_base(const tiny_t *tiny, qp_base_kinds_t kinds, const char *path)
{
    qp_tensor_spec_t *spec;
    int64_t n_spec;
    qp_base_writer_t *writer;
    qp_base_tensors(&tiny->config, kinds, &spec, &n_spec);
    CHECK_OK(qp_base_writer_create(path, &tiny->config, kinds, "tests/model", &writer));
    for (int64_t s = 0; s < n_spec; s++) {
        int64_t n = spec[s].n_row * spec[s].n_col;
        bool norm = spec[s].tensor_class == QP_TENSOR_NORM;
        bool tied = tiny->config.tie_word_embeddings && spec[s].tensor_class == QP_TENSOR_LM_HEAD;
        const char *name = spec[tied ? 0 : s].name;
        bool embedding = strstr(name, "embed_tokens") != NULL;
        float scale = norm ? 0.25f : embedding ? 2.0f : 0.5f;
        float *rows = QP_NEW("test", float, n);
        for (int64_t i = 0; i < n; i++)
            rows[i] = tiny_uniform(name, i, scale) + (norm ? 1.0f : 0.0f);
        CHECK_OK(qp_base_writer_rows(writer, s, 0, spec[s].n_row, rows));
        qp_free(rows);
    }
    CHECK_OK(qp_base_writer_commit(&writer));
    qp_free(spec);
}

/* --- a set-up: device, base, adapter ---------------------------------------------------------- */

typedef struct {
    qp_comm_t *comm;
    qp_device_t *device;
    qp_base_t *base;
    qp_adapter_t *adapter;
} tiny_setup_t;

/** The head of the goldens of make_rlhf.py. */
static inline void tiny_fill_head(const qp_adapter_t *adapter, float *head)
{
    const int64_t d_model = adapter->view[0].n_in;
    const char *name = adapter->head == QP_HEAD_SCORE ? "score" : "v_head.weight";
    for (int64_t i = 0; i < d_model && adapter->head != QP_HEAD_NONE; i++)
        head[i] = tiny_uniform(name, i, 0.5f);
    if (adapter->head == QP_HEAD_VALUE)
        head[d_model] = tiny_uniform("v_head.bias", 0, 0.5f);
}

/** Gives the adapter the golden's matrices. */
static inline void tiny_fill_adapter(qp_adapter_t *adapter)
{
    float *param = QP_NEW("test", float, adapter->n_param);
    for (int64_t v = 0; v < adapter->n_view; v++) {
        const qp_lora_view_t *view = &adapter->view[v];
        char name[64];
        snprintf(name, sizeof name, "layers.%d.%s.A", view->layer,
                 qp_linear_short_name(view->linear));
        for (int64_t i = 0; i < adapter->r * view->n_in; i++)
            param[view->a + i] = tiny_uniform(name, i, 0.25f);
        name[strlen(name) - 1] = 'B';
        for (int64_t i = 0; i < adapter->r * view->n_out; i++)
            param[view->b + i] = tiny_uniform(name, i, 0.25f);
    }
    tiny_fill_head(adapter, param + adapter->layer_first[adapter->n_layer]);
    CHECK_OK(adapter->device->ops->upload(qp_device_queue(adapter->device), adapter->param, param,
                                          (size_t)adapter->n_param * sizeof *param));
    CHECK_OK(qp_adapter_refresh(adapter));
    qp_free(param);
}

/**
 * Collective: rank 0 writes the base, all load it; the adapter has the golden's matrices and a head
 * of this kind (qp_head_kind_t).
 */
static inline void tiny_setup_with_head(const tiny_t *tiny, qp_base_kinds_t kinds,
                                        qp_compute_t compute, qp_product_t product, int head,
                                        tiny_setup_t *s)
{
    const qp_head_config_t head_config = {.kind = head, .init = QP_HEAD_LINEAR};
    char path[300] = "";
    qp_device_config_t device = {.backend = QP_BACKEND_AUTO, .compute = (int)compute, .threads = 1};
    memset(s, 0, sizeof *s);
    CHECK_OK(qp_comm_create(&s->comm));
    if (qp_comm_rank(s->comm) == 0) {
        snprintf(path, sizeof path, "%s/tiny.h5", qp_test_folder());
        tiny_write_base(tiny, kinds, path);
    }
    qp_comm_bcast(s->comm, path, sizeof path, QP_U8, 0);
    qp_base_config_t base = {.file = path,
                             .activation = (int)product,
                             .gradient = (int)product,
                             .outlier_threshold = 6.0};
    CHECK_OK(qp_device_open(&device, qp_comm_node_rank(s->comm), qp_comm_node_size(s->comm),
                            &s->device));
    CHECK_OK(qp_base_load(s->comm, s->device, &base, tiny->config.max_position, &s->base));
    CHECK_OK(qp_adapter_create(s->comm, s->base, &tiny->lora, &head_config, 1, &s->adapter));
    tiny_fill_adapter(s->adapter);
}

static inline void tiny_setup(const tiny_t *tiny, qp_base_kinds_t kinds, qp_compute_t compute,
                              qp_product_t product, tiny_setup_t *s)
{
    tiny_setup_with_head(tiny, kinds, compute, product, QP_HEAD_NONE, s);
}

static inline void tiny_teardown(tiny_setup_t *s)
{
    qp_adapter_destroy(&s->adapter);
    qp_base_destroy(s->comm, &s->base);
    qp_device_close(&s->device);
    qp_comm_destroy(&s->comm);
}

/* --- batches ---------------------------------------------------------------------------------- */

enum { TINY_N_SEQ = 4, TINY_N_TOKEN = 64, TINY_N_TARGET = 60 };
static const int TINY_LENGTH[TINY_N_SEQ] = {19, 1, 33, 11};

typedef struct {
    int32_t token[TINY_N_TOKEN], target[TINY_N_TOKEN], position[TINY_N_TOKEN];
    int32_t cu_seqlens[TINY_N_SEQ + 1];
    uint32_t sample[TINY_N_TOKEN];
} tiny_batch_t;

/** Batch \a index of the golden: four sequences. */
static inline void tiny_batch(int64_t n_vocab, int index, tiny_batch_t *b)
{
    int32_t t = 0;
    b->cu_seqlens[0] = 0;
    for (int s = 0; s < TINY_N_SEQ; s++) {
        char name[32];
        snprintf(name, sizeof name, "tokens.%d.%d", index, s);
        for (int i = 0; i < TINY_LENGTH[s]; i++, t++) {
            b->token[t] = (int32_t)(tiny_word(name, i) % (uint32_t)n_vocab);
            b->target[t] = -1;
            b->position[t] = i;
            b->sample[t] = (uint32_t)(index * TINY_N_SEQ + s);
            if (i > 0)
                b->target[t - 1] = b->token[t];
        }
        b->cu_seqlens[s + 1] = t;
    }
}

/** All of a batch as the model takes it. */
static inline qp_model_batch_t tiny_view(const tiny_batch_t *b)
{
    return (qp_model_batch_t){.n_token = TINY_N_TOKEN,
                              .n_seq = TINY_N_SEQ,
                              .token = b->token,
                              .target = b->target,
                              .position = b->position,
                              .cu_seqlens = b->cu_seqlens,
                              .sample = b->sample};
}

static inline float *tiny_download(qp_device_t *device, qp_dptr_t from, int64_t n)
{
    float *out = QP_NEW("test", float, n);
    CHECK_OK(device->ops->download(qp_device_queue(device), out, from, (size_t)n * sizeof *out));
    return out;
}

static inline void tiny_zero_grad(qp_adapter_t *adapter)
{
    CHECK_OK(adapter->device->ops->zero(qp_device_queue(adapter->device), adapter->grad,
                                        (size_t)adapter->n_param * sizeof(float)));
}

#endif
