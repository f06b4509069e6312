/* QP_TEST: ranks=1,2,3,4
 * The stream of global batches: the same rows in the same order whatever the rank count, across
 * epochs, and from the middle on without reading what came before. */
#include "base/hash.h"
#include "base/log.h"
#include "data/plan.h"
#include "shards.h"

enum { N_SAMPLE = 40, N_PAIR = 60, SEQ_LENGTH = 64, SEED = 9, N_STEP = 12, N_FIELD = 5 };

static const qp_data_config_t config = {.seq_length = SEQ_LENGTH,
                                        .packing = QP_PACK_ISOLATED,
                                        .completion_only = true,
                                        .shuffle = true};
static const qp_batch_config_t batch_config = {.global_sequences = 14, .micro_sequences = 4};

static const qp_data_config_t pair_config = {
    .seq_length = SEQ_LENGTH, .packing = QP_PACK_NONE, .shuffle = true};

/* The tokens, targets, positions, identities and margins of one step, in the order of its rows. */
typedef struct {
    int64_t n;
    int32_t *token; /* [n, N_FIELD] */
    int64_t n_target;
} step_t;

static void append(step_t *step, const qp_batch_t *b)
{
    step->token = qp_realloc("test", step->token, qp_bytes((step->n + b->n_token) * N_FIELD, 4));
    for (int64_t s = 0; s < b->n_seq; s++)
        for (int32_t i = b->cu_seqlens[s]; i < b->cu_seqlens[s + 1]; i++) {
            int32_t *out = step->token + (step->n + i) * N_FIELD;
            out[0] = b->token[i];
            out[1] = b->target[i];
            out[2] = b->position[i];
            out[3] = (int32_t)b->sample[i];
            memcpy(&out[4], &b->margin[s], sizeof out[4]);
        }
    step->n += b->n_token;
    step->n_target += b->n_target;
}

static void free_steps(step_t step[N_STEP])
{
    for (int s = 0; s < N_STEP; s++)
        qp_free(step[s].token);
}

/* What every step must be, straight from the plans. */
static void expected_steps(const qp_dataset_t *dataset, const qp_data_config_t *data,
                           step_t step[N_STEP])
{
    qp_plan_t *plan = NULL;
    uint32_t epoch = 0;
    int64_t row = 0;
    CHECK_OK(qp_plan_create(dataset, data, &END, SEED, epoch, &plan));
    for (int64_t s = 0; s < N_STEP; s++)
        for (int64_t place = 0; place < batch_config.global_sequences; place++, row++) {
            if (row == qp_plan_n_row(plan)) {
                row = 0;
                qp_plan_destroy(&plan);
                CHECK_OK(qp_plan_create(dataset, data, &END, SEED, ++epoch, &plan));
            }
            qp_batch_t b;
            qp_batch_init(&b, 1, plan->row_tokens);
            CHECK_OK(qp_batch_add_row(&b, dataset, plan, row, place));
            append(&step[s], &b);
            qp_batch_fini(&b);
        }
    qp_plan_destroy(&plan);
}

/* All ranks' micro-batches of a step put together, on every rank: they are in rank order already.
 */
static void gather_step(qp_comm_t *comm, const qp_step_batch_t *batch, step_t *all)
{
    step_t mine = {0};
    for (int64_t m = 0; m < batch->n_micro; m++)
        append(&mine, &batch->micro[m]);
    void *gathered = NULL;
    int64_t *counts = QP_NEW("test", int64_t, qp_comm_size(comm));
    qp_comm_allgatherv(comm, mine.token, mine.n * N_FIELD, QP_I32, &gathered, counts);
    all->token = gathered;
    for (int rank = 0; rank < qp_comm_size(comm); rank++)
        all->n += counts[rank] / N_FIELD;
    qp_free(counts);
    qp_free(mine.token);
}

static void check_steps(qp_comm_t *comm, const qp_dataset_t *dataset, const qp_data_config_t *data,
                        const step_t *expected, int64_t first_step)
{
    qp_loader_t *loader = NULL;
    if (!CHECK_OK(
            qp_loader_create(comm, dataset, data, &batch_config, &END, SEED, first_step, &loader)))
        return;
    double last_epoch = 0.0;
    for (int64_t s = first_step; s < N_STEP; s++) {
        qp_step_batch_t batch;
        step_t all = {0};
        CHECK_OK(qp_loader_next(loader, &batch));
        gather_step(comm, &batch, &all);
        CHECK(batch.step == s && batch.epoch > last_epoch);
        CHECK(batch.n_token_global == expected[s].n &&
              batch.n_target_global == expected[s].n_target);
        CHECK_MSG(all.n == expected[s].n &&
                      memcmp(all.token, expected[s].token, (size_t)all.n * N_FIELD * 4) == 0,
                  "step %lld differs", (long long)s);
        last_epoch = batch.epoch;
        qp_free(all.token);
    }
    CHECK(last_epoch > 2.0); /* epochs were crossed */
    qp_loader_destroy(&loader);
}

