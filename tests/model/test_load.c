/* QP_TEST: ranks=1,2,4 check=0,1,2
 * Loading: a node reads each byte once; damage names file and tensor, on every rank alike; adapters
 * out of and into PEFT folders. */
#include <hdf5.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "tiny.h"

static const qp_base_kinds_t int8_all = {QP_WEIGHT_INT8, QP_WEIGHT_INT8};

static qp_error_t load(qp_comm_t *comm, qp_device_t *device, const char *path)
{
    qp_base_t *base = NULL;
    qp_base_config_t config = {.file = path, .outlier_threshold = 6.0};
    qp_error_t error = qp_base_load(comm, device, &config, 128, &base);
    CHECK((error == NULL) == (base != NULL));
    qp_base_destroy(comm, &base);
    return error;
}

/* What base.activation, base.gradient and the threshold say stands at every linear, each for
 * itself; llm_int8 passes gradients back in bf16 whatever is asked. */
static void test_products_of_the_deck(qp_comm_t *comm, qp_device_t *device, const tiny_t *tiny,
                                      const char *path)
{
    static const qp_weight_kind_t precision[] = {QP_WEIGHT_INT8, QP_WEIGHT_LLM_INT8};
    for (int i = 0; i < 8; i++) {
        const bool activation = i & 1, gradient = i & 2, llm = i & 4;
        const qp_base_config_t config = {.file = path,
                                         .activation =
                                             activation ? QP_PRODUCT_INT8 : QP_PRODUCT_BF16,
                                         .gradient = gradient ? QP_PRODUCT_INT8 : QP_PRODUCT_BF16,
                                         .outlier_threshold = 4.5};
        qp_base_t *base = NULL;
        if (qp_comm_rank(comm) == 0)
            tiny_write_base(tiny, (qp_base_kinds_t){precision[llm], QP_WEIGHT_INT8}, path);
        qp_comm_barrier(comm);
        if (CHECK_OK(qp_base_load(comm, device, &config, 128, &base)))
            for (int64_t w = 0; w < base->config.n_layer * QP_N_GROUP; w++) {
                const qp_linear_mode_t mode =
                    base->layer[w / QP_N_GROUP].group[w % QP_N_GROUP].mode;
                CHECK(mode.int8_activation == activation && mode.outlier_threshold == 4.5f);
                CHECK(mode.int8_gradient == (gradient && !llm));
            }
        const qp_linear_mode_t head = base != NULL ? base->lm_head.mode : (qp_linear_mode_t){0};
        CHECK(head.int8_activation == activation && head.int8_gradient == gradient);
        qp_base_destroy(comm, &base);
        qp_comm_barrier(comm);
    }
}

/* Bytes of all data sets below /tensors. */
static herr_t add_bytes(hid_t group, const char *name, const H5L_info_t *info, void *sum)
{
    hid_t set = H5Dopen2(group, name, H5P_DEFAULT);
    (void)info;
    *(int64_t *)sum += (int64_t)H5Dget_storage_size(set);
    H5Dclose(set);
    return 0;
}

/* What the system says that this process has read; 0 where it does not. */
static int64_t bytes_of_reads(void)
{
    long long n = 0;
    FILE *file = fopen("/proc/self/io", "r");
    if (file == NULL)
        return 0;
    if (fscanf(file, "rchar: %lld", &n) != 1)
        n = 0;
    fclose(file);
    return n;
}

/* The ranks of a node read each byte of the tensors once, all together. */
static void test_once_per_node(qp_comm_t *comm, qp_device_t *device, const tiny_t *tiny,
                               const char *path)
{
    for (int precision = QP_WEIGHT_F32; precision <= QP_WEIGHT_LLM_INT8; precision++) {
        int64_t n_byte = 0, n_read = 0;
        qp_base_t *base = NULL;
        const qp_base_config_t config = {.file = path};
        if (qp_comm_rank(comm) == 0)
            tiny_write_base(
                tiny,
                precision == QP_WEIGHT_INT8 ? int8_all : qp_base_kinds((qp_weight_kind_t)precision),
                path);
        qp_comm_barrier(comm);
        hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
        hid_t tensors = H5Gopen2(file, "/tensors", H5P_DEFAULT);
        CHECK(H5Literate(tensors, H5_INDEX_NAME, H5_ITER_INC, NULL, add_bytes, &n_byte) >= 0);
        H5Gclose(tensors);
        H5Fclose(file);
        int64_t system = -bytes_of_reads();
        if (CHECK_OK(qp_base_load(comm, device, &config, 128, &base)))
            n_read = base->n_read_bytes;
        system += bytes_of_reads();
        int64_t sum[] = {n_read, system};
        qp_comm_sum_i64(comm, sum, 2);
        CHECK_MSG(sum[0] == n_byte, "%lld bytes read of %lld", (long long)sum[0],
                  (long long)n_byte);
        if (precision == QP_WEIGHT_F32) /* large enough beside what each rank reads of the header */
            CHECK_MSG(sum[1] < n_byte + n_byte / 4, "%lld bytes read in all, %lld of tensors",
                      (long long)sum[1], (long long)n_byte);
        qp_base_destroy(comm, &base);
        qp_comm_barrier(comm);
    }
}

