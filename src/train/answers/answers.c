#include "train/answers/answers.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "formats/json.h"

/* Which prompt an answer is to, and which of the answers to it: those to one prompt stand together,
 * so that most of them are computed on one rank. */
typedef struct {
    int64_t prompt, number;
} place_t;

static place_t place(const qp_answer_config_t *config, int64_t answer)
{
    return (place_t){answer / config->n_answer, answer % config->n_answer};
}

/* What an answer says of itself; keys of its row with these names are left out. */
static json_t *answer_members(const qp_answer_config_t *config, int64_t number,
                              const qp_request_t *request, const qp_str_t *text)
{
    json_t *own = json_object();
    if (config->n_answer > 1)
        json_object_set_new(own, "answer", json_integer(number));
    json_object_set_new(own, "completion", json_stringn(text->n > 0 ? text->data : "", text->n));
    json_object_set_new(own, "n_token", json_integer(request->n_token));
    json_object_set_new(own, "stopped", json_boolean(request->stopped));
    return own;
}

/* Whether a member of a row, "key":value, has a key of this object. */
static bool replaced(const char *member, size_t n_bytes, const json_t *own)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)own, key, value)
    {
        const size_t n = strlen(key);
        if (n_bytes > n + 2 && memcmp(member + 1, key, n) == 0 && member[n + 1] == '"')
            return true;
    }
    return false;
}

/* Appends the members of a row as they stand, each with a comma behind it. */
static void append_row(const qp_str_t *row, const json_t *own, qp_str_t *lines)
{
    const char *member;
    size_t n, at = 0;
    while (qp_json_next_piece(row->data + 1, row->n - 2, &at, &member, &n)) {
        if (replaced(member, n, own))
            continue;
        qp_str_append(lines, member, n);
        qp_str_putc(lines, ',');
    }
}

/* Appends the line of one answer. */
static qp_error_t append_line(const qp_tokenizer_t *tokenizer, const qp_answer_config_t *config,
                              const qp_str_t *row, int64_t number, const qp_request_t *request,
                              qp_str_t *lines)
{
    qp_str_t text = {0};
    json_t *own = NULL;
    char *members = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_tokenizer_decode(tokenizer, request->token, request->n_token, true, &text));
    own = answer_members(config, number, request, &text);
    members = json_dumps(own, JSON_COMPACT | JSON_PRESERVE_ORDER);
    if (members == NULL) {
        error = QP_ERROR(QP_INTERNAL, "an answer cannot be written as JSON");
        goto done;
    }
    qp_str_putc(lines, '{');
    if (config->step >= 0)
        qp_str_printf(lines, "\"step\":%lld,", (long long)config->step);
    append_row(row, own, lines);
    qp_str_printf(lines, "%s\n", members + 1); /* behind its "{" */
done:
    free(members);
    json_decref(own);
    qp_str_fini(&text);
    return error;
}

/* This rank's share, as lines. */
static qp_error_t answer_share(const qp_answerer_t *who, const qp_prompts_t *prompts,
                               const qp_answer_config_t *config, qp_str_t *lines,
                               qp_answer_count_t *count)
{
    const qp_philox_key_t key = {.seed = who->seed,
                                 .step = (uint32_t)(config->step > 0 ? config->step : 0)};
    int64_t first, end;
    qp_tree_range(prompts->n * config->n_answer, qp_comm_size(who->comm), qp_comm_rank(who->comm),
                  &first, &end);
    const int64_t n = end - first;
    if (n == 0)
        return NULL;
    qp_request_t *request = QP_NEW("prompts", qp_request_t, n);
    for (int64_t i = 0; i < n; i++) {
        place_t at = place(config, first + i);
        request[i] = (qp_request_t){.prompt = prompts->tokens[at.prompt].id,
                                    .n_prompt = prompts->tokens[at.prompt].n,
                                    .max_new_tokens = config->max_new_tokens,
                                    .sample = (uint32_t)(at.number * prompts->n + at.prompt)};
    }
    qp_error_t error = qp_engine_run(who->engine, &who->role, request, n, &who->eos, &key);
    for (int64_t i = 0; i < n && error == NULL; i++) {
        place_t at = place(config, first + i);
        error = append_line(who->tokenizer, config, &prompts->row[at.prompt], at.number,
                            &request[i], lines);
    }
    for (int64_t i = 0; i < n; i++) {
        count->n_answer++;
        count->n_token += request[i].n_token;
        count->n_prompt_token += request[i].n_prompt;
        count->n_shared += request[i].n_shared;
        qp_free(request[i].token);
        qp_free(request[i].logprob);
    }
    qp_free(request);
    return error;
}

qp_error_t qp_answer(const qp_answerer_t *who, const qp_prompts_t *prompts,
                     const qp_answer_config_t *config, qp_str_t *lines, qp_answer_count_t *count)
{
    qp_comm_t *comm = who->comm;
    qp_str_t mine = {0};
    qp_answer_count_t sum = {0};
    int64_t *const part[] = {&sum.n_answer, &sum.n_token, &sum.n_prompt_token, &sum.n_shared};
    qp_error_t error = qp_comm_agree(comm, answer_share(who, prompts, config, &mine, &sum));
    if (error == NULL) {
        void *all = NULL;
        int64_t *n_byte = QP_NEW("prompts", int64_t, qp_comm_size(comm)), total = 0;
        qp_comm_allgatherv(comm, mine.data, (int64_t)mine.n, QP_U8, &all, n_byte);
        for (int rank = 0; rank < qp_comm_size(comm); rank++)
            total += n_byte[rank];
        qp_str_append(lines, all, (size_t)total);
        for (size_t i = 0; i < sizeof part / sizeof *part; i++)
            qp_comm_sum_i64(comm, part[i], 1);
        if (count != NULL)
            *count = sum;
        qp_free(all);
        qp_free(n_byte);
    }
    qp_str_fini(&mine);
    return error;
}
