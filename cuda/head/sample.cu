/*
 * Drawing tokens: a row per block. Weights are whole numbers, of which a sum is the same in any
 * order, so shared counters may be added to atomically. The kept sets of top-k and top-p are found
 * by counting along the bits of the logits instead of by sorting: three passes over the row.
 */
#include <float.h>

#include "cuda/core/philox.cuh"

enum { MAX_BLOCK = 1024, MAX_WARP = MAX_BLOCK / QP_WARP };
enum { ALL_LANES = -1 }; /* a mask */

/* Weights, their sums, counts of tokens. */
typedef unsigned long long amount_t;

/* One row being drawn from. */
typedef struct {
    const float *logit;
    int64_t n;
    float top;   /* largest logit */
    float scale; /* 1 / temperature */
    float one;   /* as what 1 is counted: a power of two that all of the row's weights may have */
} row_t;

/* --- numbers ---------------------------------------------------------------------------------- */

/* exp(x) for x <= 0, to 2 ulp: qp_cpu_expf() as it is where the CPU fuses multiply and add. */
static __device__ float exp_of(float x)
{
    const float y = x < -87.33f ? -87.33f : x;
    const float shifted = fmaf(y, 0x1.715476p0f, 0x1.8p23f), n = shifted - 0x1.8p23f;
    const float r = fmaf(n, 0x1.bd0106p-13f, fmaf(n, -0x1.63p-1f, y));
    float p = fmaf(0x1.6a2254p-10f, r, 0x1.123b02p-7f);
    p = fmaf(p, r, 0x1.5558f8p-5f);
    p = fmaf(p, r, 0x1.55549p-3f);
    p = fmaf(p, r, 0x1.fffffcp-2f);
    p = fmaf(p * r, r, r) + 1.0f;
    p = __uint_as_float(__float_as_uint(p) + (__float_as_uint(shifted) << 23));
    return x < -87.33f ? 0.0f : p;
}