/* --- tensors of several pieces ---------------------------------------------------------------- */

/* Tensors of the file that are one weight, one below the other. */
typedef struct {
    int n;
    char name[3][96];
} tensors_t;

/* All their rows on the device, or what each row has besides. */
static qp_dptr_t stack(qp_device_t *device, const qp_h5_t *file, const tensors_t *tensors,
                       const char *suffix, qp_mat_t all)
{
    const size_t n_byte = qp_bytes(all.n_row * all.n_col, qp_dtype_bytes(all.dtype));
    char *host = qp_alloc("test", n_byte), *to = host, name[128];
    qp_dptr_t p = {0};
    for (int t = 0; t < tensors->n; t++) {
        qp_h5_shape_t shape;
        snprintf(name, sizeof name, "/tensors/%s.%s", tensors->name[t], suffix);
        CHECK_OK(qp_h5_dataset_shape(file, name, &shape));
        CHECK_OK(qp_h5_read(file, name, all.dtype, 0, shape.dim[0], to));
        to += qp_bytes(shape.dim[0] * all.n_col, qp_dtype_bytes(all.dtype));
    }
    CHECK(to == host + n_byte);
    CHECK_OK(device->ops->alloc(device, "test", n_byte, &p));
    CHECK_OK(device->ops->upload(qp_device_queue(device), p, host, n_byte));
    qp_free(host);
    return p;
}

/* An int8 weight of the base is what packing all its rows at once gives. */
static void check_weight(qp_device_t *device, const qp_h5_t *file, const qp_weight_t *w,
                         const tensors_t *tensors)
{
    qp_queue_t *q = qp_device_queue(device);
    const size_t n_byte = device->ops->weight_bytes(device, w);
    const qp_mat_t vector = qp_mat((qp_dptr_t){0}, QP_F32, w->n_out, 1);
    qp_weight_t whole = *w;
    qp_mat_t rows = qp_mat((qp_dptr_t){0}, QP_I8, w->n_out, w->n_in);
    qp_dptr_t scale = stack(device, file, tensors, "weight_scale", vector), bias = {0};
    rows.data = stack(device, file, tensors, "weight", rows);
    if (w->has_bias)
        bias = stack(device, file, tensors, "bias", vector);
    CHECK_OK(device->ops->alloc(device, "test", n_byte, &whole.storage));
    CHECK_OK(device->ops->weight_pack(q, &whole, 0, rows, scale, bias));
    char *found = qp_alloc("test", n_byte), *expected = qp_alloc("test", n_byte);
    CHECK_OK(device->ops->download(q, found, w->storage, n_byte));
    CHECK_OK(device->ops->download(q, expected, whole.storage, n_byte));
    CHECK_MSG(memcmp(found, expected, n_byte) == 0, "%s", tensors->name[0]);
    qp_free(found);
    qp_free(expected);
    device->ops->release(device, &rows.data);
    device->ops->release(device, &scale);
    device->ops->release(device, &bias);
    device->ops->release(device, &whole.storage);
}

static void check_weights(const qp_base_t *base, const qp_h5_t *file)
{
    const tensors_t head = {.n = 1, .name = {"lm_head"}};
    for (int g = 0; g < QP_N_GROUP; g++) {
        const qp_group_linears_t linears = qp_group_linears((qp_group_t)g);
        tensors_t tensors = {.n = linears.n};
        for (int i = 0; i < linears.n; i++)
            snprintf(tensors.name[i], sizeof tensors.name[i], "model.layers.0.%s",
                     qp_linear_name((qp_linear_t)((int)linears.first + i)));
        check_weight(base->device, file, &base->layer[0].group[g], &tensors);
    }
    check_weight(base->device, file, &base->lm_head, &head);
}

