/* What packing promises: which tokens are in which row, what is predicted, and that it repeats. */
#include "base/file.h"
#include "base/log.h"
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
    if (!CHECK_OK(qp_plan_create(dataset, config, &END, seed, epoch, plan)))
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

/* Counts rows by what they hold, as best fit fills them: each piece, in the keyed order, goes into
 * the fullest row that has room for it, one that it fills up before all others. */
static void fill_by_best_fit(int64_t n_row_of[SEQ_LENGTH + 1])
{
    for (int64_t i = 0; i < N_SAMPLE; i++) {
        const int64_t length = made_length(qp_permute(1, 0, N_SAMPLE, i));
        for (int64_t start = 0; start < length; start += SEQ_LENGTH) {
            const int64_t n = length - start < SEQ_LENGTH ? length - start : SEQ_LENGTH;
            int64_t fill = SEQ_LENGTH - n;
            while (fill > 0 && n_row_of[fill] == 0)
                fill--;
            n_row_of[fill] -= fill > 0;
            n_row_of[fill + n]++;
        }
    }
}

static void test_isolated_is_best_fit(const qp_dataset_t *dataset)
{
    qp_data_config_t config = config_for(QP_PACK_ISOLATED);
    qp_plan_t *plan = NULL;
    qp_batch_t b = {0};
    int64_t found[SEQ_LENGTH + 1] = {0}, expected[SEQ_LENGTH + 1] = {0};
    read_plan(dataset, &config, 1, 0, &plan, &b);
    for (int64_t row = 0; row < plan->n_row; row++) {
        int64_t n = 0;
        for (int64_t p = plan->first_piece[row]; p < plan->first_piece[row + 1]; p++)
            n += plan->piece[p].n;
        found[n]++;
    }
    fill_by_best_fit(expected);
    for (int n = 0; n <= SEQ_LENGTH; n++)
        CHECK_MSG(found[n] == expected[n], "%lld rows of %d tokens, expected %lld",
                  (long long)found[n], n, (long long)expected[n]);
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
    config.overlong = QP_OVERLONG_CUT;
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

/* --- samples that are too long ---------------------------------------------------------------- */

/* A limit that some sample meets exactly and many exceed. */
static int64_t some_length(void)
{
    int64_t i = 0;
    while (made_length(i) < 60 || made_length(i) > 100)
        i++;
    return made_length(i);
}

/* Every sample that fits is there whole and once, in the order of the epoch; no other is there. */
static void check_whole_samples(const qp_batch_t *b, int64_t seq_length)
{
    int64_t at = 0;
    for (int64_t i = 0; i < N_SAMPLE; i++) {
        int64_t sample = qp_permute(1, 0, N_SAMPLE, i);
        for (int64_t p = 0; made_length(sample) <= seq_length && p < made_length(sample); p++, at++)
            CHECK(at >= b->n_token || b->token[at] == made_token(sample, p));
    }
    CHECK(b->n_token <= at && b->n_token > at - seq_length);
}

static void test_drop_leaves_out_long_samples(const qp_dataset_t *dataset)
{
    int64_t n_long = 0, n_long_token = 0, seq_length = some_length();
    for (int64_t i = 0; i < N_SAMPLE; i++)
        if (made_length(i) > seq_length) {
            n_long++;
            n_long_token += made_length(i);
        }
    CHECK(n_long > N_SAMPLE / 10);
    for (int packing = QP_PACK_ISOLATED; packing <= QP_PACK_NONE; packing++) {
        qp_data_config_t config = config_for((qp_packing_t)packing);
        qp_plan_t *plan = NULL;
        qp_batch_t b = {0};
        config.seq_length = seq_length;
        config.overlong = QP_OVERLONG_DROP;
        read_plan(dataset, &config, 1, 0, &plan, &b);
        check_sequences(&b);
        check_targets(&b, false);
        CHECK(qp_plan_n_left_out(plan) == n_long && qp_plan_n_cut(plan) == 0);
        CHECK(qp_plan_n_dropped(plan) == all_tokens() - b.n_token);
        int64_t n_rest = qp_plan_n_dropped(plan) - n_long_token;
        CHECK(packing == QP_PACK_CONTAMINATED ? n_rest >= 0 && n_rest < seq_length : n_rest == 0);
        CHECK(packing == QP_PACK_CONTAMINATED ? b.n_token == plan->n_row * seq_length
                                              : b.n_seq == N_SAMPLE - n_long);
        if (packing != QP_PACK_ISOLATED) /* best fit puts them into another order */
            check_whole_samples(&b, seq_length);
        free_plan(&plan, &b);
    }
}

/* Texts are cut unless the deck says otherwise. */
static void test_auto_cuts_texts(const qp_dataset_t *dataset)
{
    for (int packing = QP_PACK_ISOLATED; packing <= QP_PACK_NONE; packing++) {
        qp_plan_t *plan[2] = {NULL, NULL};
        qp_batch_t b[2] = {{0}};
        for (int i = 0; i < 2; i++) {
            qp_data_config_t config = config_for((qp_packing_t)packing);
            config.overlong = i == 0 ? QP_OVERLONG_AUTO : QP_OVERLONG_CUT;
            read_plan(dataset, &config, 1, 0, &plan[i], &b[i]);
        }
        CHECK(qp_plan_n_left_out(plan[0]) == 0);
        CHECK((qp_plan_n_cut(plan[0]) > 0) == (packing == QP_PACK_NONE));
        CHECK(b[0].n_token == b[1].n_token &&
              memcmp(b[0].token, b[1].token, (size_t)b[0].n_token * sizeof(int32_t)) == 0);
        for (int i = 0; i < 2; i++)
            free_plan(&plan[i], &b[i]);
    }
}

/* A pair is left out whole if either of its sequences is too long. */
static void test_auto_drops_pairs(const qp_dataset_t *pairs)
{
    qp_data_config_t config = config_for(QP_PACK_NONE);
    qp_plan_t *plan = NULL;
    qp_batch_t b = {0};
    int64_t s = 0, n_long[2] = {0, 0}, n_long_token = 0;
    config.seq_length = some_length();
    read_plan(pairs, &config, 1, 0, &plan, &b);
    for (int64_t i = 0; i < N_PAIR; i++) {
        int64_t sample = qp_permute(1, 0, N_PAIR, i);
        const int64_t length[2] = {made_length(2 * sample), made_length(2 * sample + 1)};
        n_long[0] += length[0] > config.seq_length && length[1] <= config.seq_length;
        n_long[1] += length[1] > config.seq_length;
        if (length[0] > config.seq_length || length[1] > config.seq_length) {
            n_long_token += length[0] + length[1];
            continue;
        }
        for (int k = 0; k < 2 && s < b.n_seq; k++, s++) {
            CHECK(b.margin[s] == made_margin(sample));
            CHECK(b.cu_seqlens[s + 1] - b.cu_seqlens[s] == length[k]);
            CHECK(b.token[b.cu_seqlens[s]] == made_token(2 * sample + k, 0));
        }
    }
    CHECK(n_long[0] > 0 && n_long[1] > 0);
    CHECK(s == b.n_seq && plan->n_row == s / 2 && qp_plan_n_cut(plan) == 0);
    CHECK(qp_plan_n_left_out(plan) == n_long[0] + n_long[1]);
    CHECK(qp_plan_n_dropped(plan) == n_long_token);
    free_plan(&plan, &b);
}

static void test_prompts_are_never_cut(qp_comm_t *comm)
{
    qp_data_config_t config = config_for(QP_PACK_NONE);
    qp_dataset_t *prompts = NULL;
    qp_plan_t *plan = NULL;
    qp_batch_t b = {0};
    make_shard_of(&made_prompts, qp_test_folder(), "prompts.h5", 0, N_SAMPLE);
    if (!CHECK_OK(open_kind(comm, qp_test_folder(), "prompts.h5", "prompt", &prompts)))
        return;
    config.seq_length = some_length();
    read_plan(prompts, &config, 1, 0, &plan, &b);
    CHECK(qp_plan_n_left_out(plan) == N_SAMPLE - b.n_seq && b.n_seq < N_SAMPLE);
    check_whole_samples(&b, config.seq_length);
    free_plan(&plan, &b);
    config.overlong = QP_OVERLONG_CUT;
    CHECK_FAILS(qp_plan_create(prompts, &config, &END, 1, 0, &plan), QP_INPUT,
                "prompts.h5: data.overlong = \"cut\" would cut prompts");
    CHECK(plan == NULL);
    qp_dataset_close(&prompts);
}

/* A data set of samples (or pairs) that have these lengths; its file goes by name. */
static qp_dataset_t *of_lengths(qp_comm_t *comm, const qp_shard_info_t *info, const char *name,
                                const int64_t *length, int64_t n_sample)
{
    static const int32_t token[32] = {0};
    char *path = qp_format("%s/%s", qp_test_folder(), name);
    qp_shard_writer_t *writer = NULL;
    qp_dataset_t *dataset = NULL;
    CHECK_OK(qp_shard_writer_create(path, info, "made up", &writer));
    for (int64_t i = 0; i < n_sample; i++)
        CHECK_OK(qp_shard_writer_add(writer, i, 1.0f, (const int32_t *const[]){token, token}, NULL,
                                     length + i * info->sequences_per_sample));
    CHECK_OK(qp_shard_writer_commit(&writer));
    CHECK_OK(open_kind(comm, qp_test_folder(), name, info->kind, &dataset));
    qp_free(path);
    return dataset;
}

static void test_nothing_left_is_refused(qp_comm_t *comm)
{
    qp_data_config_t config = config_for(QP_PACK_NONE);
    qp_plan_t *plan = NULL;
    /* Of a pair, the longer sequence counts. */
    qp_dataset_t *pairs =
        of_lengths(comm, &made_pairs, "long.h5", (const int64_t[]){1, 4, 1, 5, 6, 1}, 3);
    config.seq_length = 3;
    CHECK_FAILS(qp_plan_create(pairs, &config, &END, 1, 0, &plan), QP_INPUT,
                "long.h5: data.overlong = \"auto\" leaves out all 3 samples: none fits "
                "data.seq_length = 3, the shortest has 4 tokens");
    CHECK(plan == NULL);
    config.seq_length = 4;
    CHECK_OK(qp_plan_create(pairs, &config, &END, 1, 0, &plan));
    CHECK(plan->n_row == 1 && qp_plan_n_left_out(plan) == 2);
    qp_plan_destroy(&plan);
    qp_dataset_close(&pairs);
}

/* What is left must still make a row. */
static void test_too_little_left_is_refused(qp_comm_t *comm)
{
    qp_data_config_t config = config_for(QP_PACK_CONTAMINATED);
    qp_plan_t *plan = NULL;
    qp_dataset_t *texts = of_lengths(comm, &made_info, "texts.h5", (const int64_t[]){3, 20, 4}, 3);
    config.seq_length = 10;
    CHECK_OK(qp_plan_create(texts, &config, &END, 1, 0, &plan));
    CHECK(plan->n_row == 2);
    qp_plan_destroy(&plan);
    config.overlong = QP_OVERLONG_DROP;
    CHECK_FAILS(qp_plan_create(texts, &config, &END, 1, 0, &plan), QP_INPUT,
                "texts.h5: found 7 tokens, one row needs data.seq_length = 10");
    CHECK(plan == NULL);
    qp_dataset_close(&texts);
}

/* The log of a plan, as text (qp_free). */
static char *log_of(const qp_dataset_t *dataset, const qp_data_config_t *config)
{
    char *path = qp_format("%s/log", qp_test_folder());
    qp_plan_t *plan = NULL;
    void *text = NULL;
    size_t n;
    CHECK_OK(qp_plan_create(dataset, config, &END, 1, 0, &plan));
    CHECK_OK(qp_log_tee(path));
    qp_plan_log(plan, dataset, config, "here");
    qp_log_fini();
    CHECK_OK(qp_file_read(path, &text, &n));
    unlink(path);
    qp_plan_destroy(&plan);
    qp_free(path);
    char *log = qp_format("%.*s", (int)n, (const char *)text);
    qp_free(text);
    return log;
}

static void expect_log(const qp_dataset_t *dataset, const qp_data_config_t *config,
                       const char *expected)
{
    char *log = log_of(dataset, config);
    CHECK_MSG(expected != NULL ? strstr(log, expected) != NULL : log[0] == '\0', "logged:\n%s",
              log);
    qp_free(log);
}

static void test_losses_are_logged(const qp_dataset_t *dataset)
{
    int64_t n_long = 0, n_long_token = 0;
    for (int64_t i = 0; i < N_SAMPLE; i++)
        if (made_length(i) > SEQ_LENGTH) {
            n_long++;
            n_long_token += made_length(i);
        }
    qp_data_config_t config = config_for(QP_PACK_NONE);
    char *dropped = qp_format("here: data.overlong = \"drop\" leaves out %lld of %d samples longer "
                              "than data.seq_length = %d\n",
                              (long long)n_long, (int)N_SAMPLE, (int)SEQ_LENGTH);
    char *tokens = qp_format("here: an epoch leaves out %lld of %lld tokens\n",
                             (long long)n_long_token, (long long)all_tokens());
    char *cut = qp_format("here: data.overlong = \"auto\" cuts %lld of %d samples at "
                          "data.seq_length = %d\n",
                          (long long)n_long, (int)N_SAMPLE, (int)SEQ_LENGTH);
    expect_log(dataset, &config, cut);
    config.overlong = QP_OVERLONG_DROP;
    expect_log(dataset, &config, dropped);
    expect_log(dataset, &config, tokens);
    config = config_for(QP_PACK_ISOLATED);
    expect_log(dataset, &config, NULL);
    qp_free(dropped);
    qp_free(tokens);
    qp_free(cut);
}

static void test_refusals(qp_comm_t *comm, const qp_dataset_t *dataset)
{
    qp_data_config_t config = config_for(QP_PACK_CONTAMINATED);
    qp_plan_t *plan = NULL;
    qp_batch_t b;
    config.seq_length = 1 << 20;
    CHECK_FAILS(qp_plan_create(dataset, &config, &END, 1, 0, &plan), QP_INPUT,
                "tokens, one row needs data.seq_length = 1048576");
    /* Samples that do not end with EOS, one or the other, would run into each other. */
    config.seq_length = SEQ_LENGTH;
    for (int n_eos = 1; n_eos <= 2; n_eos++) {
        const qp_eos_t others = {n_eos, {EOS + 1, EOS + 2}};
        qp_error_t error = NULL;
        CHECK_OK(qp_plan_create(dataset, &config, &others, 1, 0, &plan));
        qp_batch_init(&b, 1, SEQ_LENGTH);
        for (int64_t row = 0; row < plan->n_row && error == NULL; row++) {
            qp_batch_clear(&b);
            error = qp_batch_add_row(&b, dataset, plan, row, row);
        }
        CHECK_FAILS(error, QP_INPUT, "a sample ends with token 1, expected EOS (2)");
        free_plan(&plan, &b);
    }

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
    CHECK_FAILS(qp_plan_create(pairs, &config, &END, 1, 0, &plan), QP_INPUT, "pairs");
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
        test_isolated_is_best_fit(dataset);
        test_contaminated_joins_and_cuts(dataset);
        test_none_cuts_long_samples(dataset);
        test_completions_only(dataset);
        test_plans_repeat_and_differ(dataset);
        test_no_margins_without_pairs(dataset);
        test_drop_leaves_out_long_samples(dataset);
        test_auto_cuts_texts(dataset);
        test_prompts_are_never_cut(comm);
        test_nothing_left_is_refused(comm);
        test_too_little_left_is_refused(comm);
        test_losses_are_logged(dataset);
        test_refusals(comm, dataset);
        qp_dataset_close(&dataset);
    }
    make_shard_of(&made_pairs, qp_test_folder(), "twos-1.h5", 0, 30);
    make_shard_of(&made_pairs, qp_test_folder(), "twos-2.h5", 30, 30);
    make_shard_of(&made_pairs, qp_test_folder(), "twos-3.h5", 30, N_PAIR);
    if (CHECK_OK(open_kind(comm, qp_test_folder(), "twos-*.h5", "reward", &dataset))) {
        test_pairs_stay_together(dataset);
        test_auto_drops_pairs(dataset);
        qp_dataset_close(&dataset);
    }
    qp_comm_destroy(&comm);
    return qp_test_end();
}
