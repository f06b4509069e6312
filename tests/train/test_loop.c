/* QP_TEST: ranks=1,3 check=0,1,2
 * The step loop with a method that computes nothing real: steps whose loss or gradient is not
 * finite on one rank are skipped on all and counted, ten in a row end the run with a checkpoint, an
 * error of one rank ends it on all. */
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "train/loop/loop_impl.h"
#include "testing.h"

enum {
    N_LAYER = 2,
    D_MODEL = 8,
    R = 2,
    N_VIEW_PARAM = 2 * R * D_MODEL,
    N_PARAM = N_LAYER * N_VIEW_PARAM
};
enum { N_MICRO = 4, N_STEP = 12, SEED = 7 };

/* The run's parts that the loop touches, made by hand. */
typedef struct {
    qp_settings_t settings;
    qp_adapter_t adapter;
    qp_lora_view_t view[N_LAYER];
    int64_t layer_first[N_LAYER + 2];
    qp_run_t run;
} fixture_t;

/* What goes wrong, on the last rank alone. */
typedef struct {
    qp_run_t *run;
    int64_t step, bad_first,
        bad_end;   /* steps [bad_first, bad_end) have a value that is not finite */
    bool bad_loss; /* in the loss; otherwise in the gradient */
    int64_t fail_step;
    int64_t n_update; /* of a step; 0: one */
    int64_t n_key;    /* passes whose random numbers are not those of their update */
} fake_t;

static int64_t n_update_of(const fake_t *fake)
{
    return fake->n_update > 0 ? fake->n_update : 1;
}

static bool is_last_rank(const fake_t *fake)
{
    return qp_comm_rank(fake->run->comm) == qp_comm_size(fake->run->comm) - 1;
}

static qp_error_t next(void *owner, qp_work_t *work)
{
    fake_t *fake = owner;
    fake->step++;
    *work =
        (qp_work_t){.n_update = n_update_of(fake), .n_micro = N_MICRO, .n_token = 10, .epoch = 0.1};
    return NULL;
}

static qp_error_t training_step(void *owner, int64_t u, int64_t i, const qp_pass_t *pass,
                                double *value)
{
    fake_t *fake = owner;
    const qp_adapter_t *adapter = fake->run->model.adapter;
    qp_queue_t *q = qp_device_queue(adapter->device);
    float grad[N_PARAM];
    QP_TRY(adapter->device->ops->download(q, grad, adapter->grad, sizeof grad));
    bool bad = is_last_rank(fake) && fake->step >= fake->bad_first && fake->step < fake->bad_end;
    (void)i;
    fake->n_key +=
        pass->key.seed != SEED || pass->key.step != (uint32_t)(fake->step * n_update_of(fake) + u);
    if (is_last_rank(fake) && fake->step == fake->fail_step)
        return QP_ERROR(QP_INPUT, "the fake fails");
    for (int k = 0; k < N_PARAM; k++)
        grad[k] += 0.01f * (float)(k % 7 - 3);
    value[0] = bad && fake->bad_loss ? NAN : 1.0;
    if (bad && !fake->bad_loss)
        grad[N_PARAM - 1] = INFINITY;
    return adapter->device->ops->upload(q, adapter->grad, grad, sizeof grad);
}

static void finish(void *owner, const double *total, double *metric)
{
    (void)owner;
    metric[0] = total[0] / N_MICRO;
}

/* Nothing to say: the file is made and stays empty. */
static qp_error_t samples(void *owner, int64_t step, qp_str_t *lines)
{
    (void)owner;
    (void)step;
    (void)lines;
    return NULL;
}

static const char *const metric_name[] = {"loss"};
static const qp_method_t method = {.name = "fake",
                                   .metric = metric_name,
                                   .n_metric = 1,
                                   .n_value = 1,
                                   .next = next,
                                   .training_step = training_step,
                                   .finish = finish,
                                   .samples = samples};