static void test_a_resumed_run_reads_nothing_it_skips(qp_comm_t *comm, const char *folder,
                                                      const step_t *expected)
{
    enum { FIRST = 8, AHEAD = 2 };
    int64_t most = 0; /* sequences of the step and of those that the reader may be ahead */
    for (int64_t s = FIRST; s <= FIRST + AHEAD; s++)
        for (int64_t i = 0; i < expected[s].n; i++)
            most += expected[s].token[i * N_FIELD + 2] == 0;
    for (int resumed = 0; resumed < 2; resumed++) {
        qp_dataset_t *dataset = NULL;
        qp_loader_t *loader = NULL;
        qp_step_batch_t batch;
        CHECK_OK(open_made(comm, folder, "made-*.h5", &dataset));
        CHECK_OK(qp_loader_create(comm, dataset, &config, &batch_config, &END, SEED,
                                  resumed ? FIRST : 0, &loader));
        for (int64_t s = resumed ? FIRST : 0; s <= FIRST; s++)
            CHECK_OK(qp_loader_next(loader, &batch));
        qp_loader_destroy(&loader); /* waits for the reader */
        int64_t n_read = qp_dataset_n_read(dataset);
        qp_comm_sum_i64(comm, &n_read, 1);
        CHECK_MSG(resumed ? n_read <= most : n_read > most, "%lld runs read, at most %lld needed",
                  (long long)n_read, (long long)most);
        qp_dataset_close(&dataset);
    }
}

static void test_too_few_samples(qp_comm_t *comm, const qp_dataset_t *dataset)
{
    qp_loader_t *loader = NULL;
    const qp_batch_config_t large = {.global_sequences = 4000, .micro_sequences = 4};
    CHECK_FAILS(qp_loader_create(comm, dataset, &config, &large, &END, SEED, 0, &loader), QP_INPUT,
                "too few training samples for one step: found");
    CHECK(loader == NULL);
}

/* A shard that turns bad while it is read stops all ranks with one message. */
static void test_bad_tokens_stop_all_ranks(qp_comm_t *comm, const char *folder)
{
    if (qp_comm_rank(comm) == 0) {
        char *path = qp_format("%s/bad.h5", folder);
        qp_shard_info_t info = made_info;
        info.n_vocab = 1100; /* the tokens of most samples lie above */
        qp_shard_writer_t *writer = NULL;
        CHECK_OK(qp_shard_writer_create(path, &info, "made up", &writer));
        for (int64_t i = 0; i < N_SAMPLE; i++)
            CHECK_OK(add_made(writer, i));
        CHECK_OK(qp_shard_writer_commit(&writer));
        qp_free(path);
    }
    qp_comm_barrier(comm);
    qp_dataset_t *dataset = NULL;
    qp_loader_t *loader = NULL;
    qp_step_batch_t batch;
    CHECK_OK(open_made(comm, folder, "bad.h5", &dataset));
    CHECK_OK(qp_loader_create(comm, dataset, &config, &batch_config, &END, SEED, 0, &loader));
    CHECK_FAILS(qp_loader_next(loader, &batch), QP_INPUT, "outside the vocabulary of 1100");
    qp_loader_destroy(&loader);
    qp_dataset_close(&dataset);
}

/* All ranks are told the kind of the shards, or all that there are two. */
static void test_kinds_are_told_to_all_ranks(qp_comm_t *comm, const char *folder)
{
    qp_dataset_t *dataset = NULL;
    if (CHECK_OK(open_kind(comm, folder, "pairs-*.h5", NULL, &dataset)))
        CHECK(strcmp(qp_dataset_kind(dataset), "reward") == 0);
    qp_dataset_close(&dataset);
    CHECK_FAILS(open_kind(comm, folder, "[mp]a*-1.h5", NULL, &dataset), QP_INPUT,
                "pairs-1.h5: holds \"reward\" samples, but ");
    CHECK(dataset == NULL);
}

static qp_error_t visit(void *owner, const qp_batch_t *batch)
{
    int64_t *count = owner;
    count[0] += batch->n_token;
    count[1] += batch->n_seq;
    return NULL;
}

static void test_visits_cover_the_plan_once(qp_comm_t *comm, const qp_dataset_t *dataset)
{
    qp_plan_t *plan = NULL;
    int64_t count[2] = {0, 0}, few[2] = {0, 0};
    CHECK_OK(qp_plan_create(dataset, &config, &END, SEED, 0, &plan));
    CHECK_OK(qp_plan_visit(comm, dataset, plan, 3, 0, visit, count));
    CHECK_OK(qp_plan_visit(comm, dataset, plan, 3, 2, visit, few));
    qp_comm_sum_i64(comm, count, 2);
    qp_comm_sum_i64(comm, few, 2);
    CHECK(count[0] == qp_dataset_n_token(dataset));
    CHECK(count[1] == plan->n_piece && few[1] == plan->first_piece[2]);
    qp_plan_destroy(&plan);
}

static void test_pairs_bring_their_margins(qp_comm_t *comm, const char *folder)
{
    qp_dataset_t *pairs = NULL;
    if (!CHECK_OK(open_kind(comm, folder, "pairs-*.h5", "reward", &pairs)))
        return;
    step_t expected[N_STEP] = {{0}};
    expected_steps(pairs, &pair_config, expected);
    check_steps(comm, pairs, &pair_config, expected, 0);
    check_steps(comm, pairs, &pair_config, expected, 5);
    free_steps(expected);
    qp_dataset_close(&pairs);
}

