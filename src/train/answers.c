#include "train/answers.h"

#include <jansson.h>
#include <stdlib.h>

#include "base/mem.h"

/* Appends the line of one answer. */
static qp_error_t append_line(const qp_tokenizer_t *tokenizer, json_t *prompt,
                              const qp_request_t *request, int64_t step, qp_str_t *lines)
{
    qp_str_t text = {0};
    json_t *object = json_object();
    char *line = NULL;
    qp_error_t error = NULL;
    QP_TRY_DONE(qp_tokenizer_decode(tokenizer, request->token, request->n_token, true, &text));
    if (step >= 0)
        json_object_set_new(object, "step", json_integer(step));
    json_object_update(object, prompt);
    json_object_set_new(object, "completion", json_stringn(text.n > 0 ? text.data : "", text.n));
    json_object_set_new(object, "n_token", json_integer(request->n_token));
    json_object_set_new(object, "stopped", json_boolean(request->stopped));
    line = json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER);
    if (line == NULL) {
        error = QP_ERROR(QP_INTERNAL, "an answer cannot be written as JSON");
        goto done;
    }
    qp_str_puts(lines, line);
    qp_str_putc(lines, '\n');
done:
    free(line);
    json_decref(object);
    qp_str_fini(&text);
    return error;
}

/* This rank's share of the prompts as lines; *n_token gets the tokens of its answers. */
static qp_error_t answer_share(qp_run_t *run, const qp_prompts_t *prompts, int64_t step,
                               qp_str_t *lines, int64_t *n_token)
{
    int64_t first, end;
    qp_tree_range(prompts->n, qp_comm_size(run->comm), qp_comm_rank(run->comm), &first, &end);
    const qp_philox_key_t key = {.seed = (uint32_t)run->settings->job.seed,
                                 .step = (uint32_t)(step > 0 ? step : 0)};
    const qp_role_t role = qp_run_role(run);
    qp_request_t *request = QP_NEW("prompts", qp_request_t, end - first);
    for (int64_t i = first; i < end; i++)
        request[i - first] = (qp_request_t){.prompt = prompts->tokens[i].id,
                                            .n_prompt = prompts->tokens[i].n,
                                            .sample = (uint32_t)i};
    qp_error_t error = NULL;
    if (end > first)
        error = qp_engine_run(run->engine, &role, request, end - first,
                              qp_tokenizer_eos(run->tokenizer), &key);
    for (int64_t i = first; i < end && error == NULL; i++)
        error = append_line(run->tokenizer, prompts->object[i], &request[i - first], step, lines);
    for (int64_t i = first; i < end; i++) {
        *n_token += request[i - first].n_token;
        qp_free(request[i - first].token);
        qp_free(request[i - first].logprob);
    }
    qp_free(request);
    return error;
}

qp_error_t qp_answer(qp_run_t *run, const qp_prompts_t *prompts, int64_t step, qp_str_t *lines,
                     int64_t *n_token)
{
    qp_comm_t *comm = run->comm;
    qp_str_t mine = {0};
    int64_t n = 0;
    qp_error_t error = qp_comm_agree(comm, answer_share(run, prompts, step, &mine, &n));
    if (error == NULL) {
        void *all = NULL;
        int64_t *count = QP_NEW("prompts", int64_t, qp_comm_size(comm)), total = 0;
        qp_comm_allgatherv(comm, mine.data, (int64_t)mine.n, QP_U8, &all, count);
        for (int rank = 0; rank < qp_comm_size(comm); rank++)
            total += count[rank];
        qp_str_append(lines, all, (size_t)total);
        qp_comm_sum_i64(comm, &n, 1);
        if (n_token != NULL)
            *n_token = n;
        qp_free(all);
        qp_free(count);
    }
    qp_str_fini(&mine);
    return error;
}
