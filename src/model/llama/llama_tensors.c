/* The tensor table of a LLaMA model: names, shapes and classes of everything it has. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/llama/llama.h"

static const char *const linear_names[QP_N_LINEAR] = {
#define QP_LINEAR_NAME(id, name) [id] = name,
    QP_LINEARS(QP_LINEAR_NAME)
#undef QP_LINEAR_NAME
};

const char *qp_linear_name(qp_linear_t linear)
{
    return linear_names[linear];
}

const char *qp_linear_short_name(qp_linear_t linear)
{
    return strchr(linear_names[linear], '.') + 1;
}

void qp_linear_tensor_name(int64_t layer, qp_linear_t linear, char name[96])
{
    snprintf(name, 96, "model.layers.%ld.%s.weight", (long)layer, linear_names[linear]);
}

int64_t qp_linear_n_out(const qp_llama_config_t *c, qp_linear_t linear)
{
    const int64_t n_out[QP_N_LINEAR] = {
        [QP_Q_PROJ] = c->n_head * c->head_dim,
        [QP_K_PROJ] = c->n_kv_head * c->head_dim,
        [QP_V_PROJ] = c->n_kv_head * c->head_dim,
        [QP_O_PROJ] = c->d_model,
        [QP_GATE_PROJ] = c->d_ff,
        [QP_UP_PROJ] = c->d_ff,
        [QP_DOWN_PROJ] = c->d_model,
    };
    return n_out[linear];
}

int64_t qp_linear_n_in(const qp_llama_config_t *c, qp_linear_t linear)
{
    const int64_t n_in[QP_N_LINEAR] = {
        [QP_Q_PROJ] = c->d_model,    [QP_K_PROJ] = c->d_model,
        [QP_V_PROJ] = c->d_model,    [QP_O_PROJ] = c->n_head * c->head_dim,
        [QP_GATE_PROJ] = c->d_model, [QP_UP_PROJ] = c->d_model,
        [QP_DOWN_PROJ] = c->d_ff,
    };
    return n_in[linear];
}

/* The table while it is being made. */
typedef struct {
    qp_tensor_spec_t *spec;
    int64_t n, capacity;
} table_t;

static qp_tensor_spec_t *add_spec(table_t *table, qp_tensor_class_t tensor_class, int64_t n_row,
                                  int64_t n_col)
{
    if (table->n == table->capacity) {
        table->capacity = 2 * table->capacity + 64;
        table->spec =
            qp_realloc("tensor table", table->spec, qp_bytes(table->capacity, sizeof *table->spec));
    }
    qp_tensor_spec_t *spec = &table->spec[table->n++];
    *spec = (qp_tensor_spec_t){.tensor_class = (int)tensor_class, .n_row = n_row, .n_col = n_col};
    return spec;
}

static void add_named(table_t *table, const char *name, qp_tensor_class_t tensor_class,
                      int64_t n_row, int64_t n_col)
{
    qp_tensor_spec_t *spec = add_spec(table, tensor_class, n_row, n_col);
    snprintf(spec->name, sizeof spec->name, "%s", name);
}

static void add_in_layer(table_t *table, int64_t layer, const char *name, const char *suffix,
                         qp_tensor_class_t tensor_class, int64_t n_row, int64_t n_col)
{
    qp_tensor_spec_t *spec = add_spec(table, tensor_class, n_row, n_col);
    snprintf(spec->name, sizeof spec->name, "model.layers.%ld.%s.%s", (long)layer, name, suffix);
}

static void add_linear(table_t *table, const qp_llama_config_t *config, int64_t layer,
                       qp_linear_t linear)
{
    const char *name = qp_linear_name(linear);
    int64_t n_out = qp_linear_n_out(config, linear);
    add_in_layer(table, layer, name, "weight", QP_TENSOR_LINEAR, n_out,
                 qp_linear_n_in(config, linear));
    if (config->attention_bias && linear <= QP_O_PROJ)
        add_in_layer(table, layer, name, "bias", QP_TENSOR_BIAS, n_out, 1);
}

void qp_llama_tensors(const qp_llama_config_t *config, qp_tensor_spec_t **specs, int64_t *n_spec)
{
    table_t table = {0};
    int64_t d_model = config->d_model;
    add_named(&table, "model.embed_tokens.weight", QP_TENSOR_EMBEDDING, config->n_vocab, d_model);
    for (int64_t layer = 0; layer < config->n_layer; layer++) {
        add_in_layer(&table, layer, "input_layernorm", "weight", QP_TENSOR_NORM, d_model, 1);
        for (qp_linear_t l = QP_Q_PROJ; l <= QP_O_PROJ; l++)
            add_linear(&table, config, layer, l);
        add_in_layer(&table, layer, "post_attention_layernorm", "weight", QP_TENSOR_NORM, d_model,
                     1);
        for (qp_linear_t l = QP_GATE_PROJ; l <= QP_DOWN_PROJ; l++)
            add_linear(&table, config, layer, l);
    }
    add_named(&table, "model.norm.weight", QP_TENSOR_NORM, d_model, 1);
    if (!config->tie_word_embeddings)
        add_named(&table, "lm_head.weight", QP_TENSOR_LM_HEAD, config->n_vocab, d_model);
    *specs = table.spec;
    *n_spec = table.n;
}
