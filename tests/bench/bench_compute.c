/*
 * Speed of the CPU's linears beside the bare oneDNN product of the same size, in one run:
 *     bench_compute [threads [n_token n_in n_out]]
 * GFLOP/s of 2 T n_in n_out flops, best of several repetitions; "share" is of the bare product. The
 * linear quantises or casts, multiplies and applies scales; the bare product only multiplies, by
 * all threads at once, into int32 or fp32, from weights in the layout oneDNN likes best.
 */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/timer.h"
#include "compute/ops.h"

static int64_t n_token = 4096, n_in = 576, n_out = 1536;

static void must(qp_error_t error)
{
    if (error != NULL)
        exit(qp_error_report(&error));
}

static void must_dnnl(dnnl_status_t status)
{
    if (status != dnnl_success) {
        fprintf(stderr, "oneDNN status %d\n", (int)status);
        exit(QP_INTERNAL);
    }
}

/* --- timing ----------------------------------------------------------------------------------- */

typedef void (*body_t)(void *context);

static double gflops(body_t body, void *context, int64_t t)
{
    const double flops = 2.0 * (double)t * (double)n_in * (double)n_out;
    double best = 1e30;
    for (double start = qp_time(); qp_time() - start < 0.4;) {
        const double begin = qp_time();
        body(context);
        const double seconds = qp_time() - begin;
        best = seconds < best ? seconds : best;
    }
    return flops / best * 1e-9;
}

/* --- the bare product ------------------------------------------------------------------------- */

typedef struct {
    dnnl_primitive_t primitive;
    dnnl_stream_t stream;
    dnnl_exec_arg_t arguments[3];
} bare_t;

static void run_bare(void *context)
{
    bare_t *b = context;
    must_dnnl(dnnl_primitive_execute(b->primitive, b->stream, 3, b->arguments));
    must_dnnl(dnnl_stream_wait(b->stream));
}

static double bare_product(int64_t t, int64_t k, int64_t n, dnnl_data_type_t x, dnnl_data_type_t w,
                           dnnl_data_type_t y)
{
    const dnnl_dims_t a_dims = {t, k}, b_dims = {k, n}, c_dims = {t, n};
    dnnl_memory_desc_t a, b, c;
    dnnl_engine_t engine;
    dnnl_matmul_desc_t product;
    dnnl_primitive_desc_t descriptor;
    bare_t bare;
    must_dnnl(dnnl_engine_create(&engine, dnnl_cpu, 0));
    must_dnnl(dnnl_stream_create(&bare.stream, engine, dnnl_stream_default_flags));
    must_dnnl(dnnl_memory_desc_init_by_tag(&a, 2, a_dims, x, dnnl_ab));
    must_dnnl(dnnl_memory_desc_init_by_tag(&b, 2, b_dims, w, dnnl_format_tag_any));
    must_dnnl(dnnl_memory_desc_init_by_tag(&c, 2, c_dims, y, dnnl_ab));
    must_dnnl(dnnl_matmul_desc_init(&product, &a, &b, NULL, &c));
    must_dnnl(dnnl_primitive_desc_create(&descriptor, &product, NULL, engine, NULL));
    must_dnnl(dnnl_primitive_create(&bare.primitive, descriptor));
    const dnnl_query_t query[3] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md};
    const int name[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    void *data[3];
    for (int i = 0; i < 3; i++) {
        const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(descriptor, query[i], 0);
        data[i] = qp_alloc("bench", dnnl_memory_desc_get_size(md));
        bare.arguments[i].arg = name[i];
        must_dnnl(dnnl_memory_create(&bare.arguments[i].memory, md, engine, data[i]));
    }
    const double speed = gflops(run_bare, &bare, t);
    for (int i = 0; i < 3; i++) {
        dnnl_memory_destroy(bare.arguments[i].memory);
        qp_free(data[i]);
    }
    dnnl_primitive_destroy(bare.primitive);
    dnnl_primitive_desc_destroy(descriptor);
    dnnl_stream_destroy(bare.stream);
    dnnl_engine_destroy(engine);
    return speed;
}

/* --- ours ------------------------------------------------------------------------------------- */

typedef struct {
    qp_device_t *device;
    qp_weight_t w;
    qp_mat_t x, y;
    bool backward;
} linear_t;

static void run_linear(void *context)
{
    const linear_t *l = context;
    qp_queue_t *q = qp_device_queue(l->device);
    const qp_ops_t *ops = l->device->ops;
    const qp_input_t input = qp_input(l->backward ? l->y : l->x);
    must((l->backward ? ops->linear_backward : ops->linear_forward)(q, l->backward ? l->x : l->y,
                                                                    &input, &l->w, (qp_mat_t){0}));
}

static qp_mat_t new_matrix(qp_device_t *device, qp_dtype_t dtype, int64_t n_row, int64_t n_col)
{
    qp_dptr_t data;
    must(
        device->ops->alloc(device, "bench", qp_bytes(n_row * n_col, qp_dtype_bytes(dtype)), &data));
    return qp_mat(data, dtype, n_row, n_col);
}

