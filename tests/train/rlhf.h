/**
 * \file rlhf.h
 * Support of the tests against tests/golden/rlhf_*.safetensors: the tiny model "tied" with a head,
 * a run around it, and the sequences of the maker's streams.
 */
#ifndef QP_TEST_RLHF_H
#define QP_TEST_RLHF_H

#include "../model/tiny.h"
#include "train/run/run.h"

enum { RLHF_MAX_TOKEN = 256 };

typedef struct {
    tiny_t tiny;
    tiny_setup_t setup;
    qp_settings_t settings;
    qp_run_t run;
    qp_safetensors_t *golden;
} rlhf_t;

static inline void rlhf_open(const char *name, int head, rlhf_t *r)
{
    char path[64];
    memset(r, 0, sizeof *r);
    tiny_open("tied", &r->tiny);
    tiny_setup_with_head(&r->tiny, qp_base_kinds(QP_WEIGHT_F32), QP_COMPUTE_FP32, QP_PRODUCT_INT8,
                         head, &r->setup);
    snprintf(path, sizeof path, "tests/golden/rlhf_%s.safetensors", name);
    CHECK_OK(qp_safetensors_open(qp_test_source(path), &r->golden));
    r->run = (qp_run_t){.comm = r->setup.comm,
                        .settings = &r->settings,
                        .device = r->setup.device,
                        .model.base = r->setup.base,
                        .model.adapter = r->setup.adapter};
    CHECK_OK(qp_workspace_create(r->setup.base, &r->tiny.lora, RLHF_MAX_TOKEN, QP_RECOMPUTE_NONE,
                                 &r->run.model.ws));
}

static inline void rlhf_close(rlhf_t *r)
{
    qp_safetensors_close(&r->golden);
    qp_workspace_destroy(&r->run.model.ws);
    tiny_teardown(&r->setup);
    tiny_close(&r->tiny);
}

/** A golden array; its length must be n. */
static inline const void *rlhf_golden(const rlhf_t *r, const char *name, int64_t n)
{
    const qp_tensor_t *tensor = qp_safetensors_find(r->golden, name);
    CHECK_MSG(tensor != NULL && qp_tensor_n(tensor) == n, "golden %s [%lld]", name, (long long)n);
    return tensor->data;
}

static inline float rlhf_number(const rlhf_t *r, const char *name)
{
    return *(const float *)rlhf_golden(r, name, 1);
}

/** Appends n tokens of a stream; returns their number. */
static inline int64_t rlhf_tokens(const char *set, int64_t i, int64_t n, int32_t *token)
{
    char name[64];
    snprintf(name, sizeof name, "rlhf.%s.%lld", set, (long long)i);
    for (int64_t t = 0; t < n; t++)
        token[t] = (int32_t)(tiny_word(name, t) % 96);
    return n;
}

/** A number against a golden one. */
static inline void rlhf_check(double found, double expected, double tolerance, const char *what)
{
    CHECK_MSG(fabs(found - expected) <= tolerance * fmax(1.0, fabs(expected)),
              "%s: %.9g, expected %.9g", what, found, expected);
}

static inline void rlhf_check_array(const rlhf_t *r, const float *found, const char *name,
                                    int64_t n, double tolerance)
{
    const double error = qp_test_relative_error(found, rlhf_golden(r, name, n), n);
    CHECK_MSG(error <= tolerance, "%s: relative error %g", name, error);
}

/** A flat array of the adapter, matrix by matrix and with its head, against "<prefix>.<name>". */
static inline void rlhf_check_adapter(const rlhf_t *r, qp_dptr_t array, const char *prefix,
                                      double tolerance)
{
    const qp_adapter_t *a = r->run.model.adapter;
    float *x = tiny_download(r->run.device, array, a->n_param);
    char name[96];
    for (int64_t v = 0; v < a->n_view; v++) {
        const qp_lora_view_t *w = &a->view[v];
        snprintf(name, sizeof name, "%s.layers.%d.%s.A", prefix, w->layer,
                 qp_linear_short_name(w->linear));
        rlhf_check_array(r, x + w->a, name, a->r * w->n_in, tolerance);
        name[strlen(name) - 1] = 'B';
        rlhf_check_array(r, x + w->b, name, a->r * w->n_out, tolerance);
    }
    const float *head = x + a->layer_first[a->n_layer];
    const int64_t d_model = r->tiny.config.d_model;
    if (a->head != QP_HEAD_NONE) {
        snprintf(name, sizeof name, "%s.%s", prefix,
                 a->head == QP_HEAD_SCORE ? "score" : "v_head.weight");
        rlhf_check_array(r, head, name, d_model, tolerance);
    }
    if (a->head == QP_HEAD_VALUE) {
        snprintf(name, sizeof name, "%s.v_head.bias", prefix);
        rlhf_check_array(r, head + d_model, name, 1, tolerance);
    }
    qp_free(x);
}

#endif