static void fixture_init(fixture_t *f, qp_comm_t *comm, qp_device_t *device, const char *folder)
{
    *f = (fixture_t){0};
    f->settings.batch = (qp_batch_config_t){.global_sequences = N_MICRO, .micro_sequences = 1};
    f->settings.job.seed = SEED;
    f->settings.optim = (qp_optim_config_t){.lr = 0.1,
                                            .beta1 = 0.9,
                                            .beta2 = 0.999,
                                            .eps = 1e-8,
                                            .max_grad_norm = 1.0,
                                            .steps = N_STEP};
    f->settings.checkpoint = (qp_checkpoint_config_t){
        .keep = 1, .walltime_seconds = -1.0, .walltime_margin_seconds = -1.0};
    f->settings.log.every_steps = 100;
    for (int i = 0; i < N_LAYER; i++) {
        f->layer_first[i + 1] = (i + 1) * N_VIEW_PARAM;
        f->view[i] = (qp_lora_view_t){.layer = i,
                                      .linear = QP_Q_PROJ,
                                      .n_in = D_MODEL,
                                      .n_out = D_MODEL,
                                      .a = f->layer_first[i],
                                      .b = f->layer_first[i] + R * D_MODEL};
    }
    f->layer_first[N_LAYER + 1] = N_PARAM;
    f->adapter = (qp_adapter_t){.r = R,
                                .scaling = 1.0f,
                                .alpha = R,
                                .target = {[QP_Q_PROJ] = true},
                                .n_layer = N_LAYER,
                                .n_param = N_PARAM,
                                .n_view = N_LAYER,
                                .view = f->view,
                                .layer_first = f->layer_first,
                                .device = device};
    CHECK_OK(device->ops->alloc(device, "test", N_PARAM * sizeof(float), &f->adapter.param));
    CHECK_OK(device->ops->alloc(device, "test", N_PARAM * sizeof(float), &f->adapter.grad));
    CHECK_OK(device->ops->zero(qp_device_queue(device), f->adapter.param, N_PARAM * sizeof(float)));
    f->run = (qp_run_t){.comm = comm,
                        .settings = &f->settings,
                        .folder = qp_strdup(folder),
                        .device = device,
                        .model.adapter = &f->adapter};
    f->run.given.info.config = (qp_llama_config_t){.n_layer = N_LAYER,
                                                   .d_model = D_MODEL,
                                                   .n_head = 2,
                                                   .n_kv_head = 2,
                                                   .head_dim = 4,
                                                   .d_ff = 16,
                                                   .n_vocab = 32};
}

static void fixture_fini(fixture_t *f)
{
    f->adapter.device->ops->release(f->adapter.device, &f->adapter.param);
    f->adapter.device->ops->release(f->adapter.device, &f->adapter.grad);
    qp_free(f->run.folder);
}

static char *make_folder(qp_comm_t *comm, const char *shared, const char *name)
{
    char *folder = qp_format("%s/%s", shared, name);
    if (qp_comm_rank(comm) == 0)
        CHECK(mkdir(folder, 0777) == 0);
    qp_comm_barrier(comm);
    return folder;
}

static bool exists(const char *folder, const char *file)
{
    char *path = qp_format("%s/%s", folder, file);
    bool found = access(path, F_OK) == 0;
    qp_free(path);
    return found;
}

/* Runs one loop; copies what is left of it. */
static qp_error_t run_loop(qp_comm_t *comm, qp_device_t *device, const char *folder, fake_t *fake,
                           qp_progress_t *progress, int64_t *n_update, float *param)
{
    fixture_t f;
    qp_loop_t *loop = NULL;
    fixture_init(&f, comm, device, folder);
    fake->run = &f.run;
    fake->step = -1;
    qp_error_t error = qp_loop_create(&f.run, &method, fake, &loop);
    if (error == NULL)
        error = qp_loop_run(loop);
    if (loop != NULL) {
        *progress = loop->progress;
        *n_update = loop->optim->n_update;
    }
    CHECK_OK(device->ops->download(qp_device_queue(device), param, f.adapter.param,
                                   N_PARAM * sizeof(float)));
    qp_loop_destroy(&loop);
    fixture_fini(&f);
    return error;
}

static void test_skipped_steps(qp_comm_t *comm, qp_device_t *device, const char *shared)
{
    float param[N_PARAM];
    qp_progress_t progress;
    int64_t n_update;
    for (int bad_loss = 0; bad_loss < 2; bad_loss++) {
        char *folder = make_folder(comm, shared, bad_loss ? "loss" : "gradient");
        fake_t fake = {.bad_first = 3, .bad_end = 5, .bad_loss = bad_loss, .fail_step = -1};
        CHECK_OK(run_loop(comm, device, folder, &fake, &progress, &n_update, param));
        CHECK(progress.step == N_STEP && progress.n_skipped == 2 && progress.n_skipped_in_row == 0);
        CHECK(n_update == N_STEP - 2);
        for (int k = 0; k < N_PARAM; k++)
            CHECK(isfinite(param[k]));
        CHECK(param[0] > 0.0f && param[6] < 0.0f); /* against the gradient */
        CHECK(exists(folder, "adapter/adapter_model.safetensors"));
        CHECK(exists(folder, "samples.jsonl"));
        qp_free(folder);
    }
}

