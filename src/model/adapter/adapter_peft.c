/* Reading a PEFT adapter folder: adapter_config.json and adapter_model.safetensors. */
#include "model/adapter/adapter_peft.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "formats/convert.h"
#include "formats/safetensors.h"
#include "model/adapter/adapter_peft_config.h"
#include "model/adapter/adapter_peft_names.h"

double qp_peft_scaling(const qp_peft_t *peft)
{
    return peft->alpha / (peft->use_rslora ? sqrt((double)peft->r) : (double)peft->r);
}

/* --- tensors ---------------------------------------------------------------------------------- */

/* What peft->owned points to. */
typedef struct {
    float *data; /* all A and B, then the score head */
    int64_t n_used;
    char *base_name;
} owned_t;

/* Checks one tensor and appends its numbers to the owned array. */
static qp_error_t take(owned_t *owned, const qp_tensor_t *t, int64_t n_row, int64_t n_col,
                       const float **data)
{
    if (t->n_dim != 2 || t->dim[0] != n_row || t->dim[1] != n_col)
        return QP_ERROR(
            QP_INPUT,
            "%s: tensor %s has %d dimensions of [%ld, %ld], expected [%ld, %ld] by the config's r "
            "and the base's sizes",
            t->path, t->name, t->n_dim, (long)t->dim[0], (long)t->dim[1], (long)n_row, (long)n_col);
    if (!qp_convert_knows(t->dtype))
        return QP_ERROR(QP_INPUT, "%s: tensor %s has type %s; Quipu reads F32, F16 and BF16",
                        t->path, t->name, qp_dtype_name(t->dtype));
    float *to = owned->data + owned->n_used;
    qp_convert_to_f32(t->dtype, t->data, n_row * n_col, to);
    int64_t bad = qp_find_not_finite(to, n_row * n_col);
    if (bad >= 0)
        return QP_ERROR(QP_INPUT, "%s: tensor %s: the weight in row %ld, column %ld is %g", t->path,
                        t->name, (long)(bad / n_col), (long)(bad % n_col), (double)to[bad]);
    owned->n_used += n_row * n_col;
    *data = to;
    return NULL;
}

/* The tensor of a pair; a state dict saved as it is has the adapter's name "default" inside, which
 * PEFT finds too. */
static const qp_tensor_t *find_tensor(const qp_safetensors_t *st, int64_t layer, qp_linear_t linear,
                                      char matrix)
{
    char name[QP_PEFT_NAME_BYTES];
    qp_peft_tensor_name(layer, linear, matrix, "", name);
    const qp_tensor_t *tensor = qp_safetensors_find(st, name);
    if (tensor != NULL)
        return tensor;
    qp_peft_tensor_name(layer, linear, matrix, ".default", name);
    return qp_safetensors_find(st, name);
}

static qp_error_t find_pair(const qp_safetensors_t *st, const char *path, int64_t layer,
                            qp_linear_t linear, const qp_tensor_t *pair[2])
{
    static const char matrix[] = {'A', 'B'};
    char missing[QP_PEFT_NAME_BYTES];
    for (int i = 0; i < 2; i++) {
        pair[i] = find_tensor(st, layer, linear, matrix[i]);
        if (pair[i] != NULL)
            continue;
        qp_peft_tensor_name(layer, linear, matrix[i], "", missing);
        return QP_ERROR(
            QP_INPUT, "%s: by its config the adapter has %s of layer %ld, but tensor %s is missing",
            path, qp_linear_short_name(linear), (long)layer, missing);
    }
    return NULL;
}

static qp_error_t read_pair(const qp_safetensors_t *st, const char *path, owned_t *owned, int64_t r,
                            qp_peft_pair_t *pair)
{
    const qp_tensor_t *ab[2];
    QP_TRY(find_pair(st, path, pair->layer, pair->linear, ab));
    QP_TRY(take(owned, ab[0], r, pair->n_in, &pair->a));
    return take(owned, ab[1], pair->n_out, r, &pair->b);
}

