#include "train/prompts.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"

/* Adds one prompt; takes the object. */
static qp_error_t add_prompt(const qp_tokenizer_t *tokenizer, json_t *object, qp_prompts_t *prompts)
{
    const char *text = json_string_value(json_object_get(object, "prompt"));
    int64_t i = prompts->n++;
    prompts->object =
        qp_realloc("prompts", prompts->object, qp_bytes(prompts->n, sizeof(json_t *)));
    prompts->tokens =
        qp_realloc("prompts", prompts->tokens, qp_bytes(prompts->n, sizeof(qp_tokens_t)));
    prompts->object[i] = object;
    prompts->tokens[i] = (qp_tokens_t){0};
    if (text == NULL)
        return QP_ERROR(QP_INPUT, "an object with a string \"prompt\" is expected");
    QP_TRY(qp_tokenizer_encode(tokenizer, text, strlen(text),
                               QP_TEXT_ADD_SPECIAL | QP_TEXT_PARSE_SPECIAL, &prompts->tokens[i]));
    if (prompts->tokens[i].n == 0)
        return QP_ERROR(QP_INPUT, "the prompt is empty");
    if (prompts->tokens[i].n > prompts->longest)
        prompts->longest = prompts->tokens[i].n;
    return NULL;
}

qp_error_t qp_prompts_from_texts(const qp_tokenizer_t *tokenizer, const qp_deck_strings_t *texts,
                                 qp_prompts_t *prompts)
{
    for (int i = 0; i < texts->n; i++) {
        json_t *object = json_pack("{s:s}", "prompt", texts->item[i]);
        if (object == NULL)
            return QP_ERROR(QP_INPUT, "samples.prompts: number %d is not UTF-8", i + 1);
        QP_TRY(qp_error_context(add_prompt(tokenizer, object, prompts),
                                "samples.prompts: number %d", i + 1));
    }
    return NULL;
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strchr(" \t\r", text[i]) == NULL)
            return false;
    return true;
}

static qp_error_t parse_lines(const qp_tokenizer_t *tokenizer, const char *path, const char *text,
                              size_t n_bytes, qp_prompts_t *prompts)
{
    int64_t number = 1;
    for (const char *line = text, *end = text + n_bytes; line < end; number++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((newline != NULL ? newline : end) - line);
        json_error_t problem;
        if (!is_blank(line, n)) {
            json_t *object = json_loadb(line, n, JSON_REJECT_DUPLICATES, &problem);
            if (object == NULL)
                return QP_ERROR(QP_INPUT, "%s:%lld: not JSON: %s", path, (long long)number,
                                problem.text);
            QP_TRY(qp_error_context(add_prompt(tokenizer, object, prompts), "%s:%lld", path,
                                    (long long)number));
        }
        line += n + 1;
    }
    if (prompts->n == 0)
        return QP_ERROR(QP_INPUT, "%s: holds no prompt", path);
    return NULL;
}

qp_error_t qp_prompts_from_file(qp_comm_t *comm, const qp_tokenizer_t *tokenizer, const char *path,
                                qp_prompts_t *prompts)
{
    void *text = NULL;
    size_t n_bytes = 0;
    qp_error_t error = NULL;
    if (qp_comm_rank(comm) == 0)
        error = qp_file_read(path, &text, &n_bytes);
    QP_TRY(qp_comm_agree(comm, error));
    qp_comm_bcast_block(comm, &text, &n_bytes, 0);
    error = parse_lines(tokenizer, path, text, n_bytes, prompts);
    qp_free(text);
    return qp_comm_agree(comm, error);
}

void qp_prompts_fini(qp_prompts_t *prompts)
{
    for (int64_t i = 0; i < prompts->n; i++) {
        json_decref(prompts->object[i]);
        qp_tokens_fini(&prompts->tokens[i]);
    }
    qp_free(prompts->object);
    qp_free(prompts->tokens);
    *prompts = (qp_prompts_t){0};
}
