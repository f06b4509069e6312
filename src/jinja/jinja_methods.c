/* Methods of str: case, stripping, padding, what a text consists of. */
#include <ctype.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"
#include "base/utf8.h"

/* --- case and stripping ----------------------------------------------------------------------- */

static qp_error_t upper(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return qp_jinja_to_case(call->run, call->self.as.s, QP_JINJA_UPPER, result);
}

static qp_error_t lower(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return qp_jinja_to_case(call->run, call->self.as.s, QP_JINJA_LOWER, result);
}

static qp_error_t capitalize(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return qp_jinja_to_case(call->run, call->self.as.s, QP_JINJA_CAPITALIZE, result);
}

static qp_error_t title(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return qp_jinja_to_case(call->run, call->self.as.s, QP_JINJA_TITLE, result);
}

static qp_error_t swapcase(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return qp_jinja_to_case(call->run, call->self.as.s, QP_JINJA_SWAPCASE, result);
}

static qp_error_t strip_sides(const qp_jinja_call_t *call, int sides, qp_jv_t *result)
{
    qp_jv_string_t *chars = NULL;
    if (qp_jinja_given(call, 0))
        QP_TRY(qp_jinja_want_string(call, 0, &chars));
    return qp_jinja_strip(call->run, call->self.as.s, chars, sides, result);
}

static qp_error_t strip(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return strip_sides(call, QP_JINJA_LEFT | QP_JINJA_RIGHT, result);
}

static qp_error_t lstrip(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return strip_sides(call, QP_JINJA_LEFT, result);
}

static qp_error_t rstrip(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return strip_sides(call, QP_JINJA_RIGHT, result);
}

/* --- padding and formatting ------------------------------------------------------------------- */

static qp_error_t pad(const qp_jinja_call_t *call, int side, qp_jv_t *result)
{
    qp_jv_string_t space = {.data = " ", .n = 1, .n_chars = 1}, *fill = &space;
    int64_t width = 0;
    QP_TRY(qp_jinja_want_int(call, 0, 0, &width));
    if (call->arg[1].type != QP_JV_MISSING)
        QP_TRY(qp_jinja_want_string(call, 1, &fill));
    if (qp_jv_length(fill) != 1)
        return QP_ERROR(QP_INPUT, "padding needs a width and one character");
    return qp_jinja_pad(call->run, call->self.as.s, width, fill, side, result);
}

static qp_error_t center(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return pad(call, 0, result);
}

static qp_error_t ljust(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return pad(call, -1, result);
}

static qp_error_t rjust(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return pad(call, 1, result);
}

static qp_error_t zfill(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jinja_run_t *run = call->run;
    const qp_jv_string_t zero = {.data = "0", .n = 1, .n_chars = 1};
    qp_jv_string_t *s = call->self.as.s;
    const bool sign = s->n > 0 && (s->data[0] == '-' || s->data[0] == '+');
    qp_jv_t digits = qp_jv_string_at(&run->arena, s->data + sign, s->n - sign);
    int64_t width = 0;
    QP_TRY(qp_jinja_want_int(call, 0, 0, &width));
    if (width < 0)
        width = 0;
    QP_TRY(qp_jinja_pad(run, digits.as.s, width - sign, &zero, 1, &digits));
    qp_jinja_text_t text = {.arena = &run->arena};
    qp_jinja_put(&text, s->data, sign);
    qp_jinja_put(&text, digits.as.s->data, digits.as.s->n);
    *result = qp_jv_string_of(&text);
    return NULL;
}

static qp_error_t format(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return qp_jinja_format(call->run, call->self.as.s, &call->given, result);
}

/* --- what a text consists of ------------------------------------------------------------------ */

static bool is_decimal(uint32_t code)
{
    return utf8proc_category((utf8proc_int32_t)code) == UTF8PROC_CATEGORY_ND;
}

static bool is_alnum(uint32_t code)
{
    return qp_jinja_is_alpha(code) || qp_jinja_is_numeric(code);
}

static bool is_ascii(uint32_t code)
{
    return code < 0x80;
}

static qp_error_t all(const qp_jinja_call_t *call, bool (*is)(uint32_t code), bool empty,
                      qp_jv_t *result)
{
    const qp_jv_string_t *s = call->self.as.s;
    bool holds = s->n > 0 || empty;
    QP_TRY(qp_jinja_spend(call->run, s->n));
    for (size_t i = 0, n; i < s->n && holds; i += n)
        holds = is(qp_utf8_decode(s->data + i, &n));
    *result = qp_jv_bool(holds);
    return NULL;
}

