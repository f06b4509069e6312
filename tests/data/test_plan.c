/* QP_TEST: timeout=30
 * What packing promises: which tokens are in which row, what is predicted, and that it repeats. */
#include "data/plan.h"
#include "shards.h"

enum { N_SAMPLE = 500, N_PAIR = 100, SEQ_LENGTH = 128 };

static qp_data_config_t config_for(qp_packing_t packing)
{
    return (qp_data_config_t){.seq_length = SEQ_LENGTH, .packing = (int)packing, .shuffle = true};
}

/* All rows of a plan in one batch. */
static void read_plan(const qp_dataset_t *dataset, const qp_data_config_t *config, uint32_t seed,
                      uint32_t epoch, qp_plan_t **plan, qp_batch_t *batch)
{
    if (!CHECK_OK(qp_plan_create(dataset, config, EOS, seed, epoch, plan)))
        return;
    qp_batch_init(batch, (*plan)->n_row, (*plan)->row_tokens);
    for (int64_t row = 0; row < (*plan)->n_row; row++) {
        int64_t before = batch->n_token;
        CHECK_OK(qp_batch_add_row(batch, dataset, *plan, row, row));
        CHECK(batch->n_token - before <= (*plan)->row_tokens && batch->n_token > before);
    }
}

static void free_plan(qp_plan_t **plan, qp_batch_t *batch)
{
    qp_plan_destroy(plan);
    qp_batch_fini(batch);
}

/* Positions count from 0 in each sequence, one identity per sequence, no identity twice. */
static void check_sequences(const qp_batch_t *b)
{
    CHECK(b->cu_seqlens[0] == 0 && b->cu_seqlens[b->n_seq] == b->n_token);
    uint32_t last = 0;
    for (int64_t s = 0; s < b->n_seq; s++) {
        uint32_t identity = b->sample[b->cu_seqlens[s]];
        CHECK(s == 0 || identity > last); /* they ascend, so none comes twice */
        last = identity;
        for (int32_t i = b->cu_seqlens[s]; i < b->cu_seqlens[s + 1]; i++)
            CHECK(b->position[i] == i - b->cu_seqlens[s] && b->sample[i] == identity);
    }
}

/* Every target is the next token of its sequence where it counts, and -1 elsewhere. */
static void check_targets(const qp_batch_t *b, bool completion_only)
{
    int64_t n_target = 0;
    for (int64_t s = 0; s < b->n_seq; s++)
        for (int32_t i = b->cu_seqlens[s]; i < b->cu_seqlens[s + 1]; i++) {
            bool counted =
                i + 1 < b->cu_seqlens[s + 1] && (!completion_only || b->completion[i + 1] == 1);
            CHECK(b->target[i] == (counted ? b->token[i + 1] : -1));
            n_target += counted;
        }
    CHECK(b->n_target == n_target);
}

static int64_t all_tokens(void)
{
    int64_t n = 0;
    for (int64_t i = 0; i < N_SAMPLE; i++)
        n += made_length(i);
    return n;
}

static void test_isolated_keeps_every_token_in_order(const qp_dataset_t *dataset)
{
    qp_data_config_t config = config_for(QP_PACK_ISOLATED);
    qp_plan_t *plan = NULL;
    qp_batch_t b = {0};
    read_plan(dataset, &config, 1, 0, &plan, &b);
    check_sequences(&b);
    check_targets(&b, false);
    CHECK(b.n_token == all_tokens() && qp_plan_n_dropped(plan) == 0);
    /* Each sequence is a run of one sample, starting at a multiple of seq_length. */
    uint8_t *seen = QP_NEW("test", uint8_t, N_SAMPLE * MAX_LENGTH);
    for (int64_t s = 0; s < b.n_seq; s++) {
        int32_t first = b.cu_seqlens[s], n = b.cu_seqlens[s + 1] - first;
        if (b.token[first] == EOS) /* a sample or its rest of one token */
            continue;
        int64_t sample = (b.token[first] - 1000) / MAX_LENGTH;
        int64_t start = (b.token[first] - 1000) % MAX_LENGTH;
        CHECK(start % SEQ_LENGTH == 0);
        CHECK(n == SEQ_LENGTH || start + n == made_length(sample));
        for (int32_t p = 0; p < n; p++) {
            CHECK(b.token[first + p] == made_token(sample, start + p));
            CHECK(seen[sample * MAX_LENGTH + start + p]++ == 0);
        }
    }
    qp_free(seen);
    double fill = (double)b.n_token / (double)(plan->n_row * SEQ_LENGTH);
    CHECK_MSG(fill > 0.97, "rows are filled to %.3f only", fill);
    free_plan(&plan, &b);
}

