/* QP_TEST: isa=AVX2,AVX512_CORE_VNNI,AVX512_CORE_BF16 check=0
 * Attention over the paged cache: prefill in parts and token by token gives what training attention
 * gives, and a sequence's bits do not depend on its neighbours, nor those of a prompt on the parts
 * it comes in. In int8, the cache holds exactly what the rule says and the result is that of it. */
#include "attention_twin.h"
#include "cpu_testing.h"

enum { MAX_HEAD = 128, N_SEQ = 3, BLOCK = 16, TABLE = 40, N_BLOCK = N_SEQ * TABLE };

typedef struct {
    qp_attention_t a;
    qp_dtype_t dtype, cache_dtype;
} case_t;

static const case_t cases[] = {
    {{9, 3, 64, 0.125f}, QP_F32, QP_F32},      {{9, 3, 64, 0.125f}, QP_BF16, QP_BF16},
    {{4, 4, 80, 0.1118f}, QP_F32, QP_F32},     {{2, 1, 33, 0.17408f}, QP_BF16, QP_BF16},
    {{4, 1, 128, 0.08839f}, QP_BF16, QP_BF16}, {{10, 2, 64, 0.125f}, QP_BF16, QP_BF16},
    {{9, 3, 64, 0.125f}, QP_F32, QP_I8},       {{2, 1, 33, 0.17408f}, QP_F32, QP_I8},
    {{4, 2, 128, 0.08839f}, QP_BF16, QP_I8},
};
enum { N_CASE = sizeof cases / sizeof cases[0] };

/* New tokens per sequence and call: long and short prefill, decode, a prefill on top of a past. The
 * first n_decode sequences go the way of decoding. */
static const struct {
    int n_decode;
    int32_t n_new[N_SEQ];
} calls[] = {{0, {300, 9, 1}}, {3, {1, 1, 1}}, {1, {7, 140, 8}},
             {3, {1, 300, 1}}, {0, {1, 1, 1}}, {2, {1, 2, 290}}};
enum { N_CALL = sizeof calls / sizeof calls[0] };

typedef struct {
    tensor_t k, v; /* int8: their scales */
    qp_kv_t kv;
    int32_t table[N_BLOCK], n_past[N_SEQ];
} cache_t;

/* Blocks of the sequences interleaved backwards, so that nothing works by accident. */
static void init_cache(cache_t *cache, qp_device_t *device, const case_t *c)
{
    const bool int8 = c->cache_dtype == QP_I8;
    const qp_dtype_t dtype = int8 ? QP_F32 : c->cache_dtype;
    const int64_t n_kv = c->a.n_kv_head * c->a.head_dim, n_row = N_BLOCK * BLOCK;
    cache->k = make_tensor(device, dtype, n_row, int8 ? c->a.n_kv_head : n_kv);
    cache->v = make_tensor(device, dtype, n_row, int8 ? c->a.n_kv_head : n_kv);
    cache->kv = (qp_kv_t){.k = cache->k.m, .v = cache->v.m, .block_len = BLOCK};
    if (int8) {
        qp_mat_t m = {.dtype = QP_I8, .n_row = n_row, .n_col = n_kv, .ld = n_kv + ROW_GAP};
        cache->kv = (qp_kv_t){m, m, cache->k.m, cache->v.m, BLOCK};
        CHECK_OK(device->ops->alloc(device, "test", (size_t)(n_row * m.ld), &cache->kv.k.data));
        CHECK_OK(device->ops->alloc(device, "test", (size_t)(n_row * m.ld), &cache->kv.v.data));
    }
    for (int s = 0; s < N_SEQ; s++) {
        cache->n_past[s] = 0;
        for (int i = 0; i < TABLE; i++)
            cache->table[s * TABLE + i] = N_BLOCK - 1 - (i * N_SEQ + s);
    }
}

static void free_cache(cache_t *cache)
{
    if (cache->kv.k.dtype == QP_I8) {
        cache->k.device->ops->release(cache->k.device, &cache->kv.k.data);
        cache->k.device->ops->release(cache->k.device, &cache->kv.v.data);
    }
    free_tensor(&cache->k);
    free_tensor(&cache->v);
}

