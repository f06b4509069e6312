/* QP_TEST: timeout=60 isa=AVX2,AVX512_CORE_VNNI,AVX512_CORE_BF16
 * Attention over the paged cache: prefill in parts and token by token gives what training attention
 * gives, and a sequence's bits do not depend on its neighbours, nor those of a prompt on the parts
 * it comes in. */
#include "cpu_testing.h"

enum { N_SEQ = 3, BLOCK = 16, TABLE = 40, N_BLOCK = N_SEQ * TABLE };

typedef struct {
    qp_attention_t a;
    qp_dtype_t dtype, cache_dtype;
} case_t;

static const case_t cases[] = {
    {{9, 3, 64, 0.125f}, QP_F32, QP_F32},      {{9, 3, 64, 0.125f}, QP_BF16, QP_BF16},
    {{4, 4, 80, 0.1118f}, QP_F32, QP_F32},     {{2, 1, 33, 0.17408f}, QP_BF16, QP_BF16},
    {{4, 1, 128, 0.08839f}, QP_BF16, QP_BF16},
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
    tensor_t k, v;
    qp_kv_t kv;
    int32_t table[N_BLOCK], n_past[N_SEQ];
} cache_t;

/* Blocks of the sequences interleaved backwards, so that nothing works by accident. */
static void init_cache(cache_t *cache, qp_device_t *device, const case_t *c)
{
    int64_t n_kv = c->a.n_kv_head * c->a.head_dim;
    cache->k = make_tensor(device, c->cache_dtype, N_BLOCK * BLOCK, n_kv);
    cache->v = make_tensor(device, c->cache_dtype, N_BLOCK * BLOCK, n_kv);
    cache->kv = (qp_kv_t){cache->k.m, cache->v.m, BLOCK};
    for (int s = 0; s < N_SEQ; s++) {
        cache->n_past[s] = 0;
        for (int i = 0; i < TABLE; i++)
            cache->table[s * TABLE + i] = N_BLOCK - 1 - (i * N_SEQ + s);
    }
}

/* Copies rows of the whole sequences' tensor into a call's tensor. */
static void copy_rows(tensor_t *to, int64_t to_row, const tensor_t *from, int64_t from_row,
                      int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < to->m.n_col; j++)
            set_element(to, to_row + i, j, get_element(from, from_row + i, j));
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
    qp_kv_map_t map = {.n_past = cache->n_past + first,
                       .block_table = cache->table + first * TABLE,
                       .table_ld = TABLE,
                       .n_decode = n_decode};
    CHECK_OK(device->ops->kv_append(q, &cache->kv, in.m, &c->a, &batch.r, &map));
    CHECK_OK(device->ops->attention_cached(q, out.m, in.m, &cache->kv, &c->a, &batch.r, &map));
    for (int s = first; s < end; s++)
        copy_rows(all, start[s] + cache->n_past[s], &out, batch.cu_seqlens[s - first], n_new[s]);
    free_tensor(&in);
    free_tensor(&out);
    free_batch(device, &batch);
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
    double *expected = QP_NEW("test", double, n *n_q);
    for (int64_t i = 0; i < n * n_q; i++)
        expected[i] = get_element(&trained, i / n_q, i % n_q);
    CHECK_TENSOR(&cached, expected, TOL_ATTENTION, "cached, head_dim %d", (int)c->a.head_dim);
    CHECK_MSG(same_rows(&cached, 0, &alone, n), "cached bits alone, head_dim %d",
              (int)c->a.head_dim);
    QP_FREE(expected);
    tensor_t *all[] = {&qkv,        &trained,    &cached,  &alone,  &lse,
                       &together.k, &together.v, &apart.k, &apart.v};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free_tensor(all[i]);
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
    tensor_t *all[] = {&qkv, &whole, &in_parts, &cache.k, &cache.v};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free_tensor(all[i]);
}

int main(void)
{
    qp_device_t *device = open_device(2), *other = open_device(1);
    for (int i = 0; i < N_CASE; i++)
        if (cases[i].dtype == QP_F32 || has_bf16()) {
            check_case(device, other, &cases[i]);
            check_parts(device, &cases[i]);
        }
    qp_device_close(&device);
    qp_device_close(&other);
    return qp_test_end();
}
