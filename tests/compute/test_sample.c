/* QP_TEST: isa=AVX2 check=0
 * Drawing tokens: greedy, the sets that top-k and top-p keep (sorting twin, and HF's warpers), the
 * frequencies of draws, and refusal of NaN. */
#include "cpu_testing.h"

enum { V = 300, N_DRAW = 4000 };

static const qp_sampling_t settings[] = {
    {1.0f, 0, 1.0f, NULL},  {0.7f, 0, 1.0f, NULL},   {1.3f, 20, 1.0f, NULL},  {1.0f, 0, 0.6f, NULL},
    {0.9f, 50, 0.8f, NULL}, {1.0f, 1, 1.0f, NULL},   {5.0f, 200, 1.0f, NULL}, {9.0f, 0, 0.9f, NULL},
    {1.0f, 0, 1e-6f, NULL}, {2.0f, 7, 0.999f, NULL},
};
enum { N_SETTING = sizeof settings / sizeof settings[0] };

typedef struct {
    double logit;
    int id;
} item_t;

/* Descending logits; equal ones by id. */
static int compare_items(const void *a, const void *b)
{
    const item_t *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit ? 1 : -1) : x->id - y->id;
}

/* Probabilities of the kept set in the order temperature, top-k, top-p; 0 outside. */
static void sampling_twin(double *p, const float *logit, const qp_sampling_t *s)
{
    item_t item[V];
    double sum = 0.0, kept = 0.0;
    int n = V;
    for (int i = 0; i < V; i++) {
        item[i] = (item_t){(double)logit[i], i};
        p[i] = 0.0;
    }
    qsort(item, V, sizeof item[0], compare_items);
    if (s->top_k > 0) {
        n = (int)s->top_k;
        while (n < V && item[n].logit == item[n - 1].logit)
            n++;
    }
    for (int i = 0; i < n; i++)
        sum += p[item[i].id] = exp((item[i].logit - item[0].logit) / (double)s->temperature);
    for (int i = 0; i < n; i++) {
        double share = p[item[i].id] / sum;
        if (i > 0 && kept >= (double)s->top_p)
            p[item[i].id] = 0.0;
        kept += share;
    }
    sum = 0.0;
    for (int i = 0; i < V; i++)
        sum += p[i];
    for (int i = 0; i < V; i++)
        p[i] /= sum;
}

/* Logits for all rows at once. */
static void set_rows(tensor_t *rows, const float *logit)
{
    float *host = qp_alloc("test", tensor_bytes(rows));
    for (int64_t i = 0; i < rows->m.n_row * rows->m.ld; i++)
        host[i] = i % rows->m.ld < rows->m.n_col ? logit[i % rows->m.ld] : NAN;
    set_all(rows, host);
    qp_free(host);
}

/* The op with its small arrays from the host; forbid may be NULL. */
static qp_error_t sample_rows(qp_device_t *device, qp_mat_t logits, const qp_sampling_t *s,
                              const qp_philox_key_t *key, const uint32_t *sample,
                              const uint32_t *position, const uint32_t *forbid, int32_t *token,
                              float *logprob)
{
    const size_t bytes = qp_bytes(logits.n_row, 4);
    qp_queue_t *q = qp_device_queue(device);
    qp_dptr_t at[5] = {{0}};
    const void *from[] = {token, logprob, sample, position, forbid};
    for (int i = 0; i < 5; i++)
        if (from[i] != NULL)
            at[i] = upload_bytes(device, from[i], bytes);
    qp_error_t error = device->ops->sample(q, at[0], at[1], logits, s, key, at[2], at[3], at[4]);
    CHECK_OK(device->ops->download(q, token, at[0], bytes));
    CHECK_OK(device->ops->download(q, logprob, at[1], bytes));
    for (int i = 0; i < 5; i++)
        device->ops->release(device, &at[i]);
    return error;
}

/* Draws one row n times at positions 0, 1, ...; counts the tokens; returns the first draw's
 * logprob. */