/* One call for sequences [first, end): appends and attends; out rows go to their place in all. */
static void call_cached(qp_device_t *device, const case_t *c, cache_t *cache, const int32_t *n_new,
                        int n_decode, int first, int end, const tensor_t *qkv, const int64_t *start,
                        tensor_t *all)
{
    qp_queue_t *q = qp_device_queue(device);
    batch_t batch = make_batch(device, end - first, n_new + first, cache->n_past + first);
    tensor_t in = make_tensor(device, c->dtype, batch.r.n_token, qkv->m.n_col);
    tensor_t out = make_tensor(device, c->dtype, batch.r.n_token, all->m.n_col);
    for (int s = first; s < end; s++)
        copy_rows(&in, batch.cu_seqlens[s - first], qkv, start[s] + cache->n_past[s], n_new[s]);
    qp_kv_map_t map = {.n_seq = end - first,
                       .n_past = cache->n_past + first,
                       .block_table = cache->table + first * TABLE,
                       .table_ld = TABLE,
                       .n_decode = n_decode};
    const size_t n = (size_t)map.n_seq * sizeof(int32_t);
    map.n_past_device = upload_bytes(device, map.n_past, n);
    map.block_table_device = upload_bytes(device, map.block_table, n * TABLE);
    CHECK_OK(device->ops->kv_append(q, &cache->kv, in.m, &c->a, &batch.r, &map));
    CHECK_OK(device->ops->attention_cached(q, out.m, in.m, &cache->kv, &c->a, &batch.r, &map));
    for (int s = first; s < end; s++)
        copy_rows(all, start[s] + cache->n_past[s], &out, batch.cu_seqlens[s - first], n_new[s]);
    device->ops->release(device, &map.n_past_device);
    device->ops->release(device, &map.block_table_device);
    free_tensor(&in);
    free_tensor(&out);
    free_batch(device, &batch);
}

/* The rule of ops.h on one head: x as whole numbers and their scale. */
static float quantise(int8_t *q, const double *x, int64_t n)
{
    float absmax = 0.0f;
    for (int64_t i = 0; i < n; i++)
        absmax = fmaxf(absmax, fabsf((float)x[i]));
    for (int64_t i = 0; i < n; i++)
        q[i] = absmax > 0.0f ? (int8_t)nearbyintf((float)x[i] * (127.0f / absmax)) : 0;
    return absmax / 127.0f;
}

/* The cache holds the quantised keys and values of all tokens, bit for bit. */
static void check_stored(const case_t *c, const cache_t *cache, const tensor_t *qkv,
                         const int64_t *start)
{
    const int64_t e = c->a.head_dim, n_kv = c->a.n_kv_head, ld = qkv->m.n_col;
    qp_device_t *device = qkv->device;
    int64_t n_wrong = 0;
    for (int s = 0; s < N_SEQ; s++)
        for (int64_t t = 0; t < cache->n_past[s]; t++)
            for (int64_t g = 0; g < 2 * n_kv; g++) {
                int8_t expected[MAX_HEAD];
                const float scale =
                    quantise(expected, qkv->x + (start[s] + t) * ld + (c->a.n_head + g) * e, e);
                const qp_mat_t *m = g < n_kv ? &cache->kv.k : &cache->kv.v;
                const int64_t row = cache->table[s * TABLE + t / BLOCK] * BLOCK + t % BLOCK;
                int8_t stored[MAX_HEAD];
                CHECK_OK(device->ops->download(
                    qp_device_queue(device), stored,
                    qp_mat_cols(qp_mat_rows(*m, row, 1), g % n_kv * e, e).data, (size_t)e));
                n_wrong += memcmp(expected, stored, (size_t)e) != 0;
                n_wrong +=
                    (double)scale != get_element(g < n_kv ? &cache->k : &cache->v, row, g % n_kv);
            }
    CHECK_MSG(n_wrong == 0, "%d heads not quantised by the rule", (int)n_wrong);
}

/* Attention of one sequence, in double precision, to its quantised keys and values. */
static void attend_quantised(double *out, const case_t *c, const tensor_t *qkv, int64_t first,
                             int64_t n)
{
    const int64_t e = c->a.head_dim, ld = qkv->m.n_col;
    double *x = QP_NEW("test", double, n *ld), *lse = QP_NEW("test", double, c->a.n_head *n);
    memcpy(x, qkv->x + first * ld, (size_t)(n * ld) * sizeof *x);
    for (int64_t t = 0; t < n; t++)
        for (int64_t h = c->a.n_head; h < ld / e; h++) {
            int8_t q[MAX_HEAD];
            double *head = x + t * ld + h * e;
            const float scale = quantise(q, head, e);
            for (int64_t i = 0; i < e; i++)
                head[i] = q[i] * (double)scale;
        }
    attention_twin(out, lse, x, &c->a, n);
    QP_FREE(x);
    QP_FREE(lse);
}