static qp_error_t read_pairs(const qp_safetensors_t *st, const char *path,
                             const qp_llama_config_t *config, owned_t *owned, qp_peft_t *peft)
{
    peft->pair = QP_NEW("peft", qp_peft_pair_t, QP_N_LINEAR * config->n_layer);
    for (int64_t layer = 0; layer < config->n_layer; layer++)
        for (int l = 0; l < QP_N_LINEAR; l++) {
            if (!peft->target[l])
                continue;
            qp_peft_pair_t *pair = &peft->pair[peft->n_pair++];
            pair->layer = layer;
            pair->linear = (qp_linear_t)l;
            pair->n_in = qp_linear_n_in(config, pair->linear);
            pair->n_out = qp_linear_n_out(config, pair->linear);
            QP_TRY(read_pair(st, path, owned, peft->r, pair));
        }
    return NULL;
}

static qp_error_t read_score(const qp_safetensors_t *st, const char *path, owned_t *owned,
                             qp_peft_t *peft)
{
    const qp_tensor_t *score = qp_safetensors_find(st, QP_PEFT_SCORE);
    if (score == NULL)
        return QP_ERROR(
            QP_INPUT,
            "%s: the config says that the score head was trained, but tensor " QP_PEFT_SCORE
            " is missing",
            path);
    peft->n_score = score->n_dim == 2 && score->dim[0] > 0 ? score->dim[0] : 1;
    return take(owned, score, peft->n_score, peft->d_model, &peft->score);
}

static bool is_taken(const qp_safetensors_t *st, const qp_tensor_t *t, const qp_peft_t *peft)
{
    for (int64_t p = 0; p < peft->n_pair; p++)
        if (find_tensor(st, peft->pair[p].layer, peft->pair[p].linear, 'A') == t ||
            find_tensor(st, peft->pair[p].layer, peft->pair[p].linear, 'B') == t)
            return true;
    return peft->score != NULL && strcmp(t->name, QP_PEFT_SCORE) == 0;
}

/* Every tensor must have been taken: PEFT would leave the others out without an error. */
static qp_error_t check_extra(const qp_safetensors_t *st, const qp_peft_t *peft)
{
    int64_t n_expected = 2 * peft->n_pair + (peft->score != NULL);
    for (int64_t i = 0; i < qp_safetensors_n(st) && qp_safetensors_n(st) != n_expected; i++) {
        const qp_tensor_t *t = qp_safetensors_at(st, i);
        if (!is_taken(st, t, peft))
            return QP_ERROR(QP_INPUT,
                            "%s: unexpected tensor %s: by the config this model's adapter has none",
                            t->path, t->name);
    }
    return NULL;
}

static qp_error_t read_tensors(const qp_safetensors_t *st, const char *path,
                               const qp_llama_config_t *config, bool has_score, qp_peft_t *peft)
{
    owned_t *owned = peft->owned;
    int64_t n = 0;
    for (int64_t i = 0; i < qp_safetensors_n(st); i++)
        n += qp_tensor_n(qp_safetensors_at(st, i));
    owned->data = QP_NEW("peft", float, n);
    QP_TRY(read_pairs(st, path, config, owned, peft));
    if (has_score)
        QP_TRY(read_score(st, path, owned, peft));
    return check_extra(st, peft);
}

/* --- the folder ------------------------------------------------------------------------------- */

/* The folder's two files: the config is read and judged before the tensors are looked at. To be
 * closed in any case. */
typedef struct {
    qp_peft_config_t config;
    char *tensor_path;
    qp_safetensors_t *st;
} folder_t;

static void close_folder(folder_t *f)
{
    qp_peft_config_fini(&f->config);
    qp_safetensors_close(&f->st);
    qp_free(f->tensor_path);
}