/* Random numbers are those of the update: no two of a run have the same. */
static void test_keys_of_updates(qp_comm_t *comm, qp_device_t *device, const char *shared)
{
    float param[N_PARAM];
    qp_progress_t progress;
    int64_t n_update;
    char *folder = make_folder(comm, shared, "keys");
    fake_t fake = {.fail_step = -1, .n_update = 2};
    CHECK_OK(run_loop(comm, device, folder, &fake, &progress, &n_update, param));
    CHECK(n_update == 2 * N_STEP && fake.n_key == 0);
    qp_free(folder);
}

/* What a checkpoint brings back is there when the run starts. */
static void test_restored_stop(qp_comm_t *comm, qp_device_t *device, const char *shared)
{
    fixture_t f;
    qp_loop_t *loop = NULL;
    char *folder = make_folder(comm, shared, "restored");
    fake_t fake = {.run = &f.run, .step = -1, .fail_step = -1};
    fixture_init(&f, comm, device, folder);
    if (CHECK_OK(qp_loop_create(&f.run, &method, &fake, &loop))) {
        loop->stop.checkpoint_seconds = 1e6;
        loop->stop.step_seconds = 2e6;
        CHECK_OK(qp_loop_run(loop));
        CHECK(loop->stop.checkpoint_seconds == 1e6 && loop->stop.step_seconds == 2e6);
    }
    qp_loop_destroy(&loop);
    fixture_fini(&f);
    qp_free(folder);
}

static void test_ten_in_a_row(qp_comm_t *comm, qp_device_t *device, const char *shared)
{
    float param[N_PARAM];
    qp_progress_t progress;
    int64_t n_update;
    char *folder = make_folder(comm, shared, "ten");
    fake_t fake = {.bad_first = 0, .bad_end = N_STEP, .fail_step = -1};
    CHECK_FAILS(run_loop(comm, device, folder, &fake, &progress, &n_update, param), QP_INPUT,
                "10 steps in a row");
    CHECK(progress.step == 10 && n_update == 0 && param[0] == 0.0f);
    CHECK(exists(folder, "checkpoints/step-000010.h5"));
    qp_free(folder);
}

static void test_error_of_one_rank(qp_comm_t *comm, qp_device_t *device, const char *shared)
{
    float param[N_PARAM];
    qp_progress_t progress;
    int64_t n_update;
    char *folder = make_folder(comm, shared, "error");
    fake_t fake = {.fail_step = 2};
    CHECK_FAILS(run_loop(comm, device, folder, &fake, &progress, &n_update, param), QP_INPUT,
                "the fake fails");
    CHECK(progress.step == 2 && n_update == 2);
    qp_free(folder);
}

int main(void)
{
    const qp_device_config_t config = {
        .backend = QP_BACKEND_AUTO, .compute = QP_COMPUTE_FP32, .threads = 1};
    qp_comm_t *comm = NULL;
    qp_device_t *device = NULL;
    CHECK_OK(qp_comm_create(&comm));
    CHECK_OK(qp_device_open(&config, qp_comm_node_rank(comm), qp_comm_node_size(comm), &device));
    /* One folder for all ranks: rank 0's. */
    void *shared = qp_comm_rank(comm) == 0 ? qp_strdup(qp_test_folder()) : NULL;
    size_t n_bytes = shared != NULL ? strlen(shared) + 1 : 0;
    qp_comm_bcast_block(comm, &shared, &n_bytes, 0);
    test_skipped_steps(comm, device, shared);
    test_keys_of_updates(comm, device, shared);
    test_restored_stop(comm, device, shared);
    test_ten_in_a_row(comm, device, shared);
    test_error_of_one_rank(comm, device, shared);
    qp_free(shared);
    qp_device_close(&device);
    qp_comm_barrier(comm);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