static float draw_many(qp_device_t *device, const float *logit, const qp_sampling_t *s, int n,
                       int *count)
{
    enum { ROWS = 50 };
    tensor_t rows = make_tensor(device, QP_F32, ROWS, V);
    uint32_t sample[ROWS], position[ROWS];
    int32_t token[ROWS] = {0};
    float logprob[ROWS] = {0}, first = 0.0f;
    set_rows(&rows, logit);
    memset(count, 0, V * sizeof *count);
    for (int done = 0; done < n; done += ROWS) {
        qp_philox_key_t key = {.seed = 11, .step = 4};
        for (int i = 0; i < ROWS; i++) {
            sample[i] = 77;
            position[i] = (uint32_t)(done + i);
        }
        CHECK_OK(sample_rows(device, rows.m, s, &key, sample, position, NULL, token, logprob));
        first = done == 0 ? logprob[0] : first;
        for (int i = 0; i < ROWS; i++)
            if (CHECK(token[i] >= 0 && token[i] < V))
                count[token[i]]++;
    }
    free_tensor(&rows);
    return first;
}

static void fill_logits(float *logit, uint32_t site)
{
    qp_philox_key_t key = {.seed = 21, .site = site};
    for (int i = 0; i < V; i++) /* rounded, so that many are equal */
        logit[i] = roundf(qp_philox_normal(&key, (uint64_t)i) * 16.0f) / 8.0f;
    logit[17] = -INFINITY;
}

static void test_draws_follow_the_kept_distribution(qp_device_t *device)
{
    float logit[V];
    double p[V];
    int count[V];
    fill_logits(logit, 1);
    for (int s = 0; s < N_SETTING; s++) {
        sampling_twin(p, logit, &settings[s]);
        draw_many(device, logit, &settings[s], N_DRAW, count);
        double chi2 = 0.0;
        int n_cell = 0;
        for (int i = 0; i < V; i++) {
            CHECK_MSG(p[i] > 0.0 || count[i] == 0, "setting %d: token %d was dropped, but drawn", s,
                      i);
            double mean = N_DRAW * p[i];
            CHECK_MSG(count[i] > 0 || mean < 12.0, "setting %d: token %d was kept, but not drawn",
                      s, i);
            if (mean > 5.0) {
                chi2 += (count[i] - mean) * (count[i] - mean) / mean;
                n_cell++;
            }
        }
        double limit = n_cell + 5.0 * sqrt(2.0 * n_cell);
        CHECK_MSG(chi2 <= limit, "setting %d: chi2 %.1f of %d cells", s, chi2, n_cell);
    }
}

/* Few equal logits at the border of top-p: the lower ids stay. */
static void test_ties_go_by_id(qp_device_t *device)
{
    float logit[V];
    int count[V];
    for (int i = 0; i < V; i++)
        logit[i] = -INFINITY;
    logit[5] = logit[9] = logit[40] = logit[41] = 1.0f;
    const qp_sampling_t half = {1.0f, 0, 0.5f, NULL}, greedy = {0.0f, 0, 1.0f, NULL};
    draw_many(device, logit, &half, 200, count);
    CHECK(count[5] > 50 && count[9] > 50 && count[40] == 0 && count[41] == 0);
    draw_many(device, logit, &greedy, 50, count);
    CHECK(count[5] == 50);
}

static void test_logprob_is_unwarped(qp_device_t *device)
{
    float logit[V];
    int count[V];
    fill_logits(logit, 2);
    const qp_sampling_t greedy = {0.0f, 0, 1.0f, NULL}, warped = {0.3f, 1, 0.9f, NULL};
    double top = -INFINITY, sum = 0.0;
    for (int i = 0; i < V; i++)
        top = fmax(top, (double)logit[i]);
    for (int i = 0; i < V; i++)
        sum += exp((double)logit[i] - top);
    CHECK(fabs((double)draw_many(device, logit, &greedy, 50, count) + log(sum)) < 1e-6);
    CHECK(fabs((double)draw_many(device, logit, &warped, 50, count) + log(sum)) < 1e-6);
}

/* Kept sets of HF's warpers (tests/golden/make_sampling.py): every kept token is drawn, no other.
 */
static void test_transformers(qp_device_t *device)
{
    enum { N_CASE = 4, N_TOKEN = 40 };
    const qp_sampling_t hf[N_CASE] = {{1.0f, 0, 0.7f, NULL},
                                      {0.8f, 12, 1.0f, NULL},
                                      {1.5f, 15, 0.75f, NULL},
                                      {0.7f, 0, 0.3f, NULL}};
    float golden[N_CASE][2][N_TOKEN], logit[V];
    int count[V];
    FILE *file = fopen(qp_test_source("tests/golden/sampling.f32"), "rb");
    CHECK(file != NULL && fread(golden, sizeof golden, 1, file) == 1);
    if (file != NULL)
        fclose(file);
    for (int c = 0; c < N_CASE; c++) {
        for (int i = 0; i < V; i++)
            logit[i] = i < N_TOKEN ? golden[c][0][i] : -INFINITY;
        draw_many(device, logit, &hf[c], N_DRAW, count);
        for (int i = 0; i < N_TOKEN; i++)
            CHECK_MSG((count[i] > 0) == (golden[c][1][i] > 0.0f), "HF case %d, token %d: drawn %d",
                      c, i, count[i]);
    }
}

