#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* Used when memory for an error cannot be had; never freed. */
static struct qp_error out_of_memory = {QP_INTERNAL, __FILE__, __LINE__, NULL};

qp_error_t qp_error_create(qp_code_t code, const char *file, int line, const char *format, ...)
{
    struct qp_error *error = malloc(sizeof *error);
    if (error == NULL)
        return &out_of_memory;
    *error = (struct qp_error){code, file, line, NULL};
    va_list args;
    va_start(args, format);
    if (vasprintf(&error->message, format, args) < 0)
        error->message = NULL;
    va_end(args);
    return error;
}

qp_error_t qp_error_context(qp_error_t error, const char *format, ...)
{
    if (error == NULL || error == &out_of_memory)
        return error;
    char *context = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&context, format, args);
    va_end(args);
    char *joined = NULL;
    if (n >= 0 && asprintf(&joined, "%s: %s", context, error->message ? error->message : "") >= 0) {
        free(error->message);
        error->message = joined;
    }
    if (n >= 0)
        free(context);
    return error;
}

qp_error_t qp_error_first(qp_error_t error, qp_error_t later)
{
    if (error == NULL)
        return later;
    qp_error_destroy(&later);
    return error;
}

void qp_error_destroy(qp_error_t *error)
{
    if (*error != NULL && *error != &out_of_memory) {
        free((*error)->message);
        free(*error);
    }
    *error = NULL;
}

void qp_assert_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "quipu: bug at %s:%d: %s does not hold\n", file, line, condition);
    fflush(NULL);
    abort();
}

/* Prints one of the messages of an error: n bytes of text. */
static void report_message(const qp_error_t error, const char *text, int n)
{
    if (error->code == QP_INTERNAL)
        qp_log_error("%.*s (internal, %s:%d)", n, text, error->file, error->line);
    else
        qp_log_error("%.*s", n, text);
}

int qp_error_report(qp_error_t *error)
{
    if (*error == NULL)
        return QP_OK;
    const qp_code_t code = (*error)->code;
    const char *text = (*error)->message ? (*error)->message : "out of memory";
    do {
        const size_t n = strcspn(text, QP_ERROR_NEXT);
        report_message(*error, text, (int)n);
        text += n + strspn(text + n, QP_ERROR_NEXT);
    } while (*text != '\0');
    qp_error_destroy(error);
    return (int)code;
}