static qp_error_t open_tensors(const char *folder, folder_t *f)
{
    f->tensor_path = qp_format("%s/" QP_PEFT_TENSORS, folder);
    if (access(f->tensor_path, F_OK) == 0)
        return qp_safetensors_open(f->tensor_path, &f->st);
    char *pickle = qp_format("%s/" QP_PEFT_PICKLE, folder);
    const bool has_pickle = access(pickle, F_OK) == 0;
    qp_free(pickle);
    return QP_ERROR(QP_INPUT, "%s: has no " QP_PEFT_TENSORS "%s", folder,
                    has_pickle ? ", only a PyTorch pickle (" QP_PEFT_PICKLE
                                 "); save the adapter again with PEFT's save_pretrained"
                               : "");
}

static qp_error_t read_peft_config(const char *folder, folder_t *f, qp_peft_t *peft)
{
    QP_TRY(qp_peft_config_read(folder, &f->config));
    peft->r = f->config.r;
    peft->alpha = f->config.alpha;
    peft->dropout = f->config.dropout;
    peft->use_rslora = f->config.use_rslora;
    return NULL;
}

static qp_error_t read_folder(const char *folder, const qp_llama_config_t *config, folder_t *f,
                              qp_peft_t *peft)
{
    QP_TRY(read_peft_config(folder, f, peft));
    QP_TRY(qp_peft_config_targets(&f->config, config->n_layer, peft->target));
    QP_TRY(open_tensors(folder, f));
    owned_t *owned = peft->owned = QP_NEW("peft", owned_t, 1);
    peft->base_name = owned->base_name = qp_strdup(f->config.base_name);
    return read_tensors(f->st, f->tensor_path, config, f->config.has_score, peft);
}

qp_error_t qp_peft_read(const char *folder, const qp_llama_config_t *config, qp_peft_t *peft)
{
    folder_t f = {0};
    *peft = (qp_peft_t){.d_model = config->d_model};
    qp_error_t error = read_folder(folder, config, &f, peft);
    close_folder(&f);
    if (error != NULL)
        qp_peft_fini(peft);
    return error;
}

/* Layers that have tensors in the file; numbers that no model has are left to qp_peft_read(). */
static int64_t count_layers(const qp_safetensors_t *st)
{
    enum { MAX_LAYER = 4096 };
    long n_layer = 0, layer;
    for (int64_t i = 0; i < qp_safetensors_n(st); i++)
        if (sscanf(qp_safetensors_at(st, i)->name, QP_PEFT_LAYER, &layer) == 1 &&
            layer >= n_layer && layer < MAX_LAYER)
            n_layer = layer + 1;
    return n_layer;
}

static qp_error_t read_shape(const char *folder, folder_t *f, qp_peft_t *peft)
{
    QP_TRY(read_peft_config(folder, f, peft));
    QP_TRY(open_tensors(folder, f));
    const int64_t n_layer = count_layers(f->st);
    const qp_tensor_t *ab[2];
    QP_TRY(qp_peft_config_targets(&f->config, n_layer > 0 ? n_layer : 1, peft->target));
    for (int l = 0; l < QP_N_LINEAR && n_layer == 0; l++)
        if (peft->target[l])
            QP_TRY(find_pair(f->st, f->tensor_path, 0, (qp_linear_t)l, ab));
    return NULL;
}

qp_error_t qp_peft_read_shape(const char *folder, qp_peft_t *peft)
{
    folder_t f = {0};
    *peft = (qp_peft_t){0};
    qp_error_t error = read_shape(folder, &f, peft);
    close_folder(&f);
    return error;
}

void qp_peft_fini(qp_peft_t *peft)
{
    owned_t *owned = peft->owned;
    if (owned != NULL) {
        qp_free(owned->data);
        qp_free(owned->base_name);
        qp_free(owned);
        qp_free(peft->pair);
    }
    *peft = (qp_peft_t){0};
}
