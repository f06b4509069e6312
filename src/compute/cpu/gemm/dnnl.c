#include "compute/cpu/gemm/dnnl.h"

#include "base/hash.h"

enum { N_ARGUMENT = 4 }; /* a, b, c, scratchpad */
static const int argument[N_ARGUMENT] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST,
                                         DNNL_ARG_SCRATCHPAD};
static const dnnl_query_t argument_query[N_ARGUMENT] = {
    dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md, dnnl_query_scratchpad_md};

/* oneDNN's handles of one thread. */
typedef struct {
    dnnl_memory_t memory[N_ARGUMENT];
} lane_t;

struct qp_cpu_gemm {
    qp_cpu_gemm_spec_t spec;
    qp_cpu_device_t *device;
    dnnl_primitive_t primitive;
    lane_t *lane; /* [n_thread] */
};

/* Open addressing; capacity is a power of two, at most half full. */
struct qp_cpu_gemm_cache {
    dnnl_engine_t engine;
    dnnl_stream_t *stream; /* [n_thread] */
    qp_cpu_gemm_t **slot;
    int64_t n_gemm, capacity;
    char *pads; /* [n_thread] of pad_bytes: oneDNN's own scratch, as large as its products want */
    size_t pad_bytes;
};

static const struct {
    dnnl_cpu_isa_t isa;
    const char *name;
} isa_names[] = {
    {dnnl_cpu_isa_avx512_core_amx, "AVX-512 AMX"},
    {dnnl_cpu_isa_avx512_core_bf16, "AVX-512 VNNI BF16"},
    {dnnl_cpu_isa_avx512_core_vnni, "AVX-512 VNNI"},
    {dnnl_cpu_isa_avx512_core, "AVX-512"},
    {dnnl_cpu_isa_avx2_vnni, "AVX2 VNNI"},
    {dnnl_cpu_isa_avx2, "AVX2"},
};

bool qp_cpu_dnnl_has(dnnl_cpu_isa_t isa)
{
    return ((int)dnnl_get_effective_cpu_isa() & (int)isa) == (int)isa;
}

const char *qp_cpu_dnnl_isa_name(void)
{
    for (size_t i = 0; i < sizeof isa_names / sizeof isa_names[0]; i++)
        if (qp_cpu_dnnl_has(isa_names[i].isa))
            return isa_names[i].name;
    return "baseline";
}

/* Giving a handle back (or NULL) fails only if the handle is none of oneDNN's. */
static void destroyed(dnnl_status_t status)
{
    QP_ASSERT(status == dnnl_success);
}

/* --- one product ------------------------------------------------------------------------------ */

static dnnl_data_type_t dnnl_type(int32_t dtype)
{
    static const dnnl_data_type_t type[QP_N_DTYPE] = {[QP_F32] = dnnl_f32,
                                                      [QP_BF16] = dnnl_bf16,
                                                      [QP_U8] = dnnl_u8,
                                                      [QP_I8] = dnnl_s8,
                                                      [QP_I32] = dnnl_s32};
    QP_ASSERT(type[dtype] != dnnl_data_type_undef);
    return type[dtype];
}

static dnnl_format_tag_t packed_tag(qp_dtype_t dtype)
{
    return dtype == QP_BF16 ? dnnl_BA16a64b2a : dnnl_BA16a64b4a;
}

/*
 * Where there is one row or one column only, its stride means nothing. oneDNN chooses kernels by it
 * all the same, but its cache does not tell such products apart: the first one of a process would
 * decide which kernel, and so which rounding, the later ones get. Hence always the same stride.
 */
static qp_error_t describe(dnnl_memory_desc_t *md, int64_t n_row, int64_t n_col, int64_t ld,
                           bool trans, int32_t dtype)
{
    const dnnl_dims_t dims = {n_row, n_col};
    dnnl_dims_t strides = {trans ? 1 : ld, trans ? ld : 1};
    if (n_col == 1)
        strides[1] = 1;
    if (n_row == 1)
        strides[0] = n_col * strides[1];
    QP_DNNL(dnnl_memory_desc_init_by_strides(md, 2, dims, dnnl_type(dtype), strides));
    return NULL;
}

