#define PCRE2_CODE_UNIT_WIDTH 8
#include "formats/pattern.h"

#include <ctype.h>
#include <pcre2.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

struct qp_pattern {
    char *text;
    pcre2_code *code;
};

/* Beginnings of groups that both languages have. */
static bool is_common_group(const char *after)
{
    static const char *const beginnings[] = {":", "=", "!", "<=", "<!", "P<"};
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++)
        if (qp_has_prefix(after, beginnings[i]))
            return true;
    return false;
}

/* Whether Python and PCRE2 mean different things by what stands here, or only one knows it. */
static bool is_foreign(const char *at, bool in_class)
{
    if (at[0] == '\\')
        return isalnum((unsigned char)at[1]) && strchr("dDsSwWbB", at[1]) == NULL;
    if (in_class)
        return at[0] == '[' && at[1] != '\0' && strchr(":.=", at[1]) != NULL;
    return (at[0] == '(' && at[1] == '*') ||
           (at[0] == '(' && at[1] == '?' && !is_common_group(at + 2)) ||
           (at[0] == '{' && at[1] == ',');
}

/* The last character of the class's beginning: a ] there is one of its members. */
static const char *begin_class(const char *at)
{
    at += at[1] == '^';
    return at + (at[1] == ']');
}

static qp_error_t check_common(const char *pattern)
{
    bool in_class = false;
    for (const char *at = pattern; *at != '\0'; at++) {
        if (is_foreign(at, in_class))
            return QP_ERROR(QP_INPUT, "pattern \"%s\": \"%.4s\" is not supported", pattern, at);
        if (at[0] == '\\' && at[1] != '\0') {
            at++;
        } else if (!in_class && at[0] == '[') {
            in_class = true;
            at = begin_class(at);
        } else if (at[0] == ']') {
            in_class = false;
        }
    }
    return NULL;
}

qp_error_t qp_pattern_create(const char *pattern, qp_pattern_t **out)
{
    int code = 0;
    size_t where = 0;
    *out = NULL;
    QP_TRY(check_common(pattern));
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                         PCRE2_ANCHORED | PCRE2_ENDANCHORED, &code, &where, NULL);
    if (compiled == NULL) {
        PCRE2_UCHAR text[128];
        pcre2_get_error_message(code, text, sizeof text);
        return QP_ERROR(QP_INPUT, "pattern \"%s\": %s at character %zu", pattern,
                        (const char *)text, where);
    }
    *out = QP_NEW("pattern", qp_pattern_t, 1);
    **out = (qp_pattern_t){qp_strdup(pattern), compiled};
    return NULL;
}

void qp_pattern_destroy(qp_pattern_t **pattern)
{
    if (*pattern == NULL)
        return;
    pcre2_code_free((*pattern)->code);
    qp_free((*pattern)->text);
    QP_FREE(*pattern);
}

qp_error_t qp_pattern_fullmatch(const qp_pattern_t *pattern, const char *text, bool *matches)
{
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(pattern->code, NULL);
    QP_ASSERT(data != NULL);
    const int found = pcre2_match(pattern->code, (PCRE2_SPTR)text, strlen(text), 0, 0, data, NULL);
    pcre2_match_data_free(data);
    *matches = found >= 0;
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH)
        return NULL;
    PCRE2_UCHAR reason[128];
    pcre2_get_error_message(found, reason, sizeof reason);
    return QP_ERROR(QP_INPUT, "pattern \"%s\" on %s: %s", pattern->text, text,
                    (const char *)reason);
}