/* The lines of the log that contain a text; rank 0. */
static int count_lines(const char *path, const char *text)
{
    char line[512];
    int n = 0;
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        n += strstr(line, text) != NULL;
    if (file != NULL)
        fclose(file);
    return n;
}

/* The loader tells once what it leaves out, and says so when too little is left for a step. */
static void test_what_is_left_out_is_told(qp_comm_t *comm, const char *folder)
{
    int64_t n_long = 0;
    for (int64_t i = 0; i < N_PAIR; i++)
        n_long += made_length(2 * i) > SEQ_LENGTH || made_length(2 * i + 1) > SEQ_LENGTH;
    char *log = qp_format("%s/log", folder);
    char *line = qp_format("data.train: data.overlong = \"auto\" leaves out %lld of %d samples "
                           "longer than data.seq_length = %d\n",
                           (long long)n_long, (int)N_PAIR, (int)SEQ_LENGTH);
    char *refusal = qp_format("(%d samples, of which data.overlong leaves out %lld), needed "
                              "batch.global_sequences = %d",
                              (int)N_PAIR, (long long)n_long, (int)N_PAIR);
    qp_dataset_t *pairs = NULL;
    qp_loader_t *loader = NULL;
    CHECK_OK(open_kind(comm, folder, "pairs-*.h5", "reward", &pairs));
    qp_log_init(QP_LOG_INFO, qp_comm_rank(comm));
    CHECK_OK(qp_log_tee(log));
    CHECK_OK(qp_loader_create(comm, pairs, &pair_config, &batch_config, &END, SEED, 0, &loader));
    qp_loader_destroy(&loader);
    qp_log_fini();
    qp_comm_barrier(comm);
    CHECK(qp_comm_rank(comm) != 0 || (count_lines(log, line) == 1 && n_long > 0));
    const qp_batch_config_t all = {.global_sequences = N_PAIR, .micro_sequences = 4};
    CHECK_FAILS(qp_loader_create(comm, pairs, &pair_config, &all, &END, SEED, 0, &loader), QP_INPUT,
                refusal);
    qp_dataset_close(&pairs);
    qp_free(log);
    qp_free(line);
    qp_free(refusal);
}

/* Nothing left: all ranks end with the same message. */
static void test_nothing_left_stops_all_ranks(qp_comm_t *comm, const char *folder)
{
    qp_dataset_t *dataset = NULL;
    qp_loader_t *loader = NULL;
    qp_data_config_t drop = pair_config;
    drop.seq_length = 1;
    int64_t i = 0;
    while (made_length(2 * i) == 1 && made_length(2 * i + 1) == 1)
        i++;
    if (qp_comm_rank(comm) == 0)
        make_shard_of(&made_pairs, folder, "long.h5", i, i + 1);
    qp_comm_barrier(comm);
    CHECK_OK(open_kind(comm, folder, "long.h5", "reward", &dataset));
    CHECK_FAILS(qp_loader_create(comm, dataset, &drop, &batch_config, &END, SEED, 0, &loader),
                QP_INPUT, "leaves out all 1 samples: none fits data.seq_length = 1");
    CHECK(loader == NULL);
    qp_dataset_close(&dataset);
}

int main(void)
{
    qp_comm_t *comm = NULL;
    if (!CHECK_OK(qp_comm_create(&comm)))
        return 1;
    char *folder = common_folder(comm);
    if (qp_comm_rank(comm) == 0) {
        make_shard(folder, "made-1.h5", 0, 30);
        make_shard(folder, "made-2.h5", 30, N_SAMPLE);
        make_shard_of(&made_pairs, folder, "pairs-1.h5", 0, 25);
        make_shard_of(&made_pairs, folder, "pairs-2.h5", 25, N_PAIR);
    }
    qp_comm_barrier(comm);
    qp_dataset_t *dataset = NULL;
    if (CHECK_OK(open_made(comm, folder, "made-*.h5", &dataset))) {
        step_t expected[N_STEP] = {{0}};
        expected_steps(dataset, &config, expected);
        check_steps(comm, dataset, &config, expected, 0);
        check_steps(comm, dataset, &config, expected, 5);
        test_too_few_samples(comm, dataset);
        test_visits_cover_the_plan_once(comm, dataset);
        test_a_resumed_run_reads_nothing_it_skips(comm, folder, expected);
        free_steps(expected);
        qp_dataset_close(&dataset);
    }
    test_pairs_bring_their_margins(comm, folder);
    test_what_is_left_out_is_told(comm, folder);
    test_nothing_left_stops_all_ranks(comm, folder);
    test_kinds_are_told_to_all_ranks(comm, folder);
    test_bad_tokens_stop_all_ranks(comm, folder);
    qp_comm_barrier(comm); /* rank 0 removes the folder */
    qp_free(folder);
    qp_comm_destroy(&comm);
    return qp_test_end();
}