static void test_contaminated_joins_and_cuts(const qp_dataset_t *dataset)
{
    qp_data_config_t config = config_for(QP_PACK_CONTAMINATED);
    qp_plan_t *plan = NULL;
    qp_batch_t b = {0};
    read_plan(dataset, &config, 1, 3, &plan, &b);
    check_sequences(&b);
    check_targets(&b, false);
    int64_t n_row = all_tokens() / SEQ_LENGTH, at = 0;
    CHECK(plan->n_row == n_row && b.n_seq == n_row && b.n_token == n_row * SEQ_LENGTH);
    CHECK(qp_plan_n_dropped(plan) == all_tokens() - n_row * SEQ_LENGTH);
    for (int64_t i = 0; i < N_SAMPLE; i++) {
        int64_t sample = qp_permute(1, 3, N_SAMPLE, i);
        for (int64_t p = 0; p < made_length(sample) && at < b.n_token; p++)
            CHECK(b.token[at++] == made_token(sample, p));
    }
    free_plan(&plan, &b);
}

static void test_none_cuts_long_samples(const qp_dataset_t *dataset)
{
    qp_data_config_t config = config_for(QP_PACK_NONE);
    config.shuffle = false;
    qp_plan_t *plan = NULL;
    qp_batch_t b = {0};
    read_plan(dataset, &config, 1, 0, &plan, &b);
    check_sequences(&b);
    check_targets(&b, false);
    int64_t n_cut = 0;
    CHECK(plan->n_row == N_SAMPLE && b.n_seq == N_SAMPLE);
    for (int64_t i = 0; i < N_SAMPLE; i++) {
        int64_t length = made_length(i), n = length < SEQ_LENGTH ? length : SEQ_LENGTH;
        CHECK(b.cu_seqlens[i + 1] - b.cu_seqlens[i] == n);
        CHECK(b.token[b.cu_seqlens[i]] == made_token(i, 0));
        n_cut += length > SEQ_LENGTH;
    }
    CHECK(n_cut > 0 && qp_plan_n_cut(plan) == n_cut);
    CHECK(qp_plan_n_dropped(plan) == all_tokens() - b.n_token);
    free_plan(&plan, &b);
}

static void test_completions_only(const qp_dataset_t *dataset)
{
    for (int packing = QP_PACK_ISOLATED; packing <= QP_PACK_NONE; packing++) {
        qp_data_config_t config = config_for((qp_packing_t)packing);
        config.completion_only = true;
        qp_plan_t *plan = NULL;
        qp_batch_t b = {0};
        read_plan(dataset, &config, 1, 0, &plan, &b);
        check_targets(&b, true);
        int64_t n_completion = 0, n_eos = 0;
        for (int64_t i = 0; i < b.n_token; i++) {
            n_completion += b.completion[i];
            n_eos += b.target[i] == EOS;
        }
        CHECK(b.n_target <= n_completion && b.n_target > n_completion / 2);
        CHECK_MSG(packing == QP_PACK_NONE || n_eos > N_SAMPLE * 3 / 4, "%lld EOS learned",
                  (long long)n_eos);
        free_plan(&plan, &b);
    }
}

static void test_plans_repeat_and_differ(const qp_dataset_t *dataset)
{
    for (int packing = QP_PACK_ISOLATED; packing <= QP_PACK_NONE; packing++) {
        qp_data_config_t config = config_for((qp_packing_t)packing);
        const uint32_t keys[][2] = {{1, 0}, {1, 0}, {2, 0}, {1, 1}};
        qp_plan_t *plan[4];
        qp_batch_t b[4] = {{0}};
        for (int i = 0; i < 4; i++)
            read_plan(dataset, &config, keys[i][0], keys[i][1], &plan[i], &b[i]);
        size_t n_bytes = (size_t)b[0].n_token * sizeof(int32_t);
        CHECK(b[0].n_token == b[1].n_token && memcmp(b[0].token, b[1].token, n_bytes) == 0);
        CHECK(memcmp(b[0].token, b[2].token, n_bytes / 2) != 0);
        CHECK(memcmp(b[0].token, b[3].token, n_bytes / 2) != 0);
        for (int i = 0; i < 4; i++)
            free_plan(&plan[i], &b[i]);
    }
}

/* Sequences 2i and 2i + 1 are the chosen and the rejected one of a sample, with its margin. */
static void test_pairs_stay_together(const qp_dataset_t *pairs)
{
    qp_data_config_t config = config_for(QP_PACK_NONE);
    qp_plan_t *plan = NULL;
    qp_batch_t b = {0};
    read_plan(pairs, &config, 1, 2, &plan, &b);
    check_sequences(&b);
    CHECK(plan->n_row == N_PAIR && b.n_seq == 2 * N_PAIR);
    for (int64_t s = 0; s < b.n_seq; s++) {
        int64_t sample = qp_permute(1, 2, N_PAIR, s / 2), sequence = 2 * sample + s % 2;
        int64_t length = made_length(sequence), n = length < SEQ_LENGTH ? length : SEQ_LENGTH;
        int32_t first = b.cu_seqlens[s];
        CHECK(b.margin[s] == made_margin(sample));
        CHECK(b.cu_seqlens[s + 1] - first == n);
        for (int64_t p = 0; p < n; p++)
            CHECK(b.token[first + p] == made_token(sequence, p));
    }
    free_plan(&plan, &b);
}