static void check_embedding(const qp_base_t *base, const qp_h5_t *file)
{
    const qp_mat_t m = base->embedding;
    const size_t n_byte = qp_bytes(m.n_row * m.n_col, qp_dtype_bytes(m.dtype));
    char *found = qp_alloc("test", n_byte), *expected = qp_alloc("test", n_byte);
    CHECK_OK(base->device->ops->download(qp_device_queue(base->device), found, m.data, n_byte));
    CHECK_OK(qp_h5_read(file, "/tensors/model.embed_tokens.weight", m.dtype, 0, m.n_row, expected));
    CHECK_MSG(memcmp(found, expected, n_byte) == 0, "embedding");
    qp_free(found);
    qp_free(expected);
}

/* The sizes leave no gaps in a weight's storage, of which nobody says what is in them. */
static tiny_t wide_model(const tiny_t *tiny)
{
    tiny_t wide = *tiny;
    wide.config.n_layer = 1;
    wide.config.d_ff = 70016;
    wide.config.n_vocab = 70016;
    return wide;
}

/* A weight of one input feature is no vector of fp32. */
static void test_thin(qp_comm_t *comm, qp_device_t *device, const tiny_t *tiny, const char *path)
{
    tiny_t thin = *tiny;
    thin.config.d_ff = 1;
    if (qp_comm_rank(comm) == 0)
        tiny_write_base(&thin, int8_all, path);
    qp_comm_barrier(comm);
    CHECK_OK(load(comm, device, path));
    qp_comm_barrier(comm);
}

/* Pieces of a tensor, and a piece that has rows of two tensors. Leaves a wide int8 base behind. */
static void test_pieces(qp_comm_t *comm, qp_device_t *device, const tiny_t *tiny, const char *path)
{
    const tiny_t wide = wide_model(tiny);
    qp_base_t *base = NULL;
    qp_h5_t *file = NULL;
    const qp_base_config_t config = {.file = path};
    if (qp_comm_rank(comm) == 0)
        tiny_write_base(&wide, int8_all, path);
    qp_comm_barrier(comm);
    if (CHECK_OK(qp_base_load(comm, device, &config, 128, &base)) &&
        CHECK_OK(qp_h5_open(path, NULL, &file))) {
        check_weights(base, file);
        check_embedding(base, file);
        CHECK_OK(qp_h5_close(&file));
    }
    qp_base_destroy(comm, &base);
    qp_comm_barrier(comm);
}

/* --- damage ----------------------------------------------------------------------------------- */

/* Ways to hurt the data set of a name. */
static void set_first(hid_t file, const char *name, float value)
{
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    hid_t space = H5Dget_space(set);
    hsize_t zero[2] = {0, 0}, one[2] = {1, 1}, n = 1;
    hid_t point = H5Screate_simple(1, &n, NULL);
    CHECK(H5Sselect_hyperslab(space, H5S_SELECT_SET, zero, NULL, one, NULL) >= 0);
    CHECK(H5Dwrite(set, H5T_NATIVE_FLOAT, point, space, H5P_DEFAULT, &value) >= 0);
    H5Sclose(point);
    H5Sclose(space);
    H5Dclose(set);
}

static void flip(hid_t file, const char *name)
{
    set_first(file, name, 77.0f);
}

static void make_nan(hid_t file, const char *name)
{
    set_first(file, name, NAN);
}

