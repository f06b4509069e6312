#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void qp_str_fini(qp_str_t *s)
{
    qp_free(s->data);
    *s = (qp_str_t){0};
}

void qp_str_clear(qp_str_t *s)
{
    s->n = 0;
    if (s->data != NULL)
        s->data[0] = '\0';
}

static void reserve(qp_str_t *s, size_t extra)
{
    if (s->n + extra + 1 <= s->capacity)
        return;
    s->capacity = 2 * (s->n + extra) + 64;
    s->data = qp_realloc("string", s->data, s->capacity);
}

void qp_str_append(qp_str_t *s, const void *bytes, size_t n)
{
    reserve(s, n);
    if (n > 0)
        memcpy(s->data + s->n, bytes, n);
    s->n += n;
    s->data[s->n] = '\0';
}

void qp_str_puts(qp_str_t *s, const char *text)
{
    qp_str_append(s, text, strlen(text));
}

void qp_str_putc(qp_str_t *s, char c)
{
    qp_str_append(s, &c, 1);
}

static void append_formatted(qp_str_t *s, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    QP_ASSERT(n >= 0);
    reserve(s, (size_t)n);
    vsnprintf(s->data + s->n, s->capacity - s->n, format, args);
    s->n += (size_t)n;
}

void qp_str_printf(qp_str_t *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    append_formatted(s, format, args);
    va_end(args);
}

char *qp_format(const char *format, ...)
{
    qp_str_t text = {0};
    va_list args;
    va_start(args, format);
    append_formatted(&text, format, args);
    va_end(args);
    return text.data;
}

/* Levenshtein distance, one row at a time. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t n = strlen(b);
    size_t *row = qp_alloc("string", (n + 1) * sizeof *row);
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t change = diagonal + (a[i] != b[j]);
            size_t step = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            diagonal = row[j + 1];
            row[j + 1] = change < step ? change : step;
        }
    }
    size_t distance = row[n];
    qp_free(row);
    return distance;
}

const char *qp_nearest(const char *name, const char *const *candidates, int n_candidate)
{
    const char *best = NULL;
    size_t best_distance = (strlen(name) + 2) / 3 + 1;
    for (int i = 0; i < n_candidate; i++) {
        size_t distance = edit_distance(name, candidates[i]);
        if (distance < best_distance) {
            best_distance = distance;
            best = candidates[i];
        }
    }
    return best;
}

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 || c == 0x7f;
}

size_t qp_escape(char c, char out[5])
{
    if (c == '\n')
        return (size_t)snprintf(out, 5, "\\n");
    if (is_control(c))
        return (size_t)snprintf(out, 5, "\\x%02x", (unsigned char)c);
    return (size_t)snprintf(out, 5, "%c", c);
}

void qp_str_quote(qp_str_t *s, const char *text)
{
    qp_str_putc(s, '"');
    for (char shown[5]; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            qp_str_putc(s, '\\');
        qp_str_append(s, shown, qp_escape(*text, shown));
    }
    qp_str_putc(s, '"');
}

bool qp_has_control(const char *text)
{
    for (; *text != '\0'; text++)
        if (is_control(*text))
            return true;
    return false;
}

bool qp_has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool qp_has_suffix(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}