/* A whole number that orders as the float does; -0 and 0 are equal. Above 0 but for NaN. */
static __device__ uint32_t key_of(float x)
{
    const uint32_t bits = x == 0.0f ? 0 : __float_as_uint(x);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

static __device__ float logit_of(uint32_t key)
{
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

/* What is above 0 counts 1 at least: it may be drawn. */
static __device__ amount_t weight_of(const row_t &row, float logit)
{
    const float p = exp_of((logit - row.top) * row.scale);
    const amount_t w = (amount_t)(p * row.one);
    return w == 0 && p > 0.0f ? 1 : w;
}

/* --- sums ------------------------------------------------------------------------------------- */

/* The sum of this lane and those before it. */
static __device__ amount_t warp_scan(amount_t x)
{
    for (int h = 1; h < QP_WARP; h *= 2) {
        const amount_t before = __shfl_up_sync((unsigned)ALL_LANES, x, h);
        x += (int)threadIdx.x % QP_WARP >= h ? before : 0;
    }
    return x;
}

/* The weight of all tokens whose key is not below least. */
static __device__ amount_t mass_of(const row_t &row, uint32_t least)
{
    amount_t sum = 0;
    for (int64_t i = threadIdx.x; i < row.n; i += blockDim.x)
        sum += key_of(row.logit[i]) >= least ? weight_of(row, row.logit[i]) : 0;
    return qp_block_sum(sum);
}

/* The largest logit; NaN if one is. */
static __device__ float top_of(const row_t &row)
{
    float top = -INFINITY;
    for (int64_t i = threadIdx.x; i < row.n; i += blockDim.x)
        top = qp_max(top, row.logit[i]);
    return qp_block_max(top, -INFINITY);
}

static __device__ bool is_good(float top)
{
    return top < INFINITY && top > -INFINITY;
}

/* The lowest id of the largest logit. */
static __device__ int64_t largest(const row_t &row)
{
    QP_SHARED(amount_t, lowest, [1]);
    if (threadIdx.x == 0)
        lowest[0] = (amount_t)row.n;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < row.n; i += blockDim.x)
        if (row.logit[i] == row.top) {
            atomicMin(&lowest[0], (amount_t)i);
            break;
        }
    __syncthreads();
    return (int64_t)lowest[0];
}

/* --- kept sets -------------------------------------------------------------------------------- */

enum { DIGIT = 11, N_BIN = 1 << DIGIT, GROUP = N_BIN / QP_WARP }; /* bits of a key at a time */

typedef struct {
    uint32_t key;
    amount_t above, at; /* what keys above it have, and what it has */
} border_t;

/*
 * The first bin up to and including which there is need; before and in it. By one warp: its lanes
 * sum a group of bins each, in turns that keep them apart, then two bins of the group each.
 */
static __device__ void find_bin(const amount_t *bin, amount_t need, border_t *found)
{
    const int lane = (int)threadIdx.x % QP_WARP;
    amount_t sum = 0;
    for (int j = 0; j < GROUP; j++)
        sum += bin[GROUP * lane + (j + lane) % GROUP];
    const amount_t upto = warp_scan(sum);
    const int group = __ffs((int)__ballot_sync((unsigned)ALL_LANES, upto >= need)) - 1;
    const amount_t before = __shfl_sync((unsigned)ALL_LANES, upto - sum, group);
    const int first = GROUP * group + 2 * lane;
    const amount_t a = bin[first], b = bin[first + 1], end = before + warp_scan(a + b);
    const int which = __ffs((int)__ballot_sync((unsigned)ALL_LANES, end >= need)) - 1;
    if (lane != which)
        return;
    const bool second = end - b < need;
    *found = border_t{(uint32_t)(first + second), end - (second ? b : a + b), second ? b : a};
}

/*
 * The largest key such that tokens whose keys are not below it have \a need (> 0, and there is so
 * much): of their number, or of their weight. Tokens below \a least do not count. Digit by digit
 * from the highest; bins stand in falling order.
 */
template <bool WEIGHT>
static __device__ border_t find_border(const row_t &row, uint32_t least, amount_t need)
{
    QP_SHARED(amount_t, bin, [N_BIN]);
    QP_SHARED(border_t, found, [1]);
    border_t border = {};
    int n_left = 32;
    while (n_left > 0) {
        const int n_digit = n_left < DIGIT ? n_left : DIGIT, shift = n_left - n_digit;
        const uint32_t mask = (1u << n_digit) - 1;
        for (int i = (int)threadIdx.x; i < N_BIN; i += (int)blockDim.x)
            bin[i] = 0;
        __syncthreads();
        for (int64_t i = threadIdx.x; i < row.n; i += blockDim.x) {
            const float logit = row.logit[i];
            const uint32_t key = key_of(logit);
            const bool counts = key >= least && (n_left == 32 || key >> n_left == border.key);
            const amount_t amount = !counts ? 0 : WEIGHT ? weight_of(row, logit) : 1;
            if (amount > 0)
                atomicAdd(&bin[mask - ((key >> shift) & mask)], amount);
        }
        __syncthreads();
        if (threadIdx.x < QP_WARP)
            find_bin(bin, need - border.above, &found[0]);
        __syncthreads();
        border.key = border.key << n_digit | (mask - found[0].key);
        border.above += found[0].above;
        border.at = found[0].at;
        n_left = shift;
    }
    return border;
}

/* What may be drawn: tokens of keys above least, and the first n_least of those that have it. */
typedef struct {
    uint32_t least;
    amount_t n_least;
    amount_t mass; /* of all of them */
} kept_t;

/*
 * HF's TopPLogitsWarper: in ascending order, tokens are dropped while the sum up to and including
 * them is at most 1 - p. Among equal logits the highest ids are dropped first; one token stays.
 */
static __device__ kept_t keep_top_p(const row_t &row, const kept_t &all, double p)
{
    const double share = (1.0 - p) * (double)all.mass;
    const amount_t may_go = share < (double)all.mass ? (amount_t)share : all.mass;
    const amount_t need = all.mass > may_go ? all.mass - may_go : 1;
    const border_t border = find_border<true>(row, all.least, need);
    const amount_t each = weight_of(row, logit_of(border.key)), n = border.at / each;
    const amount_t left = may_go - (all.mass - border.above - border.at), n_go = left / each;
    const amount_t n_stay = n - (n_go < n ? n_go : n - 1);
    return kept_t{border.key, n_stay, border.above + n_stay * each};
}

/* Top-k keeps all that equal the smallest of the k largest, as HF's TopKLogitsWarper. */
static __device__ kept_t keep(const row_t &row, int64_t top_k, float top_p)
{
    kept_t kept = {0, (amount_t)row.n, 0};
    if (top_k > 0 && top_k < row.n)
        kept.least = find_border<false>(row, 0, (amount_t)top_k).key;
    kept.mass = mass_of(row, kept.least);
    return top_p < 1.0f ? keep_top_p(row, kept, (double)top_p) : kept;
}

/* --- draw ------------------------------------------------------------------------------------- */

/* What stands before a place in the row: the weight, and the number of tokens at the border. */
typedef struct {
    int64_t first;
    amount_t mass, n_least;
} place_t;

/*
 * Goes to the first of pieces of \a each tokens behind whose end the weight is above limit. Lane i
 * knows of piece i the weight above the border and the number of tokens at it.
 */
static __device__ place_t step_into(const place_t &at, const kept_t &kept, amount_t each_least,
                                    amount_t mass, amount_t n_least, amount_t limit, int64_t each)
{
    const amount_t n_upto = at.n_least + warp_scan(n_least), n_before = n_upto - n_least;
    const amount_t stay = kept.n_least < n_upto ? kept.n_least : n_upto;
    mass += (stay > n_before ? stay - n_before : 0) * each_least;
    const amount_t upto = at.mass + warp_scan(mass);
    const int piece = __ffs((int)__ballot_sync((unsigned)ALL_LANES, upto > limit)) - 1;
    return place_t{at.first + piece * each, __shfl_sync((unsigned)ALL_LANES, upto - mass, piece),
                   __shfl_sync((unsigned)ALL_LANES, n_before, piece)};
}

/*
 * The first token whose cumulative weight, in order of ids, exceeds limit: each warp sums a piece
 * of the row, then a piece of the piece that holds it ..., the last 32 tokens are one a lane.
 */
static __device__ int64_t draw(const row_t &row, const kept_t &kept, amount_t limit)
{
    QP_SHARED(amount_t, mass_of_piece, [MAX_WARP]);
    QP_SHARED(amount_t, n_of_piece, [MAX_WARP]);
    const int lane = (int)threadIdx.x % QP_WARP, warp = (int)threadIdx.x / QP_WARP;
    const int n_warp = (int)blockDim.x / QP_WARP;
    const amount_t each_least = kept.least > 0 ? weight_of(row, logit_of(kept.least)) : 0;
    place_t at = {0, 0, 0};
    int64_t end = row.n, each = row.n;
    while (each > 1) {
        const bool last = end - at.first <= QP_WARP;
        each = last ? 1 : (end - at.first + n_warp - 1) / n_warp;
        const int64_t first = at.first + (last ? lane : warp * each);
        const int64_t piece_end = last || first + each > end ? end : first + each;
        amount_t mass = 0, n_least = 0;
        for (int64_t i = last ? first : first + lane; i < piece_end; i += QP_WARP) {
            const uint32_t key = key_of(row.logit[i]);
            mass += key > kept.least ? weight_of(row, row.logit[i]) : 0;
            n_least += key == kept.least;
        }
        if (!last) {
            mass = qp_warp_sum(mass);
            n_least = qp_warp_sum(n_least);
            if (lane == 0) {
                mass_of_piece[warp] = mass;
                n_of_piece[warp] = n_least;
            }
            __syncthreads();
            mass = lane < n_warp ? mass_of_piece[lane] : 0;
            n_least = lane < n_warp ? n_of_piece[lane] : 0;
            __syncthreads();
        }
        at = step_into(at, kept, each_least, mass, n_least, limit, each);
        end = at.first + each < end ? at.first + each : end;
    }
    return at.first;
}

/* --- the op ----------------------------------------------------------------------------------- */

typedef struct {
    int32_t *token;
    float *logprob;
    qp_mat_t logits;
    float temperature, scale, top_p, one;
    int64_t top_k;
    qp_eos_t forbidden;
    qp_philox_key_t key; /* but for sample and position */
    const uint32_t *sample, *position, *forbid;
} sample_t;

/* Word 0 of the key's stream as a uniform has 24 bits; u times the mass, rounded down. */
static __device__ amount_t limit_of(const sample_t &s, int64_t n, amount_t mass)
{
    uint32_t word[4];
    qp_philox_key_t key = s.key;
    key.sample = s.sample[n];
    key.position = s.position[n];
    qp_philox_words(key, 0, word);
    const amount_t u = word[0] >> 8;
    return (mass >> 24) * u + (((mass & 0xffffffu) * u) >> 24);
}

static __device__ void forbid(const sample_t &s, int64_t n)
{
    if ((int)threadIdx.x < s.forbidden.n)
        qp_at<float>(s.logits.data)[n * s.logits.ld + s.forbidden.id[threadIdx.x]] = -INFINITY;
    __syncthreads();
}

static __global__ void __launch_bounds__(MAX_BLOCK) sample_kernel(sample_t s)
{
    const int64_t n = blockIdx.x;
    row_t row = {.logit = qp_at<const float>(s.logits.data) + n * s.logits.ld,
                 .n = s.logits.n_col,
                 .top = 0.0f,
                 .scale = 1.0f,
                 .one = s.one};
    row.top = top_of(row);
    bool good = is_good(row.top);
    const float top = row.top; /* what the log-probability refers to */
    const amount_t mass = good ? mass_of(row, 0) : 0;
    if (good && s.forbid != NULL && s.forbid[n] != 0) {
        forbid(s, n);
        row.top = top_of(row);
        good = is_good(row.top);
    }
    int64_t token = -1;
    if (good && s.temperature == 0.0f) {
        token = largest(row);
    } else if (good) {
        row.scale = s.scale;
        const kept_t kept = keep(row, s.top_k, s.top_p);
        token = draw(row, kept, limit_of(s, n, kept.mass));
    }
    if (threadIdx.x != 0)
        return;
    s.token[n] = (int32_t)token;
    s.logprob[n] =
        !good ? 0.0f
              : (float)((double)(row.logit[token] - top) - log((double)mass / (double)s.one));
}

/* Threads for a row: some elements each. */
static unsigned block_of(int64_t n_vocab)
{
    unsigned block = 2 * QP_WARP;
    while (block < MAX_BLOCK && block * 8 < n_vocab)
        block *= 2;
    return block;
}

QP_CUDA_BEGIN

qp_error_t qp_cuda_sample(qp_queue_t *q, qp_dptr_t token, qp_dptr_t logprob, qp_mat_t logits,
                          const qp_sampling_t *sampling, const qp_philox_key_t *key,
                          qp_dptr_t sample, qp_dptr_t position, qp_dptr_t forbid)
{
    QP_ASSERT(logits.dtype == QP_F32 && sampling->temperature >= 0.0f);
    if (logits.n_row == 0)
        return NULL;
    sample_t s = {.token = qp_at<int32_t>(token),
                  .logprob = qp_at<float>(logprob),
                  .logits = logits,
                  .temperature = sampling->temperature,
                  .scale = fminf(1.0f / sampling->temperature, FLT_MAX),
                  .top_p = sampling->top_p,
                  .one = 0x1p62f,
                  .top_k = sampling->top_k,
                  .forbidden = {},
                  .key = *key,
                  .sample = qp_at<const uint32_t>(sample),
                  .position = qp_at<const uint32_t>(position),
                  .forbid = qp_at<const uint32_t>(forbid)};
    s.key.site = QP_SITE_SAMPLING;
    if (sampling->forbidden != NULL)
        s.forbidden = *sampling->forbidden;
    for (int64_t n = logits.n_col; n > 0; n /= 2)
        s.one *= 0.5f;
    return QP_LAUNCH(q, sample_kernel, (unsigned)logits.n_row, block_of(logits.n_col), s);
}

QP_CUDA_END
