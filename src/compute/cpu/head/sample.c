/*
 * Drawing tokens. The kept set of top-k and top-p is found by bisection on a threshold instead of
 * by sorting: 32 vectorised passes at most, whatever the logits look like.
 */
#include "compute/cpu/cpu.h"
#include "compute/cpu/rows/math.h"

#include <limits.h>
#include <math.h>

/* An integer that orders as the float does; -0 and 0 are equal. */
static inline int32_t order_of(float x)
{
    float y = x + 0.0f;
    int32_t bits;
    memcpy(&bits, &y, sizeof bits);
    return bits ^ (bits < 0 ? INT_MAX : 0);
}

/* One row being drawn from. */
typedef struct {
    const float *logit;
    float
        *weight; /* exp(logit - top), then of (logit - top) / temperature; 0 outside the kept set */
    int64_t n;
    float top;      /* largest logit */
    double log_sum; /* log of the sum of exp(logit - top) */
} row_t;

QP_CPU_CLONES static int64_t count_at_least(const row_t *row, int32_t order)
{
    int64_t n = 0;
    for (int64_t i = 0; i < row->n; i++)
        n += order_of(row->logit[i]) >= order;
    return n;
}

QP_CPU_CLONES static double mass_at_most(const row_t *row, int32_t order)
{
    double mass = 0.0;
#pragma omp simd reduction(+ : mass)
    for (int64_t i = 0; i < row->n; i++)
        mass += order_of(row->logit[i]) <= order ? (double)row->weight[i] : 0.0;
    return mass;
}

/* Sum of a chunk's weights. */
static inline double chunk_mass(const float *restrict weight, int64_t n)
{
    float mass = 0.0f;
#pragma omp simd reduction(+ : mass)
    for (int64_t i = 0; i < n; i++)
        mass += weight[i];
    return (double)mass;
}

QP_CPU_CLONES static double mass_of(const row_t *row)
{
    double mass = 0.0;
    for (int64_t i = 0; i < row->n; i += QP_CPU_CHUNK)
        mass += chunk_mass(row->weight + i, qp_min_i64(row->n - i, QP_CPU_CHUNK));
    return mass;
}

QP_CPU_CLONES static void weigh_row(const row_t *row, float temperature)
{
    float *restrict weight = row->weight, scale = 1.0f / temperature;
    for (int64_t i = 0; i < row->n; i++)
        weight[i] = qp_cpu_expf((row->logit[i] - row->top) * scale);
}

/* Finds the top; false if a logit is NaN or infinite, or all are -infinity. */
QP_CPU_CLONES static bool scan_row(row_t *row)
{
    float top = -INFINITY;
    int bad = 0;
    for (int64_t i = 0; i < row->n; i++)
        bad |= !(row->logit[i] < INFINITY);
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < row->n; i++)
        top = row->logit[i] > top ? row->logit[i] : top;
    row->top = top;
    if (bad || top == -INFINITY)
        return false;
    weigh_row(row, 1.0f);
    row->log_sum = log(mass_of(row));
    return true;
}

/* Keeps the k largest; all that equal the smallest of them stay, as in HF's TopKLogitsWarper. */
static void keep_top_k(const row_t *row, int64_t k)
{
    int64_t low = INT_MIN, high = order_of(row->top); /* count(low) >= k, high may still qualify */
    while (low < high) {
        int64_t middle = low + (high - low + 1) / 2;
        if (count_at_least(row, (int32_t)middle) >= k)
            low = middle;
        else
            high = middle - 1;
    }
    for (int64_t i = 0; i < row->n; i++)
        if (order_of(row->logit[i]) < low)
            row->weight[i] = 0.0f;
}

/*
 * HF's TopPLogitsWarper: in ascending order, tokens are dropped while the sum up to and including
 * them is at most 1 - p. Among equal logits the highest ids are dropped first.
 */
static void keep_top_p(const row_t *row, double p)
{
    double limit = (1.0 - p) * mass_at_most(row, INT_MAX);
    int64_t low = (int64_t)INT_MIN - 1, high = (int64_t)order_of(row->top) - 1;
    while (low < high) { /* the largest order whose mass may be dropped whole */
        int64_t middle = low + (high - low + 1) / 2;
        if (mass_at_most(row, (int32_t)middle) <= limit)
            low = middle;
        else
            high = middle - 1;
    }
    double left = limit - (low < INT_MIN ? 0.0 : mass_at_most(row, (int32_t)low));
    int64_t border = low + 1, n_kept = 0; /* tokens of this order are dropped in part */
    for (int64_t i = 0; i < row->n; i++) {
        int64_t order = order_of(row->logit[i]);
        if (order < border)
            row->weight[i] = 0.0f;
        n_kept += order >= border;
    }
    for (int64_t i = row->n - 1; i >= 0 && n_kept > 1; i--)
        if (order_of(row->logit[i]) == border && row->weight[i] > 0.0f) {
            left -= (double)row->weight[i];
            if (left < 0.0)
                break;
            row->weight[i] = 0.0f;
            n_kept--;
        }
}