/* The attributes, as far as they are needed: user scratchpad, alpha, accumulation. */
static qp_error_t set_attributes(dnnl_primitive_attr_t attributes, dnnl_post_ops_t sum,
                                 const qp_cpu_gemm_spec_t *spec)
{
    QP_DNNL(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
    if (spec->alpha != 1.0f)
        QP_DNNL(dnnl_primitive_attr_set_output_scales(attributes, 1, 0, &spec->alpha));
    if (spec->accumulate) {
        QP_DNNL(dnnl_post_ops_append_sum(sum, 1.0f));
        QP_DNNL(dnnl_primitive_attr_set_post_ops(attributes, sum));
    }
    return NULL;
}

/* oneDNN multiplies packed operands whose a or c it does not like by plain loops, without a word.
 */
static dnnl_status_t refuse_reference(const_dnnl_primitive_desc_t descriptor)
{
    const char *name = "";
    const dnnl_status_t status =
        dnnl_primitive_desc_query(descriptor, dnnl_query_impl_info_str, 0, (void *)&name);
    return status == dnnl_success && strncmp(name, "ref", 3) == 0 ? dnnl_unimplemented : status;
}

static qp_error_t create_descriptor(dnnl_engine_t engine, const qp_cpu_gemm_spec_t *spec,
                                    dnnl_primitive_desc_t *descriptor)
{
    dnnl_memory_desc_t a, b, c;
    QP_TRY(describe(&a, spec->m, spec->k, spec->lda, spec->trans_a, spec->a));
    QP_TRY(describe(&c, spec->m, spec->n, spec->ldc, false, spec->c));
    if (spec->packed_b) {
        const dnnl_dims_t dims = {spec->k, spec->n};
        QP_DNNL(dnnl_memory_desc_init_by_tag(&b, 2, dims, dnnl_type(spec->b),
                                             packed_tag((qp_dtype_t)spec->b)));
    } else {
        QP_TRY(describe(&b, spec->k, spec->n, spec->ldb, spec->trans_b, spec->b));
    }
    dnnl_matmul_desc_t product;
    QP_DNNL(dnnl_matmul_desc_init(&product, &a, &b, NULL, &c));

    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t sum = NULL;
    QP_DNNL(dnnl_primitive_attr_create(&attributes));
    QP_DNNL(dnnl_post_ops_create(&sum));
    qp_error_t error = set_attributes(attributes, sum, spec);
    dnnl_status_t status = dnnl_success;
    if (error == NULL)
        status = dnnl_primitive_desc_create(descriptor, &product, attributes, engine, NULL);
    if (error == NULL && status == dnnl_success && spec->packed_b)
        status = refuse_reference(*descriptor);
    destroyed(dnnl_post_ops_destroy(sum));
    destroyed(dnnl_primitive_attr_destroy(attributes));
    if (error == NULL && status != dnnl_success)
        error =
            QP_ERROR(QP_INTERNAL,
                     "oneDNN %s has no product %s[%lld, %lld] x %s[%lld, %lld] -> %s (status %d)",
                     qp_cpu_dnnl_isa_name(), qp_dtype_name((qp_dtype_t)spec->a), (long long)spec->m,
                     (long long)spec->k, qp_dtype_name((qp_dtype_t)spec->b), (long long)spec->k,
                     (long long)spec->n, qp_dtype_name((qp_dtype_t)spec->c), (int)status);
    return error;
}

static qp_error_t create_lanes(qp_cpu_gemm_t *gemm, dnnl_primitive_desc_t descriptor)
{
    const qp_cpu_device_t *device = gemm->device;
    for (int t = 0; t < device->n_thread; t++)
        for (int i = 0; i < N_ARGUMENT; i++)
            QP_DNNL(
                dnnl_memory_create(&gemm->lane[t].memory[i],
                                   dnnl_primitive_desc_query_md(descriptor, argument_query[i], 0),
                                   device->gemm->engine, DNNL_MEMORY_NONE));
    return NULL;
}

static void gemm_destroy(qp_cpu_gemm_t *gemm)
{
    for (int t = 0; t < gemm->device->n_thread; t++)
        for (int i = 0; i < N_ARGUMENT; i++)
            destroyed(dnnl_memory_destroy(gemm->lane[t].memory[i]));
    destroyed(dnnl_primitive_destroy(gemm->primitive));
    qp_free(gemm->lane);
    qp_free(gemm);
}

/* Contents are not kept. */
static void grow_pads(const qp_cpu_device_t *device, size_t bytes)
{
    qp_cpu_gemm_cache_t *cache = device->gemm;
    if (bytes <= cache->pad_bytes)
        return;
    cache->pad_bytes = (bytes + 4095) / 4096 * 4096;
    qp_free(cache->pads);
    cache->pads = qp_alloc("products", cache->pad_bytes * (size_t)device->n_thread);
}

static qp_error_t gemm_create(qp_cpu_device_t *device, const qp_cpu_gemm_spec_t *spec,
                              qp_cpu_gemm_t **out)
{
    qp_cpu_gemm_cache_t *cache = device->gemm;
    qp_cpu_gemm_t *gemm = QP_NEW("products", qp_cpu_gemm_t, 1);
    gemm->spec = *spec;
    gemm->device = device;
    gemm->lane = QP_NEW("products", lane_t, device->n_thread);
    dnnl_primitive_desc_t descriptor = NULL;

    /* A product is cut for the threads that OpenMP would give it at this moment: one. */
    const int n_thread = omp_get_max_threads();
    omp_set_num_threads(1);
    qp_error_t error = create_descriptor(cache->engine, spec, &descriptor);
    if (error == NULL && dnnl_primitive_create(&gemm->primitive, descriptor) != dnnl_success)
        error = QP_ERROR(QP_INTERNAL, "oneDNN cannot make the product");
    omp_set_num_threads(n_thread);

    if (error == NULL)
        error = create_lanes(gemm, descriptor);
    if (error == NULL) {
        const size_t bytes = dnnl_memory_desc_get_size(
            dnnl_primitive_desc_query_md(descriptor, dnnl_query_scratchpad_md, 0));
        grow_pads(device, bytes);
        *out = gemm;
    } else {
        gemm_destroy(gemm);
    }
    destroyed(dnnl_primitive_desc_destroy(descriptor));
    return error;
}

/* --- cache ------------------------------------------------------------------------------------ */

qp_error_t qp_cpu_gemm_cache_create(qp_cpu_device_t *device)
{
    device->gemm = QP_NEW("products", qp_cpu_gemm_cache_t, 1);
    qp_cpu_gemm_cache_t *cache = device->gemm;
    cache->capacity = 256;
    cache->slot = QP_NEW("products", qp_cpu_gemm_t *, cache->capacity);
    cache->stream = QP_NEW("products", dnnl_stream_t, device->n_thread);
    QP_DNNL(dnnl_engine_create(&cache->engine, dnnl_cpu, 0));
    for (int t = 0; t < device->n_thread; t++)
        QP_DNNL(dnnl_stream_create(&cache->stream[t], cache->engine, dnnl_stream_default_flags));
    return NULL;
}

void qp_cpu_gemm_cache_destroy(qp_cpu_device_t *device)
{
    qp_cpu_gemm_cache_t *cache = device->gemm;
    for (int64_t i = 0; i < cache->capacity; i++)
        if (cache->slot[i] != NULL)
            gemm_destroy(cache->slot[i]);
    for (int t = 0; t < device->n_thread; t++)
        destroyed(dnnl_stream_destroy(cache->stream[t]));
    destroyed(dnnl_engine_destroy(cache->engine));
    qp_free(cache->pads);
    qp_free(cache->stream);
    qp_free(cache->slot);
    QP_FREE(device->gemm);
}

/* The slot that holds the spec, or the empty one where it belongs. */
static qp_cpu_gemm_t **find_slot(qp_cpu_gemm_t **slot, int64_t capacity,
                                 const qp_cpu_gemm_spec_t *spec)
{
    uint64_t at = qp_hash_bytes(spec, sizeof *spec);
    for (;; at++) {
        qp_cpu_gemm_t **here = &slot[at & (uint64_t)(capacity - 1)];
        /* No padding (see below), and what equals in other bytes, 0 and -0, is made twice at worst.
         * NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
        if (*here == NULL || memcmp(&(*here)->spec, spec, sizeof *spec) == 0)
            return here;
    }
}

static void grow(qp_cpu_gemm_cache_t *cache)
{
    const int64_t capacity = 2 * cache->capacity;
    qp_cpu_gemm_t **slot = QP_NEW("products", qp_cpu_gemm_t *, capacity);
    for (int64_t i = 0; i < cache->capacity; i++)
        if (cache->slot[i] != NULL)
            *find_slot(slot, capacity, &cache->slot[i]->spec) = cache->slot[i];
    qp_free(cache->slot);
    cache->slot = slot;
    cache->capacity = capacity;
}

_Static_assert(sizeof(qp_cpu_gemm_spec_t) == 6 * sizeof(int64_t) + 8 * sizeof(int32_t),
               "the spec is hashed as bytes: no padding");

qp_error_t qp_cpu_gemm_get(qp_cpu_device_t *device, const qp_cpu_gemm_spec_t *spec,
                           const qp_cpu_gemm_t **gemm)
{
    QP_ASSERT(!omp_in_parallel());
    qp_cpu_gemm_cache_t *cache = device->gemm;
    qp_cpu_gemm_t **here = find_slot(cache->slot, cache->capacity, spec);
    if (*here == NULL) {
        if (2 * (cache->n_gemm + 1) > cache->capacity) {
            grow(cache);
            here = find_slot(cache->slot, cache->capacity, spec);
        }
        QP_TRY(gemm_create(device, spec, here));
        cache->n_gemm++;
    }
    *gemm = *here;
    return NULL;
}

/* oneDNN calls for threads of its own wherever OpenMP sees no team, as in a team of one. */
static dnnl_status_t execute_alone(const_dnnl_primitive_t primitive, dnnl_stream_t stream,
                                   const dnnl_exec_arg_t *arguments)
{
    if (omp_in_parallel())
        return dnnl_primitive_execute(primitive, stream, N_ARGUMENT, arguments);
    const int n_thread = omp_get_max_threads();
    omp_set_num_threads(1);
    const dnnl_status_t status = dnnl_primitive_execute(primitive, stream, N_ARGUMENT, arguments);
    omp_set_num_threads(n_thread);
    return status;
}

qp_error_t qp_cpu_gemm_run(const qp_cpu_gemm_t *gemm, int thread, const void *a, const void *b,
                           void *c)
{
    const qp_cpu_device_t *device = gemm->device;
    void *const pointer[N_ARGUMENT] = {
        (void *)a, (void *)b, c, device->gemm->pads + (size_t)thread * device->gemm->pad_bytes};
    dnnl_exec_arg_t arguments[N_ARGUMENT];
    for (int i = 0; i < N_ARGUMENT; i++) {
        dnnl_memory_t memory = gemm->lane[thread].memory[i];
        QP_DNNL(dnnl_memory_set_data_handle(memory, pointer[i]));
        arguments[i] = (dnnl_exec_arg_t){argument[i], memory};
    }
    QP_DNNL(execute_alone(gemm->primitive, device->gemm->stream[thread], arguments));
    return NULL;
}

qp_error_t qp_cpu_dnnl_likes_packed(qp_cpu_device_t *device, qp_dtype_t dtype, bool *likes)
{
    enum { N = 512, K = 256 };
    const bool half = dtype == QP_BF16;
    const int64_t n_token[] = {1, 4096};
    const dnnl_dims_t dims = {K, N};
    dnnl_memory_desc_t packed, any;
    QP_DNNL(dnnl_memory_desc_init_by_tag(&packed, 2, dims, dnnl_type((int32_t)dtype),
                                         packed_tag(dtype)));
    QP_DNNL(dnnl_memory_desc_init_by_tag(&any, 2, dims, dnnl_type((int32_t)dtype),
                                         dnnl_format_tag_any));
    *likes = qp_cpu_dnnl_has(half ? dnnl_cpu_isa_avx512_core_bf16 : dnnl_cpu_isa_avx512_core_vnni);
    for (int i = 0; i < 2 && *likes; i++) {
        dnnl_memory_desc_t a, c;
        dnnl_matmul_desc_t product;
        dnnl_primitive_desc_t descriptor;
        QP_TRY(describe(&a, n_token[i], K, K, false, half ? QP_BF16 : QP_U8));
        QP_TRY(describe(&c, n_token[i], N, N, false, half ? QP_F32 : QP_I32));
        QP_DNNL(dnnl_matmul_desc_init(&product, &a, &any, NULL, &c));
        QP_DNNL(
            dnnl_primitive_desc_create(&descriptor, &product, NULL, device->gemm->engine, NULL));
        *likes = dnnl_memory_desc_equal(
            dnnl_primitive_desc_query_md(descriptor, dnnl_query_weights_md, 0), &packed);
        QP_DNNL(dnnl_primitive_desc_destroy(descriptor));
    }
    return NULL;
}