/* Some numbers in every weight: n bytes of small int8 look like small bf16 and fp32 too. */
static void *some_weights(void)
{
    int8_t *plain = qp_alloc("bench", qp_bytes(n_out * n_in, sizeof(float)));
    for (int64_t i = 0; i < n_out * n_in; i++)
        plain[i] = (int8_t)(i * 31 % 127);
    return plain;
}

static double linear(qp_device_t *device, qp_weight_kind_t kind, qp_linear_mode_t mode, int64_t t,
                     bool backward)
{
    const bool int8 = kind == QP_WEIGHT_INT8 || kind == QP_WEIGHT_LLM_INT8;
    const qp_ops_t *ops = device->ops;
    const qp_dtype_t dtype = qp_device_dtype(device);
    linear_t l = {.device = device,
                  .w = {.kind = kind, .n_out = n_out, .n_in = n_in, .mode = mode},
                  .x = new_matrix(device, dtype, t, n_in),
                  .y = new_matrix(device, dtype, t, n_out),
                  .backward = backward};
    qp_dptr_t storage;
    must(ops->alloc(device, "bench", ops->weight_bytes(device, &l.w), &storage));
    l.w.storage = storage;
    void *plain = some_weights();
    const qp_dtype_t stored = qp_weight_dtype(kind);
    qp_mat_t all = new_matrix(device, stored, n_out, n_in),
             scale = new_matrix(device, QP_F32, n_out, 1);
    qp_queue_t *q = qp_device_queue(device);
    must(ops->upload(q, all.data, plain, qp_bytes(n_out * n_in, qp_dtype_bytes(stored))));
    must(ops->zero(q, scale.data, qp_bytes(n_out, sizeof(float))));
    must(ops->weight_pack(q, &l.w, 0, all, int8 ? scale.data : (qp_dptr_t){0}, (qp_dptr_t){0}));
    const double speed = gflops(run_linear, &l, t);
    qp_free(plain);
    ops->release(device, &all.data);
    ops->release(device, &scale.data);
    ops->release(device, &storage);
    ops->release(device, &l.x.data);
    ops->release(device, &l.y.data);
    return speed;
}

/* One row per way through the linears; raw is the product inside it. */
static const struct {
    const char *name;
    qp_weight_kind_t kind;
    qp_linear_mode_t mode;
    int compute; /* qp_compute_t */
    int raw;     /* index into bare_types */
} paths[] = {
    {"rotated int8", QP_WEIGHT_INT8, {true, true, 6.0f}, QP_COMPUTE_BF16, 0},
    {"rotated int8, fp32 compute", QP_WEIGHT_INT8, {true, true, 6.0f}, QP_COMPUTE_FP32, 0},
    {"rotated int8, weight-only", QP_WEIGHT_INT8, {false, false, 6.0f}, QP_COMPUTE_BF16, 1},
    {"LLM.int8 (no outlier)", QP_WEIGHT_LLM_INT8, {true, false, 6.0f}, QP_COMPUTE_BF16, 0},
    {"bf16", QP_WEIGHT_BF16, {false, false, 6.0f}, QP_COMPUTE_BF16, 1},
    {"fp32", QP_WEIGHT_F32, {false, false, 6.0f}, QP_COMPUTE_FP32, 2},
};
static const dnnl_data_type_t bare_types[][3] = {
    {dnnl_u8, dnnl_s8, dnnl_s32}, {dnnl_bf16, dnnl_bf16, dnnl_f32}, {dnnl_f32, dnnl_f32, dnnl_f32}};

static void bench(int threads, int64_t t)
{
    printf("%lld x %lld x %lld, %d threads\n%-28s %10s %8s %8s %10s %8s %8s\n", (long long)t,
           (long long)n_in, (long long)n_out, threads, "", "forward", "bare", "share", "backward",
           "bare", "share");
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        const dnnl_data_type_t *type = bare_types[paths[i].raw];
        const qp_device_config_t config = {
            .backend = QP_BACKEND_CPU, .compute = paths[i].compute, .threads = threads};
        qp_device_t *device = NULL;
        const qp_pass_size_t size = {.n_token = t,
                                     .widest = n_in > n_out ? n_in : n_out,
                                     .weight = paths[i].kind,
                                     .backward = true};
        must(qp_device_open(&config, 0, 1, &device));
        must(device->ops->reserve(device, &size));
        printf("%-28s", paths[i].name);
        for (int backward = 0; backward < 2; backward++) {
            const double ours = linear(device, paths[i].kind, paths[i].mode, t, backward);
            const double bare = backward ? bare_product(t, n_out, n_in, type[0], type[1], type[2])
                                         : bare_product(t, n_in, n_out, type[0], type[1], type[2]);
            printf(" %10.0f %8.0f %7.0f%%", ours, bare, 100.0 * ours / bare);
        }
        printf("\n");
        fflush(stdout);
        qp_device_close(&device);
    }
}

int main(int argc, char **argv)
{
    const int threads = argc > 1 ? atoi(argv[1]) : omp_get_max_threads();
    if (argc > 4) {
        n_token = atoll(argv[2]);
        n_in = atoll(argv[3]);
        n_out = atoll(argv[4]);
    }
    bench(threads, n_token);
    bench(threads, 16);
    bench(threads, 1);
    return 0;
}
