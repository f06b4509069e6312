/* What Python's str does: case, stripping, replacing, lines, padding, numbers in texts. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/str.h"
#include "jinja/jinja_run.h"
#include "base/utf8.h"

/* --- properties ------------------------------------------------------------------------------- */

bool qp_jinja_is_alpha(uint32_t code)
{
    const utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool qp_jinja_is_numeric(uint32_t code)
{
    const utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

/* --- case ------------------------------------------------------------------------------------- */

/* Letters that become several, or whose lower case depends on what stands around them. */
static const struct {
    uint32_t first, last;
    bool lower; /* false: in upper and title case */
} special[] = {{0xdf, 0xdf, false},     {0x149, 0x149, false},   {0x1f0, 0x1f0, false},
               {0x390, 0x390, false},   {0x3b0, 0x3b0, false},   {0x587, 0x587, false},
               {0x1e96, 0x1e9a, false}, {0x1f50, 0x1f57, false}, {0x1f80, 0x1ffc, false},
               {0xfb00, 0xfb17, false}, {0x130, 0x130, true},    {0x3a3, 0x3a3, true}};

static qp_error_t map(uint32_t code, qp_jinja_case_t how, uint32_t *mapped)
{
    if (code < 0x80) {
        *mapped = (uint32_t)(how == QP_JINJA_LOWER ? tolower((int)code) : toupper((int)code));
        return NULL;
    }
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (code >= special[i].first && code <= special[i].last &&
            special[i].lower == (how == QP_JINJA_LOWER))
            return QP_ERROR(QP_INPUT, "%s case of U+%04X is not supported",
                            how == QP_JINJA_LOWER ? "lower" : "upper", code);
    const utf8proc_int32_t c = (utf8proc_int32_t)code;
    *mapped = (uint32_t)(how == QP_JINJA_LOWER   ? utf8proc_tolower(c)
                         : how == QP_JINJA_UPPER ? utf8proc_toupper(c)
                                                 : utf8proc_totitle(c));
    return NULL;
}

static bool is_cased(uint32_t code)
{
    if (code < 0x80)
        return isalpha((int)code) != 0;
    const utf8proc_int32_t c = (utf8proc_int32_t)code;
    return utf8proc_isupper(c) || utf8proc_islower(c) ||
           utf8proc_category(c) == UTF8PROC_CATEGORY_LT;
}

/* Case of one letter: cased says whether a letter with case stands in front of it. */
static qp_jinja_case_t case_of(qp_jinja_case_t how, uint32_t code, bool first, bool cased)
{
    switch (how) {
    case QP_JINJA_CAPITALIZE:
        return first ? QP_JINJA_TITLE : QP_JINJA_LOWER;
    case QP_JINJA_TITLE:
        return cased ? QP_JINJA_LOWER : QP_JINJA_TITLE;
    case QP_JINJA_SWAPCASE:
        return code < 0x80 ? (isupper((int)code) ? QP_JINJA_LOWER : QP_JINJA_UPPER)
               : utf8proc_isupper((utf8proc_int32_t)code) ? QP_JINJA_LOWER
                                                          : QP_JINJA_UPPER;
    default:
        return how;
    }
}

qp_error_t qp_jinja_to_case(qp_jinja_run_t *run, const qp_jv_string_t *s, qp_jinja_case_t how,
                            qp_jv_t *result)
{
    qp_jinja_text_t text = {.arena = &run->arena};
    bool cased = false;
    QP_TRY(qp_jinja_spend(run, 2 * s->n));
    for (size_t i = 0, n; i < s->n; i += n) {
        const uint32_t code = qp_utf8_decode(s->data + i, &n);
        uint32_t mapped = code;
        QP_TRY(map(code, case_of(how, code, i == 0, cased), &mapped));
        cased = is_cased(code);
        qp_jinja_put_code(&text, mapped);
    }
    *result = qp_jv_string_of(&text);
    return NULL;
}

/* --- stripping and replacing ------------------------------------------------------------------ */

/* Bytes of the first character of [at, end) if it is one of chars, else 0. */
static size_t strips(const char *at, const char *end, const qp_jv_string_t *chars)
{
    if (chars == NULL)
        return qp_jinja_space_at(at, end);
    const size_t n = qp_utf8_length(*at);
    for (size_t i = 0; i < chars->n; i += qp_utf8_length(chars->data[i]))
        if (qp_utf8_length(chars->data[i]) == n && memcmp(chars->data + i, at, n) == 0)
            return n;
    return 0;
}

qp_error_t qp_jinja_strip(qp_jinja_run_t *run, qp_jv_string_t *s, const qp_jv_string_t *chars,
                          int sides, qp_jv_t *result)
{
    const char *begin = s->data, *end = s->data + s->n;
    const size_t per_char = 1 + (chars != NULL ? chars->n : 0);
    for (size_t n; (sides & QP_JINJA_LEFT) != 0 && begin < end; begin += n) {
        n = strips(begin, end, chars);
        if (n == 0)
            break;
        QP_TRY(qp_jinja_spend(run, per_char));
    }
    while ((sides & QP_JINJA_RIGHT) != 0 && begin < end) {
        const char *last = end - 1;
        while (((unsigned char)*last & 0xc0) == 0x80)
            last--;
        if (strips(last, end, chars) == 0)
            break;
        end = last;
        QP_TRY(qp_jinja_spend(run, per_char));
    }
    *result = (qp_jv_t){.type = QP_JV_STRING, .as.s = s};
    if ((size_t)(end - begin) != s->n)
        *result = qp_jv_string_at(&run->arena, begin, (size_t)(end - begin));
    return NULL;
}

/* replace() with nothing to look for: between all characters. */
static void spread(qp_jinja_text_t *text, const qp_jv_string_t *s, const qp_jv_string_t *with,
                   int64_t count)
{
    size_t i = 0;
    for (; count != 0; count--) {
        qp_jinja_put(text, with->data, with->n);
        if (i == s->n)
            break;
        const size_t n = qp_utf8_length(s->data[i]);
        qp_jinja_put(text, s->data + i, n);
        i += n;
    }
    qp_jinja_put(text, s->data + i, s->n - i);
}

qp_error_t qp_jinja_replace(qp_jinja_run_t *run, const qp_jv_string_t *s, const qp_jv_string_t *old,
                            const qp_jv_string_t *with, int64_t count, qp_jv_t *result)
{
    qp_jinja_text_t text = {.arena = &run->arena};
    const char *at = s->data, *end = s->data + s->n, *found;
    if (old->n == 0) {
        QP_TRY(qp_jinja_spend(run, (s->n + 1) * (with->n + 1)));
        spread(&text, s, with, count);
        *result = qp_jv_string_of(&text);
        return NULL;
    }
    QP_TRY(qp_jinja_spend(run, s->n));
    while (count != 0 && (found = memmem(at, (size_t)(end - at), old->data, old->n)) != NULL) {
        QP_TRY(qp_jinja_spend(run, (size_t)(found - at) + with->n));
        qp_jinja_put(&text, at, (size_t)(found - at));
        qp_jinja_put(&text, with->data, with->n);
        at = found + old->n;
        count--;
    }
    qp_jinja_put(&text, at, (size_t)(end - at));
    *result = qp_jv_string_of(&text);
    return NULL;
}

/* --- lines and padding ------------------------------------------------------------------------ */

/* Bytes of the line break at [at, end), or 0; "\r\n" is one. */
static size_t line_break(const char *at, const char *end)
{
    if (*at == '\r')
        return at + 1 < end && at[1] == '\n' ? 2 : 1;
    if ((*at >= '\n' && *at <= '\f') || (*at >= 0x1c && *at <= 0x1e))
        return 1;
    if ((unsigned char)*at < 0x80)
        return 0;
    size_t n = 0;
    const uint32_t code = qp_utf8_decode(at, &n);
    return code == 0x85 || code == 0x2028 || code == 0x2029 ? n : 0;
}

qp_error_t qp_jinja_split_lines(qp_jinja_run_t *run, const qp_jv_string_t *s, bool keep_ends,
                                qp_jv_t *list)
{
    qp_jinja_vector_t lines = {0};
    const char *at = s->data, *end = s->data + s->n, *begin = at;
    while (at < end) {
        const size_t n = line_break(at, end);
        at += n > 0 ? n : qp_utf8_length(*at);
        if (n == 0 && at < end)
            continue;
        const size_t length = (size_t)(at - begin) - (keep_ends ? 0 : n);
        const qp_jv_t line = qp_jv_string_at(&run->arena, begin, length);
        QP_TRY(qp_jinja_spend(run, length));
        QP_TRY(qp_jinja_push(run, &lines, &line));
        begin = at;
    }
    *list = qp_jv_list(&run->arena, QP_JV_LIST, lines.at, lines.n);
    return NULL;
}

qp_error_t qp_jinja_pad(qp_jinja_run_t *run, qp_jv_string_t *s, int64_t width,
                        const qp_jv_string_t *fill, int side, qp_jv_t *result)
{
    qp_jinja_text_t text = {.arena = &run->arena};
    const int64_t room = width - qp_jv_length(s);
    if (room <= 0) {
        *result = (qp_jv_t){.type = QP_JV_STRING, .as.s = s};
        return NULL;
    }
    if (room > QP_JINJA_MAX_BYTES / 4)
        return QP_ERROR(QP_INPUT, "a text of %lld characters is too long", (long long)width);
    QP_TRY(qp_jinja_spend(run, s->n + (size_t)room * fill->n));
    /* Python: the odd one goes to the left if the width is odd */
    const int64_t left = side < 0 ? 0 : side > 0 ? room : room / 2 + (room & width & 1);
    for (int64_t i = 0; i < room; i++) {
        if (i == left)
            qp_jinja_put(&text, s->data, s->n);
        qp_jinja_put(&text, fill->data, fill->n);
    }
    if (left == room)
        qp_jinja_put(&text, s->data, s->n);
    *result = qp_jv_string_of(&text);
    return NULL;
}

/* --- numbers ---------------------------------------------------------------------------------- */

enum { MAX_NUMBER = 400 };

/* The text without space around it and without underscores between digits; false if it cannot be a
 * number. */
static bool plain_number(const qp_jv_string_t *s, char plain[MAX_NUMBER])
{
    const char *at = s->data, *end = s->data + s->n;
    size_t n = 0;
    for (size_t space; at < end && (space = qp_jinja_space_at(at, end)) > 0;)
        at += space;
    for (size_t space; at < end && (space = qp_jinja_space_before(at, end)) > 0;)
        end -= space;
    for (const char *c = at; c < end; c++) {
        if (*c == '_') {
            if (c == at || c + 1 == end || !isalnum((unsigned char)c[-1]) ||
                !isalnum((unsigned char)c[1]))
                return false;
            continue;
        }
        if (*c == '\0' || n + 1 == MAX_NUMBER)
            return false;
        plain[n++] = *c;
    }
    plain[n] = '\0';
    return n > 0;
}

/* Digits of other scripts are numbers to Python; here they are refused. */
static qp_error_t check_digits(const qp_jv_string_t *s)
{
    for (size_t i = 0, n; i < s->n; i += n) {
        const uint32_t code = qp_utf8_decode(s->data + i, &n);
        if (code >= 0x80 && qp_jinja_is_numeric(code))
            return QP_ERROR(QP_INPUT, "numbers with U+%04X are not supported", code);
    }
    if (s->n >= MAX_NUMBER)
        return QP_ERROR(QP_INPUT, "numbers of %zu characters are not supported", s->n);
    return NULL;
}

/* Value of the digits of a base, false if there are others or too many. */
static bool read_digits(const char *digits, int base, int64_t *value, bool *over)
{
    uint64_t sum = 0;
    if (*digits == '\0')
        return false;
    for (; *digits != '\0'; digits++) {
        const int c = tolower((unsigned char)*digits);
        const int digit = isdigit(c) ? c - '0' : islower(c) ? c - 'a' + 10 : 99;
        if (digit >= base)
            return false;
        *over = *over || __builtin_mul_overflow(sum, (uint64_t)base, &sum) ||
                __builtin_add_overflow(sum, (uint64_t)digit, &sum) || sum > INT64_MAX;
    }
    *value = *over ? 0 : (int64_t)sum;
    return true;
}

qp_error_t qp_jinja_read_int(qp_jinja_run_t *run, const qp_jv_string_t *s, int64_t base,
                             int64_t *value, bool *is_number)
{
    char plain[MAX_NUMBER];
    bool over = false;
    (void)run;
    QP_TRY(check_digits(s));
    if (base < 2 || base > 36)
        return QP_ERROR(QP_INPUT, "int: the base %lld is not supported", (long long)base);
    *is_number = plain_number(s, plain);
    if (!*is_number)
        return NULL;
    const char *digits = plain + (plain[0] == '-' || plain[0] == '+');
    const char letter = (char)tolower((unsigned char)digits[0] == '0' ? digits[1] : '\0');
    if ((base == 16 && letter == 'x') || (base == 8 && letter == 'o') ||
        (base == 2 && letter == 'b'))
        digits += 2;
    *is_number = read_digits(digits, (int)base, value, &over);
    if (*is_number && over)
        return QP_ERROR(QP_INPUT, "int: beyond 64-bit integers, which is not supported");
    if (plain[0] == '-')
        *value = -*value;
    return NULL;
}

/* Digits, point, exponent, and nothing else; "inf" and "nan" are refused elsewhere. */
static bool is_float(const char *text)
{
    text += *text == '-' || *text == '+';
    const size_t whole = strspn(text, "0123456789");
    text += whole;
    size_t fraction = 0;
    if (*text == '.') {
        fraction = strspn(text + 1, "0123456789");
        text += 1 + fraction;
    }
    if (whole + fraction == 0)
        return false;
    if (*text == 'e' || *text == 'E') {
        text += 1 + (text[1] == '-' || text[1] == '+');
        if (!isdigit((unsigned char)*text))
            return false;
        text += strspn(text, "0123456789");
    }
    return *text == '\0';
}

qp_error_t qp_jinja_read_float(qp_jinja_run_t *run, const qp_jv_string_t *s, double *value,
                               bool *is_number)
{
    static const char *const endless[] = {"inf", "infinity", "nan"};
    char plain[MAX_NUMBER];
    (void)run;
    QP_TRY(check_digits(s));
    *is_number = plain_number(s, plain);
    if (!*is_number)
        return NULL;
    const char *name = plain + (plain[0] == '-' || plain[0] == '+');
    for (size_t i = 0; i < sizeof endless / sizeof *endless; i++)
        if (strcasecmp(name, endless[i]) == 0)
            return QP_ERROR(QP_INPUT, "the number '%s' is not supported", plain);
    *is_number =
        is_float(plain) && (memchr(s->data, '_', s->n) == NULL || isdigit((unsigned char)*name));
    *value = *is_number ? strtod(plain, NULL) : 0;
    if (!isfinite(*value))
        return QP_ERROR(QP_INPUT, "the number '%.20s' is too large", plain);
    return NULL;
}