static void delete_it(hid_t file, const char *name)
{
    CHECK(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
}

static void reshape(hid_t file, const char *name)
{
    hsize_t dim[2] = {8, 8};
    delete_it(file, name);
    hid_t space = H5Screate_simple(2, dim, NULL);
    hid_t set =
        H5Dcreate2(file, name, H5T_NATIVE_INT8, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dclose(set);
    H5Sclose(space);
}

static const struct {
    const char *tensor;
    void (*hurt)(hid_t file, const char *name);
    const char *message;
} DAMAGE[] = {
    {"/tensors/model.layers.1.mlp.up_proj.weight", flip, "checksum"},
    {"/tensors/model.layers.0.self_attn.k_proj.weight_scale", flip, "checksum"},
    {"/tensors/model.embed_tokens.weight", reshape, "expected bf16 [96, 64]"},
    {"/tensors/model.layers.1.self_attn.o_proj.weight", reshape,
     "found int8 [8, 8], expected int8"},
    {"/tensors/model.layers.1.self_attn.v_proj.weight", delete_it, "v_proj.weight"},
    {"/tensors/model.norm.weight", make_nan, "model.norm.weight"},
    {"/tensors/lm_head.weight", flip, "checksum"},
    {"/tensors/lm_head.weight_scale", make_nan, "lm_head.weight_scale"},
};

static void test_damage_is_named(qp_comm_t *comm, qp_device_t *device, const tiny_t *tiny,
                                 const char *path)
{
    for (size_t i = 0; i < sizeof DAMAGE / sizeof *DAMAGE; i++) {
        if (qp_comm_rank(comm) == 0) {
            tiny_write_base(tiny, (qp_base_kinds_t){QP_WEIGHT_INT8, QP_WEIGHT_INT8}, path);
            hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
            DAMAGE[i].hurt(file, DAMAGE[i].tensor);
            CHECK(H5Fclose(file) >= 0);
        }
        qp_comm_barrier(comm);
        qp_error_t error = load(comm, device, path);
        CHECK_MSG(error != NULL && strstr(error->message, path) != NULL &&
                      strstr(error->message, DAMAGE[i].tensor) != NULL,
                  "%s: %s", DAMAGE[i].tensor, error ? error->message : "no error");
        CHECK_FAILS(error, QP_INPUT, DAMAGE[i].message);
        qp_comm_barrier(comm);
    }
    CHECK_FAILS(load(comm, device, "/nonexistent/base.h5"), QP_INPUT, "/nonexistent/base.h5");
}

/* Damage of a wide base that shows when much has been passed on already: nobody waits for the rest,
 * and all ranks say the same. */
static void test_late_damage(qp_comm_t *comm, qp_device_t *device, const char *path)
{
    const char *const tensor[] = {
        "/tensors/model.embed_tokens.weight", "/tensors/model.layers.0.mlp.up_proj.weight",
        "/tensors/model.layers.0.mlp.down_proj.weight", "/tensors/lm_head.weight_scale"};
    for (size_t t = 0; t < sizeof tensor / sizeof *tensor; t++) {
        char message[512] = "", same[512];
        if (qp_comm_rank(comm) == 0) {
            hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
            flip(file, tensor[t]);
            CHECK(H5Fclose(file) >= 0);
        }
        qp_comm_barrier(comm);
        qp_error_t error = load(comm, device, path);
        snprintf(message, sizeof message, "%s", error == NULL ? "" : error->message);
        CHECK_FAILS(error, QP_INPUT, "checksum");
        memcpy(same, message, sizeof same);
        qp_comm_bcast(comm, same, sizeof same, QP_U8, 0);
        CHECK_MSG(strcmp(message, same) == 0, "'%s' and '%s'", message, same);
        qp_comm_barrier(comm);
    }
}

/* A device whose memory is too small for the base, or for a block of it besides, on one rank: all
 * ranks say so. */
static void test_no_room(const tiny_setup_t *s, const tiny_t *tiny, const char *path)
{
    const qp_device_config_t config = {
        .backend = QP_BACKEND_CHECK, .compute = QP_COMPUTE_FP32, .threads = 1};
    qp_base_shape_t shape = qp_base_shape(s->base);
    qp_device_t *check = NULL;
    CHECK_OK(qp_device_open(&config, 0, 1, &check));
    shape.device = check;
    const size_t room[] = {1000, qp_base_bytes(&shape, 128) + 1000};
    qp_device_close(&check);
    if (qp_comm_rank(s->comm) == 0)
        tiny_write_base(tiny, qp_base_kinds(QP_WEIGHT_INT8), path);
    qp_comm_barrier(s->comm);
    for (int i = 0; i < 2; i++) {
        char text[32];
        qp_device_t *device = NULL;
        snprintf(text, sizeof text, "%zu", room[i]);
        if (qp_comm_rank(s->comm) == qp_comm_size(s->comm) - 1)
            setenv("QUIPU_CHECK_MEMORY", text, 1);
        CHECK_OK(qp_device_open(&config, 0, 1, &device));
        unsetenv("QUIPU_CHECK_MEMORY");
        CHECK_FAILS(load(s->comm, device, path), QP_IO,
                    i == 0 ? "base: no room" : "base staging: no room");
        qp_device_close(&device);
    }
}

static qp_error_t create(const tiny_setup_t *s, const qp_lora_config_t *lora)
{
    qp_adapter_t *adapter = NULL;
    qp_error_t error = qp_adapter_create(s->comm, s->base, lora, NULL, 1, &adapter);
    qp_adapter_destroy(&adapter);
    return error;
}

static void test_fresh_adapter(const tiny_setup_t *s, const qp_lora_config_t *lora)
{
    qp_adapter_t *adapter;
    CHECK_OK(qp_adapter_create(s->comm, s->base, lora, NULL, 1, &adapter));
    CHECK(adapter->n_param == qp_lora_n_param(&s->base->config, lora));
    float *param = tiny_download(s->device, adapter->param, adapter->n_param);
    int64_t n_covered = 0;
    for (int64_t v = 0; v < adapter->n_view; v++) {
        const qp_lora_view_t *view = &adapter->view[v];
        double bound = 1.0 / sqrt((double)view->n_in), sum2 = 0.0;
        int64_t n_a = adapter->r * view->n_in, n_b = adapter->r * view->n_out;
        for (int64_t i = 0; i < n_a; i++) {
            CHECK(fabs((double)param[view->a + i]) <= bound);
            sum2 += (double)param[view->a + i] * (double)param[view->a + i];
        }
        double variance = sum2 / (double)n_a / (bound * bound / 3.0);
        CHECK_MSG(fabs(variance - 1.0) < 0.25, "variance of A is %g of what it should be",
                  variance);
        for (int64_t i = 0; i < n_b; i++)
            CHECK(param[view->b + i] == 0.0f);
        n_covered += n_a + n_b;
    }
    CHECK(n_covered == adapter->n_param);
    qp_free(param);
    qp_adapter_destroy(&adapter);
}

static void test_targets_by_name(void)
{
    static const char *const typo[] = {"q_proj", "v_porj"}, *const two[] = {"up_proj", "q_proj"},
                             *const all[] = {"all-linear"};
    qp_lora_config_t config = {.targets = {2, typo}};
    CHECK_FAILS(qp_lora_resolve(&config), QP_INPUT, "did you mean \"v_proj\"");
    config.targets.n = 0;
    CHECK_FAILS(qp_lora_resolve(&config), QP_INPUT, "names no linear");
    config.targets = (qp_deck_strings_t){2, two};
    CHECK_OK(qp_lora_resolve(&config));
    for (int l = 0; l < QP_N_LINEAR; l++)
        CHECK(config.target[l] == (l == QP_Q_PROJ || l == QP_UP_PROJ));
    config.targets = (qp_deck_strings_t){1, all};
    CHECK_OK(qp_lora_resolve(&config));
    for (int l = 0; l < QP_N_LINEAR; l++)
        CHECK(config.target[l]);
}

/* Heads stand behind the layers, start as they should, and come back from a folder to the bit. */
static void test_heads(const tiny_setup_t *s, const qp_lora_config_t *lora, const char *folder)
{
    const int64_t d_model = s->base->config.d_model;
    const qp_head_config_t head[] = {
        {.kind = QP_HEAD_SCORE, .init = QP_HEAD_NORMAL, .init_std = 0.02},
        {.kind = QP_HEAD_VALUE, .init = QP_HEAD_LINEAR}};
    for (int kind = 0; kind < 2; kind++) {
        qp_adapter_t *made, *back;
        const int64_t n_head = d_model + kind;
        CHECK_OK(qp_adapter_create(s->comm, s->base, lora, &head[kind], 1, &made));
        const int64_t first = made->layer_first[made->n_layer];
        CHECK(made->n_param == s->adapter->n_param + n_head && first == s->adapter->n_param);
        CHECK(made->layer_first[made->n_layer + 1] == made->n_param);
        float *param = tiny_download(s->device, made->param, made->n_param);
        double sum2 = 0.0, bound = 1.0 / sqrt((double)d_model);
        for (int64_t i = 0; i < n_head; i++) {
            sum2 += (double)param[first + i] * (double)param[first + i];
            CHECK(kind == 0 || fabs((double)param[first + i]) <= bound);
        }
        const double variance = kind == 0 ? 0.02 * 0.02 : bound * bound / 3.0;
        CHECK_MSG(fabs(sum2 / (double)n_head / variance - 1.0) < 0.5, "head %d: variance %g", kind,
                  sum2 / (double)n_head);
        if (qp_comm_rank(s->comm) == 0)
            CHECK_OK(qp_adapter_save(made, &s->base->config, "tiny", folder));
        qp_comm_barrier(s->comm);
        qp_lora_config_t config = *lora;
        config.init = folder;
        CHECK_OK(qp_adapter_create(s->comm, s->base, &config, &head[kind], 7, &back));
        float *again = tiny_download(s->device, back->param, back->n_param);
        CHECK(memcmp(param, again, (size_t)made->n_param * sizeof *param) == 0);
        qp_free(param);
        qp_free(again);
        qp_adapter_destroy(&made);
        qp_adapter_destroy(&back);
    }
}

/* A value head that has not learned adds nothing to the advantages. */
static void test_a_value_head_of_zeros(const tiny_setup_t *s, const qp_lora_config_t *lora)
{
    const qp_head_config_t head = {.kind = QP_HEAD_VALUE, .init = QP_HEAD_ZEROS};
    qp_adapter_t *made;
    CHECK_OK(qp_adapter_create(s->comm, s->base, lora, &head, 1, &made));
    float *param = tiny_download(s->device, made->param, made->n_param);
    for (int64_t i = made->layer_first[made->n_layer]; i < made->n_param; i++)
        CHECK(param[i] == 0.0f);
    qp_free(param);
    qp_adapter_destroy(&made);
}

static void test_adapter_goes_out_and_comes_back(const tiny_setup_t *s,
                                                 const qp_lora_config_t *lora, const char *folder)
{
    qp_adapter_t *back;
    if (qp_comm_rank(s->comm) == 0)
        CHECK_OK(qp_adapter_save(s->adapter, &s->base->config, "tiny", folder));
    qp_lora_config_t config = *lora;
    config.init = folder;
    CHECK_OK(qp_adapter_create(s->comm, s->base, &config, NULL, 1, &back));
    float *a = tiny_download(s->device, s->adapter->param, s->adapter->n_param);
    float *b = tiny_download(s->device, back->param, back->n_param);
    CHECK(memcmp(a, b, (size_t)back->n_param * sizeof *a) == 0);
    qp_free(a);
    qp_free(b);
    qp_adapter_destroy(&back);
    config.r = 8;
    CHECK_FAILS(create(s, &config), QP_INPUT, "has r = 3, alpha = 6");
    config.r = lora->r;
    config.target[QP_O_PROJ] = true;
    CHECK_FAILS(create(s, &config), QP_INPUT, "targets = q_proj v_proj; the deck has");
}

int main(void)
{
    tiny_t tiny;
    tiny_setup_t s;
    char folder[256] = "", path[300];
    tiny_open("bias", &tiny);
    tiny_setup(&tiny, qp_base_kinds(QP_WEIGHT_INT8), QP_COMPUTE_AUTO, QP_PRODUCT_INT8, &s);
    if (qp_comm_rank(s.comm) == 0)
        snprintf(folder, sizeof folder, "%s", qp_test_folder());
    qp_comm_bcast(s.comm, folder, sizeof folder, QP_U8, 0);
    test_fresh_adapter(&s, &tiny.lora);
    test_targets_by_name();
    snprintf(path, sizeof path, "%s/adapter", folder);
    test_adapter_goes_out_and_comes_back(&s, &tiny.lora, path);
    snprintf(path, sizeof path, "%s/heads", folder);
    test_heads(&s, &tiny.lora, path);
    test_a_value_head_of_zeros(&s, &tiny.lora);
    snprintf(path, sizeof path, "%s/products.h5", folder);
    test_products_of_the_deck(s.comm, s.device, &tiny, path);
    snprintf(path, sizeof path, "%s/whole.h5", folder);
    test_once_per_node(s.comm, s.device, &tiny, path);
    snprintf(path, sizeof path, "%s/wide.h5", folder);
    test_thin(s.comm, s.device, &tiny, path);
    test_pieces(s.comm, s.device, &tiny, path);
    test_late_damage(s.comm, s.device, path);
    snprintf(path, sizeof path, "%s/hurt.h5", folder);
    test_damage_is_named(s.comm, s.device, &tiny, path);
    test_no_room(&s, &tiny, path);
    tiny_teardown(&s);
    tiny_close(&tiny);
    return qp_test_end();
}