static void test_nan_is_told(qp_device_t *device)
{
    tensor_t rows = make_normal(device, QP_F32, 3, V, 1);
    set_element(&rows, 1, 7, NAN);
    const uint32_t sample[3] = {4, 5, 6}, position[3] = {0, 8, 0};
    int32_t token[3] = {0};
    float logprob[3] = {0};
    qp_philox_key_t key = {0};
    CHECK_OK(sample_rows(device, rows.m, settings, &key, sample, position, NULL, token, logprob));
    CHECK(token[0] >= 0 && token[1] == -1 && token[2] >= 0);
    free_tensor(&rows);
}

/* Weights are added up in chunks: tokens of the same weight are drawn alike wherever they stand. */
static void test_large_vocabulary(qp_device_t *device)
{
    enum { ROWS = 300, LARGE = 2500, N_LIKELY = 3 };
    static const int32_t likely[N_LIKELY] = {5, 1500, 2499};
    static const qp_sampling_t plain = {1.0f, 0, 1.0f, NULL};
    uint32_t sample[ROWS] = {0}, position[ROWS];
    int32_t token[ROWS] = {0};
    float logprob[ROWS] = {0};
    int count[N_LIKELY] = {0};
    tensor_t rows = make_tensor(device, QP_F32, ROWS, LARGE);
    float logit[LARGE];
    for (int j = 0; j < LARGE; j++)
        logit[j] = -INFINITY;
    for (int k = 0; k < N_LIKELY; k++)
        logit[likely[k]] = 1.0f;
    set_rows(&rows, logit);
    for (int i = 0; i < ROWS; i++)
        position[i] = (uint32_t)i;
    const qp_philox_key_t key = {.seed = 5};
    CHECK_OK(sample_rows(device, rows.m, &plain, &key, sample, position, NULL, token, logprob));
    for (int i = 0; i < ROWS; i++)
        for (int k = 0; k < N_LIKELY; k++)
            count[k] += token[i] == likely[k];
    for (int k = 0; k < N_LIKELY; k++) /* 100 each, standard deviation 8 */
        CHECK_MSG(count[k] > 60 && count[k] < 140, "token %d: %d of %d", likely[k], count[k], ROWS);
    free_tensor(&rows);
}

/* Forbidden tokens are not drawn, however likely; the others' log-probabilities count them. */
static void test_forbidden(qp_device_t *device)
{
    enum { ROWS = 3, LIKELY = 7, NEXT = 9, THIRD = 4 };
    static const qp_eos_t both = {2, {LIKELY, NEXT}};
    static const qp_sampling_t ways[] = {
        {0.0f, 0, 1.0f, &both}, {1.0f, 0, 1.0f, &both}, {0.8f, 2, 0.9f, &both}};
    const uint32_t sample[ROWS] = {0}, position[ROWS] = {0};
    const uint32_t forbid[ROWS] = {0, 1, 0};
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        tensor_t rows = make_tensor(device, QP_F32, ROWS, V);
        for (int64_t i = 0; i < ROWS; i++)
            for (int64_t j = 0; j < V; j++)
                set_element(&rows, i, j,
                            j == LIKELY  ? 200.0
                            : j == NEXT  ? 150.0
                            : j == THIRD ? 50.0
                                         : 0.0);
        int32_t token[ROWS] = {0};
        float logprob[ROWS] = {0};
        const qp_philox_key_t key = {.seed = 3};
        CHECK_OK(
            sample_rows(device, rows.m, &ways[w], &key, sample, position, forbid, token, logprob));
        CHECK(token[0] == LIKELY && token[1] == THIRD && token[2] == LIKELY);
        CHECK(logprob[0] == 0.0f && logprob[1] == -150.0f && logprob[2] == 0.0f);
        free_tensor(&rows);
    }
}

int main(void)
{
    qp_device_t *device = open_device(2);
    test_draws_follow_the_kept_distribution(device);
    test_ties_go_by_id(device);
    test_logprob_is_unwarped(device);
    test_transformers(device);
    test_nan_is_told(device);
    test_large_vocabulary(device);
    test_forbidden(device);
    qp_device_close(&device);
    return qp_test_end();
}