static void test_no_margins_without_pairs(const qp_dataset_t *dataset)
{
    for (int packing = QP_PACK_ISOLATED; packing <= QP_PACK_NONE; packing++) {
        qp_data_config_t config = config_for((qp_packing_t)packing);
        qp_plan_t *plan = NULL;
        qp_batch_t b = {0};
        read_plan(dataset, &config, 1, 0, &plan, &b);
        for (int64_t s = 0; s < b.n_seq; s++)
            CHECK(b.margin[s] == 0.0f);
        free_plan(&plan, &b);
    }
}

static void test_refusals(qp_comm_t *comm, const qp_dataset_t *dataset)
{
    qp_data_config_t config = config_for(QP_PACK_CONTAMINATED);
    qp_plan_t *plan = NULL;
    qp_batch_t b;
    config.seq_length = 1 << 20;
    CHECK_FAILS(qp_plan_create(dataset, &config, EOS, 1, 0, &plan), QP_INPUT,
                "tokens, one row needs data.seq_length = 1048576");
    /* Samples that do not end with EOS would run into each other. */
    config.seq_length = SEQ_LENGTH;
    CHECK_OK(qp_plan_create(dataset, &config, EOS + 1, 1, 0, &plan));
    qp_batch_init(&b, 1, SEQ_LENGTH);
    qp_error_t error = NULL;
    for (int64_t row = 0; row < plan->n_row && error == NULL; row++) {
        qp_batch_clear(&b);
        error = qp_batch_add_row(&b, dataset, plan, row, row);
    }
    CHECK_FAILS(error, QP_INPUT, "a sample ends with token 1, expected EOS (2)");
    free_plan(&plan, &b);

    char *path = qp_format("%s/pairs.h5", qp_test_folder());
    const qp_shard_info_t info = {"reward", TOKENIZER_ID, 100, 2};
    const int32_t token[] = {5, 6, 7};
    qp_shard_writer_t *writer = NULL;
    CHECK_OK(qp_shard_writer_create(path, &info, "made up", &writer));
    CHECK_OK(qp_shard_writer_add(writer, 0, 1.0f, (const int32_t *const[]){token, token}, NULL,
                                 (const int64_t[]){3, 2}));
    CHECK_OK(qp_shard_writer_commit(&writer));
    qp_deck_strings_t patterns = {1, (const char *const[]){path}};
    qp_dataset_t *pairs = NULL;
    CHECK_OK(qp_dataset_open(comm, &patterns, "reward", TOKENIZER_ID, &pairs));
    CHECK_FAILS(qp_plan_create(pairs, &config, EOS, 1, 0, &plan), QP_INPUT, "pairs");
    config.packing = QP_PACK_NONE;
    read_plan(pairs, &config, 1, 0, &plan, &b);
    CHECK(plan->n_row == 1 && b.n_seq == 2 && b.n_token == 5 && b.token[3] == 5);
    check_sequences(&b);
    free_plan(&plan, &b);
    qp_dataset_close(&pairs);
    qp_free(path);
}

int main(void)
{
    qp_comm_t *comm = NULL;
    qp_dataset_t *dataset = NULL;
    if (!CHECK_OK(qp_comm_create(&comm)))
        return 1;
    make_shard(qp_test_folder(), "made-1.h5", 0, 200);
    make_shard(qp_test_folder(), "made-2.h5", 200, N_SAMPLE);
    if (CHECK_OK(open_made(comm, qp_test_folder(), "made-*.h5", &dataset))) {
        test_isolated_keeps_every_token_in_order(dataset);
        test_contaminated_joins_and_cuts(dataset);
        test_none_cuts_long_samples(dataset);
        test_completions_only(dataset);
        test_plans_repeat_and_differ(dataset);
        test_no_margins_without_pairs(dataset);
        test_refusals(comm, dataset);
        qp_dataset_close(&dataset);
    }
    make_shard_of(&made_pairs, qp_test_folder(), "twos-1.h5", 0, 30);
    make_shard_of(&made_pairs, qp_test_folder(), "twos-2.h5", 30, 30);
    make_shard_of(&made_pairs, qp_test_folder(), "twos-3.h5", 30, N_PAIR);
    if (CHECK_OK(open_kind(comm, qp_test_folder(), "twos-*.h5", "reward", &dataset))) {
        test_pairs_stay_together(dataset);
        qp_dataset_close(&dataset);
    }
    qp_comm_destroy(&comm);
    return qp_test_end();
}