/* The first token of positive weight whose cumulative weight, in order of ids, exceeds u times the
 * whole. */
static int64_t draw(const row_t *row, double u)
{
    const double limit = u * mass_of(row);
    double sum = 0.0;
    int64_t last = 0;
    for (int64_t i = 0; i < row->n; i += QP_CPU_CHUNK) {
        const int64_t end = qp_min_i64(row->n, i + QP_CPU_CHUNK);
        const double after = sum + chunk_mass(row->weight + i, end - i);
        for (int64_t j = i; after > limit && j < end && sum <= limit; j++) {
            sum += (double)row->weight[j];
            last = row->weight[j] > 0.0f ? j : last;
        }
        if (after > limit)
            return last;
        sum = after;
    }
    for (last = row->n - 1; last > 0 && row->weight[last] <= 0.0f; last--)
        ; /* u = 1 to rounding */
    return last;
}

static int64_t largest(const row_t *row)
{
    int64_t i = 0;
    while (row->logit[i] < row->top)
        i++;
    return i;
}

static int64_t choose(const row_t *row, const qp_sampling_t *sampling, const qp_philox_key_t *key)
{
    if (sampling->temperature == 0.0f)
        return largest(row);
    if (sampling->temperature != 1.0f)
        weigh_row(row, sampling->temperature);
    if (sampling->top_k > 0 && sampling->top_k < row->n)
        keep_top_k(row, sampling->top_k);
    if (sampling->top_p < 1.0f)
        keep_top_p(row, (double)sampling->top_p);
    return draw(row, (double)qp_philox_uniform(key, 0));
}

static size_t weight_bytes(const qp_cpu_device_t *device, int64_t n_vocab)
{
    return qp_bytes(n_vocab * device->n_thread, sizeof(float));
}

void qp_cpu_sample_scratch(const qp_cpu_device_t *device, const qp_pass_size_t *size,
                           qp_cpu_scratch_need_t *need)
{
    if (size->n_decode > 0)
        qp_cpu_need(need, QP_SCRATCH_SAMPLE, weight_bytes(device, size->n_vocab));
}

qp_error_t qp_cpu_sample(qp_queue_t *q, qp_dptr_t token, qp_dptr_t logprob, qp_mat_t logits,
                         const qp_sampling_t *sampling, const qp_philox_key_t *key,
                         qp_dptr_t sample, qp_dptr_t position, qp_dptr_t forbid)
{
    qp_cpu_device_t *device = qp_cpu_device(q);
    QP_ASSERT(logits.dtype == QP_F32 && sampling->temperature >= 0.0f);
    float *weight = qp_cpu_scratch(device, QP_SCRATCH_SAMPLE, weight_bytes(device, logits.n_col));
    const uint32_t *no = qp_dptr_is_null(forbid) ? NULL : qp_cpu_u32(forbid);
#pragma omp parallel for schedule(dynamic) num_threads(device->n_thread)
    for (int64_t i = 0; i < logits.n_row; i++) {
        row_t row = {.logit = qp_cpu_at(&logits, i, 0),
                     .weight = weight + omp_get_thread_num() * logits.n_col,
                     .n = logits.n_col};
        bool good = scan_row(&row);
        const row_t all = row; /* what the log-probability refers to */
        if (good && no != NULL && no[i]) {
            for (int k = 0; k < sampling->forbidden->n; k++)
                *(float *)qp_cpu_at(&logits, i, sampling->forbidden->id[k]) = -INFINITY;
            good = scan_row(&row);
        }
        qp_cpu_i32(token)[i] = -1;
        qp_cpu_f32(logprob)[i] = 0.0f;
        if (!good)
            continue;
        qp_philox_key_t row_key = *key;
        row_key.sample = qp_cpu_u32(sample)[i];
        row_key.position = qp_cpu_u32(position)[i];
        row_key.site = QP_SITE_SAMPLING;
        int64_t choice = choose(&row, sampling, &row_key);
        qp_cpu_i32(token)[i] = (int32_t)choice;
        qp_cpu_f32(logprob)[i] = (float)((double)(all.logit[choice] - all.top) - all.log_sum);
    }
    return NULL;
}
