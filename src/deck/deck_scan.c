/* The pass over a deck's text before libconfig sees it. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "deck/deck_impl.h"

typedef struct {
    const char *name, *at;
    int line;
    qp_str_t *out, *problems;
} scanner_t;

static void copy(scanner_t *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s->line += s->at[i] == '\n';
    qp_str_append(s->out, s->at, n);
    s->at += n;
}

static void problem(scanner_t *s, const char *text, size_t n)
{
    qp_str_printf(s->problems, "%s%s:%d: ", s->problems->n > 0 ? "\n" : "", s->name, s->line);
    qp_str_append(s->problems, text, n);
}

/* Characters of a comment at the cursor, or 0. */
static size_t comment_length(const char *at)
{
    if (at[0] == '#' || (at[0] == '/' && at[1] == '/'))
        return strcspn(at, "\n");
    if (at[0] != '/' || at[1] != '*')
        return 0;
    const char *end = strstr(at + 2, "*/");
    return end != NULL ? (size_t)(end + 2 - at) : strlen(at);
}

static size_t string_length(const char *at)
{
    size_t n = 1;
    while (at[n] != '\0' && at[n] != '"')
        n += at[n] == '\\' && at[n + 1] != '\0' ? 2 : 1;
    return at[n] == '"' ? n + 1 : n;
}

/* Characters of a number: digits, letters and dots, and signs at its start or after an exponent's
 * e. */
static size_t number_length(const char *at)
{
    size_t n = at[0] == '+' || at[0] == '-';
    bool hex = at[n] == '0' && (at[n + 1] == 'x' || at[n + 1] == 'X');
    while (isalnum((unsigned char)at[n]) || at[n] == '.' ||
           ((at[n] == '+' || at[n] == '-') && !hex && n > 0 && tolower(at[n - 1]) == 'e'))
        n++;
    return n;
}

/* Copies a number; an integer without the suffix L gets one. */
static void scan_number(scanner_t *s)
{
    size_t n = number_length(s->at);
    char *token = qp_alloc("deck", n + 1);
    memcpy(token, s->at, n);
    char *end;
    errno = 0;
    bool hex = strchr(token, 'x') != NULL || strchr(token, 'X') != NULL;
    if (hex)
        strtoull(token, &end, 16);
    else
        strtoll(token, &end, 10);
    bool integer = end != token && (*end == '\0' || strspn(end, "Ll") == strlen(end));
    if (integer && errno == ERANGE) {
        char *text = qp_format("%s does not fit into 64 bits", token);
        problem(s, text, strlen(text));
        qp_free(text);
    }
    bool suffix = integer && *end == '\0';
    qp_free(token);
    copy(s, n);
    if (suffix)
        qp_str_putc(s->out, 'L');
}

void qp_deck_scan(const char *name, const char *text, qp_str_t *out, qp_str_t *problems)
{
    static const char include[] = "@include";
    scanner_t s = {name, text, 1, out, problems};
    while (*s.at != '\0') {
        unsigned char c = (unsigned char)*s.at, next = (unsigned char)s.at[1];
        size_t comment = comment_length(s.at);
        if (comment > 0)
            copy(&s, comment);
        else if (c == '"')
            copy(&s, string_length(s.at));
        else if (isdigit(c) ||
                 ((c == '+' || c == '-' || c == '.') && (isdigit(next) || next == '.')))
            scan_number(&s);
        else if (isalpha(c) || c == '*')
            copy(&s, 1 + strspn(s.at + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                          "0123456789-_*"));
        else {
            if (strncmp(s.at, include, sizeof include - 1) == 0) {
                static const char refusal[] = "@include is not supported: a deck is one file";
                problem(&s, refusal, sizeof refusal - 1);
            }
            copy(&s, 1);
        }
    }
}