static qp_error_t isalpha_(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return all(call, qp_jinja_is_alpha, false, result);
}

static qp_error_t isalnum_(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return all(call, is_alnum, false, result);
}

static qp_error_t isdecimal(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return all(call, is_decimal, false, result);
}

/* Python also takes some digits that are not decimal (superscripts): those are refused. */
static qp_error_t isdigit_(const qp_jinja_call_t *call, qp_jv_t *result)
{
    const qp_jv_string_t *s = call->self.as.s;
    for (size_t i = 0, n; i < s->n; i += n) {
        const uint32_t code = qp_utf8_decode(s->data + i, &n);
        if (code >= 0x80 && qp_jinja_is_numeric(code) && !is_decimal(code))
            return QP_ERROR(QP_INPUT, "isdigit of U+%04X is not supported", code);
    }
    return isdecimal(call, result);
}

static qp_error_t isspace_(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return all(call, qp_jinja_is_space, false, result);
}

static qp_error_t isascii_(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return all(call, is_ascii, true, result);
}

static bool is_upper(uint32_t code)
{
    return code < 0x80 ? isupper((int)code) != 0 : utf8proc_isupper((utf8proc_int32_t)code) != 0;
}

static bool is_lower(uint32_t code)
{
    return code < 0x80 ? islower((int)code) != 0 : utf8proc_islower((utf8proc_int32_t)code) != 0;
}

/* Some letters have the case, none has the other. */
qp_error_t qp_jinja_in_case(qp_jinja_run_t *run, const qp_jv_string_t *s, bool upper_case,
                            bool *holds)
{
    bool some = false, other = false;
    QP_TRY(qp_jinja_spend(run, s->n));
    for (size_t i = 0, n; i < s->n; i += n) {
        const uint32_t code = qp_utf8_decode(s->data + i, &n);
        const bool titled = utf8proc_category((utf8proc_int32_t)code) == UTF8PROC_CATEGORY_LT;
        some = some || (upper_case ? is_upper(code) : is_lower(code));
        other = other || titled || (upper_case ? is_lower(code) : is_upper(code));
    }
    *holds = some && !other;
    return NULL;
}

static qp_error_t in_case(const qp_jinja_call_t *call, bool upper_case, qp_jv_t *result)
{
    bool holds = false;
    QP_TRY(qp_jinja_in_case(call->run, call->self.as.s, upper_case, &holds));
    *result = qp_jv_bool(holds);
    return NULL;
}

static qp_error_t isupper_(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return in_case(call, true, result);
}

static qp_error_t islower_(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return in_case(call, false, result);
}

const qp_jinja_builtin_t qp_jinja_string_methods[] = {
    {"capitalize", "", 0, capitalize, false},
    {"casefold", NULL, 0, NULL, false},
    {"center", "/width,fillchar", 1, center, false},
    {"encode", NULL, 0, NULL, false},
    {"expandtabs", NULL, 0, NULL, false},
    {"format", NULL, 0, format, false},
    {"format_map", NULL, 0, NULL, false},
    {"isalnum", "", 0, isalnum_, false},
    {"isalpha", "", 0, isalpha_, false},
    {"isascii", "", 0, isascii_, false},
    {"isdecimal", "", 0, isdecimal, false},
    {"isdigit", "", 0, isdigit_, false},
    {"isidentifier", NULL, 0, NULL, false},
    {"islower", "", 0, islower_, false},
    {"isnumeric", NULL, 0, NULL, false},
    {"isprintable", NULL, 0, NULL, false},
    {"isspace", "", 0, isspace_, false},
    {"istitle", NULL, 0, NULL, false},
    {"isupper", "", 0, isupper_, false},
    {"ljust", "/width,fillchar", 1, ljust, false},
    {"lower", "", 0, lower, false},
    {"lstrip", "/chars", 0, lstrip, false},
    {"maketrans", NULL, 0, NULL, false},
    {"rjust", "/width,fillchar", 1, rjust, false},
    {"rstrip", "/chars", 0, rstrip, false},
    {"strip", "/chars", 0, strip, false},
    {"swapcase", "", 0, swapcase, false},
    {"title", "", 0, title, false},
    {"translate", NULL, 0, NULL, false},
    {"upper", "", 0, upper, false},
    {"zfill", "/width", 1, zfill, false},
    {.name = NULL},
};
