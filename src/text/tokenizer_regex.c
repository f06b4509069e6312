#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/tokenizer_regex.h"

#include <pcre2.h>
#include <string.h>

#include "base/mem.h"

struct qp_regex {
    pcre2_code *code;
};

/* Classes whose meaning under PCRE2_UCP is not Oniguruma's: \s would hold U+180E, \w all numbers
 * but no marks. Oniguruma's \w takes six more characters of Latin-1 outside of []. */
static const struct {
    char letter;
    const char *members, *outside;
} CLASSES[] = {
    {'s', "\\t-\\r \\x{85}\\x{a0}\\p{Zs}\\p{Zl}\\p{Zp}", ""},
    {'w', "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}", "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"},
};

/* Appends an escape \c or its translation. A complement inside [] cannot be written with members:
 * \S stays PCRE2's (it is mostly seen in [\s\S]), \W is refused. */
static qp_error_t translate_escape(char c, bool in_class, qp_str_t *out)
{
    for (size_t i = 0; i < sizeof CLASSES / sizeof CLASSES[0]; i++) {
        const bool negated = c == CLASSES[i].letter - 'a' + 'A';
        if (c == CLASSES[i].letter && in_class) {
            qp_str_puts(out, CLASSES[i].members);
            return NULL;
        }
        if ((c == CLASSES[i].letter || negated) && !in_class) {
            qp_str_printf(out, "[%s%s%s]", negated ? "^" : "", CLASSES[i].members,
                          CLASSES[i].outside);
            return NULL;
        }
    }
    if (c == 'W')
        return QP_ERROR(QP_INPUT, "\\W inside [] is not supported");
    qp_str_putc(out, '\\');
    qp_str_putc(out, c);
    return NULL;
}

/* Oniguruma (Ruby syntax) to PCRE2, for what split patterns use. */
static qp_error_t translate(const char *pattern, qp_str_t *out)
{
    bool in_class = false;
    for (const char *p = pattern; *p != '\0'; p++) {
        if (*p == '\\' && p[1] != '\0') {
            QP_TRY(qp_error_context(translate_escape(*++p, in_class, out), "split pattern '%s'",
                                    pattern));
            continue;
        }
        if (in_class && (*p == '[' || (p[0] == '&' && p[1] == '&')))
            return QP_ERROR(QP_INPUT, "split pattern '%s': nested classes are not supported",
                            pattern);
        if (*p == '[')
            in_class = true;
        else if (*p == ']')
            in_class = false;
        qp_str_putc(out, *p);
    }
    if (out->data == NULL)
        qp_str_puts(out, "");
    return NULL;
}

static qp_error_t pcre2_failure(int code, qp_code_t kind, const char *what)
{
    PCRE2_UCHAR text[128];
    pcre2_get_error_message(code, text, sizeof text);
    return QP_ERROR(kind, "split pattern '%s': %s", what, (const char *)text);
}

qp_error_t qp_regex_create(const char *pattern, bool literal, qp_regex_t **regex)
{
    qp_error_t error = NULL;
    qp_str_t source = {0};
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    pcre2_code *code = NULL;
    QP_ASSERT(context != NULL && pcre2_set_newline(context, PCRE2_NEWLINE_LF) == 0);
    if (literal)
        qp_str_puts(&source, pattern);
    else
        QP_TRY_DONE(translate(pattern, &source));
    int status;
    PCRE2_SIZE where;
    const uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
    code = pcre2_compile((PCRE2_SPTR)source.data, source.n, options, &status, &where, context);
    if (code == NULL) {
        error = pcre2_failure(status, QP_INPUT, pattern);
        goto done;
    }
    status = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    if (status != 0 && status != PCRE2_ERROR_JIT_BADOPTION && status != PCRE2_ERROR_NOMEMORY) {
        error = pcre2_failure(status, QP_INTERNAL, pattern);
        goto done;
    }
    *regex = QP_NEW("tokenizer", qp_regex_t, 1);
    (*regex)->code = code;
    code = NULL;
done:
    pcre2_code_free(code);
    pcre2_compile_context_free(context);
    qp_str_fini(&source);
    return error;
}

void qp_regex_destroy(qp_regex_t **regex)
{
    if (*regex != NULL)
        pcre2_code_free((*regex)->code);
    QP_FREE(*regex);
}

qp_error_t qp_regex_find(const qp_regex_t *regex, void **match, const char *text, size_t n_bytes,
                         size_t from, bool *found, size_t *begin, size_t *end)
{
    if (*match == NULL)
        *match = pcre2_match_data_create(1, NULL);
    QP_ASSERT(*match != NULL);
    const PCRE2_SPTR subject = (PCRE2_SPTR)text;
    int status = pcre2_match(regex->code, subject, n_bytes, from, PCRE2_NO_UTF_CHECK, *match, NULL);
    if (status == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its frames on the heap */
        status = pcre2_match(regex->code, subject, n_bytes, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                             *match, NULL);
    *found = status >= 0;
    if (status < 0)
        return status == PCRE2_ERROR_NOMATCH ? NULL : pcre2_failure(status, QP_INPUT, "(matching)");
    const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(*match);
    *begin = bounds[0];
    *end = bounds[1];
    return NULL;
}

void qp_regex_match_destroy(void *match)
{
    pcre2_match_data_free(match);
}