static void check_case(qp_device_t *device, qp_device_t *other, const case_t *c)
{
    int32_t length[N_SEQ] = {0};
    int64_t start[N_SEQ];
    for (int i = 0; i < N_CALL; i++)
        for (int s = 0; s < N_SEQ; s++)
            length[s] += calls[i].n_new[s];
    batch_t batch = make_batch(device, N_SEQ, length, NULL);
    int64_t n = batch.r.n_token, n_q = c->a.n_head * c->a.head_dim;
    for (int s = 0; s < N_SEQ; s++)
        start[s] = batch.cu_seqlens[s];
    tensor_t qkv = make_normal(device, c->dtype, n, n_q + 2 * c->a.n_kv_head * c->a.head_dim, 1);
    for (int64_t i = 0; i < c->a.head_dim; i++) { /* a key of zeros */
        set_element(&qkv, 5, n_q + i, 0.0);
        qkv.x[5 * qkv.m.n_col + n_q + i] = 0.0;
    }
    tensor_t trained = make_tensor(device, c->dtype, n, n_q);
    tensor_t cached = make_tensor(device, c->dtype, n, n_q);
    tensor_t alone = make_tensor(device, c->dtype, n, n_q);
    tensor_t lse = make_tensor(device, QP_F32, 1, c->a.n_head * n);
    CHECK_OK(device->ops->attention_forward(qp_device_queue(device), trained.m, lse.m.data, qkv.m,
                                            &c->a, &batch.r));
    cache_t together, apart;
    init_cache(&together, device, c);
    init_cache(&apart, other, c);
    for (int i = 0; i < N_CALL; i++) {
        const int32_t *n_new = calls[i].n_new;
        call_cached(device, c, &together, n_new, calls[i].n_decode, 0, N_SEQ, &qkv, start, &cached);
        for (int s = 0; s < N_SEQ; s++)
            call_cached(other, c, &apart, n_new, s < calls[i].n_decode, s, s + 1, &qkv, start,
                        &alone);
        for (int s = 0; s < N_SEQ; s++)
            together.n_past[s] = apart.n_past[s] = together.n_past[s] + n_new[s];
    }
    double *expected = get_all(&trained);
    if (c->cache_dtype == QP_I8) {
        check_stored(c, &together, &qkv, start);
        for (int s = 0; s < N_SEQ; s++)
            attend_quantised(expected + start[s] * n_q, c, &qkv, start[s], length[s]);
    }
    CHECK_TENSOR(&cached, expected, c->cache_dtype == QP_I8 ? TOL_ATTENTION_INT8 : TOL_ATTENTION,
                 "cached, head_dim %d", (int)c->a.head_dim);
    CHECK_MSG(same_rows(&cached, 0, &alone, n), "cached bits alone, head_dim %d",
              (int)c->a.head_dim);
    QP_FREE(expected);
    tensor_t *all[] = {&qkv, &trained, &cached, &alone, &lse};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free_tensor(all[i]);
    free_cache(&together);
    free_cache(&apart);
    free_batch(device, &batch);
}

/* A prompt whose first part is in the cache already. */
static void check_parts(qp_device_t *device, const case_t *c)
{
    static const int32_t n_whole[] = {331, 0, 0}, none[] = {0, 0, 0};
    static const int32_t parts[][N_SEQ] = {{45}, {19}, {1}, {200}, {2}, {64}};
    const int64_t start[N_SEQ] = {0}, n_q = c->a.n_head * c->a.head_dim;
    tensor_t qkv =
        make_normal(device, c->dtype, n_whole[0], n_q + 2 * c->a.n_kv_head * c->a.head_dim, 1);
    tensor_t whole = make_tensor(device, c->dtype, n_whole[0], n_q);
    tensor_t in_parts = make_tensor(device, c->dtype, n_whole[0], n_q);
    cache_t cache;
    init_cache(&cache, device, c);
    call_cached(device, c, &cache, n_whole, 0, 0, 1, &qkv, start, &whole);
    memcpy(cache.n_past, none, sizeof none);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        call_cached(device, c, &cache, parts[i], 0, 0, 1, &qkv, start, &in_parts);
        cache.n_past[0] += parts[i][0];
    }
    CHECK_MSG(same_rows(&whole, 0, &in_parts, n_whole[0]), "bits in parts, head_dim %d",
              (int)c->a.head_dim);
    tensor_t *all[] = {&qkv, &whole, &in_parts};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free_tensor(all[i]);
    free_cache(&cache);
}

/* --- copies --------------------------------------------------------------------------------- */

enum { N_LAYER = 2, N_KIND = 4 };

/* Several copies of one block, a whole one, the last one, and none of its rows. */
static const qp_kv_rows_t copies[] = {
    {3, 7, 5}, {4, 7, BLOCK - 1}, {0, 1, BLOCK}, {N_BLOCK - 1, N_BLOCK - 2, 1}, {9, 8, 0}};
enum { N_COPY = sizeof copies / sizeof copies[0] };

/* The plain twin on the bytes of one matrix: columns only, what lies behind them stays. */
static void copy_plainly(char *bytes, const qp_mat_t *m)
{
    const size_t width = qp_dtype_bytes(m->dtype), row = (size_t)m->ld * width;
    for (int i = 0; i < N_COPY; i++)
        for (int r = 0; r < copies[i].n_row; r++)
            for (size_t b = 0; b < (size_t)m->n_col * width; b++)
                bytes[(size_t)(copies[i].to * BLOCK + r) * row + b] =
                    bytes[(size_t)(copies[i].from * BLOCK + r) * row + b];
}

static const qp_mat_t *matrix_of(const qp_kv_t *kv, int kind)
{
    const qp_mat_t *const all[N_KIND] = {&kv->k, &kv->v, &kv->k_scale, &kv->v_scale};
    return all[kind];
}

static size_t matrix_bytes(const qp_mat_t *m)
{
    return qp_bytes(m->n_row * m->ld, qp_dtype_bytes(m->dtype));
}

/* What the matrix holds, after its columns got any bytes; to be freed. */
static char *fill(qp_device_t *device, const qp_mat_t *m, qp_philox_key_t *key)
{
    char *bytes = download_bytes(device, m->data, matrix_bytes(m));
    const size_t width = qp_dtype_bytes(m->dtype);
    key->step++;
    for (size_t r = 0; r < (size_t)m->n_row; r++)
        for (size_t b = 0; b < (size_t)m->n_col * width; b++)
            bytes[r * (size_t)m->ld * width + b] =
                (char)(50.0f * qp_philox_uniform(key, r * 4096 + b));
    CHECK_OK(device->ops->upload(qp_device_queue(device), m->data, bytes, matrix_bytes(m)));
    return bytes;
}

static void check_copies(qp_device_t *device, const case_t *c)
{
    qp_queue_t *q = qp_device_queue(device);
    cache_t cache[N_LAYER];
    qp_kv_t layer[N_LAYER];
    char *bytes[N_LAYER][N_KIND];
    qp_philox_key_t key = {.seed = 11};
    qp_dptr_t rows = {0};
    const int n_kind = c->cache_dtype == QP_I8 ? N_KIND : 2;
    CHECK_OK(device->ops->alloc(device, "test", sizeof copies, &rows));
    CHECK_OK(device->ops->upload(q, rows, copies, sizeof copies));
    for (int l = 0; l < N_LAYER; l++) {
        init_cache(&cache[l], device, c);
        layer[l] = cache[l].kv;
        for (int k = 0; k < n_kind; k++)
            bytes[l][k] = fill(device, matrix_of(&layer[l], k), &key);
    }
    const qp_kv_copy_t all = {
        .layer = layer, .n_layer = N_LAYER, .n_copy = N_COPY, .rows = copies, .rows_device = rows};
    CHECK_OK(device->ops->kv_copy(q, &all));
    for (int l = 0; l < N_LAYER; l++)
        for (int k = 0; k < n_kind; k++) {
            const qp_mat_t *m = matrix_of(&layer[l], k);
            char *got = download_bytes(device, m->data, matrix_bytes(m));
            copy_plainly(bytes[l][k], m);
            CHECK_MSG(memcmp(got, bytes[l][k], matrix_bytes(m)) == 0, "layer %d, matrix %d", l, k);
            qp_free(got);
            qp_free(bytes[l][k]);
        }
    device->ops->release(device, &rows);
    for (int l = 0; l < N_LAYER; l++)
        free_cache(&cache[l]);
}

int main(void)
{
    qp_device_t *device = open_device(2), *other = open_device(1);
    for (int i = 0; i < N_CASE; i++)
        if (cases[i].dtype == QP_F32 || has_bf16()) {
            check_case(device, other, &cases[i]);
            check_parts(device, &cases[i]);
            check_copies(device, &cases[i]);
        }
    qp_device_close(&device);
    qp_device_close(&other);
    return qp_test_end();
}
