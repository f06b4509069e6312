#include "text/tokenizer_normal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/utf8.h"

static const struct {
    const char *name;
    utf8proc_option_t options;
} FORMS[] = {
    {"NFC", UTF8PROC_COMPOSE},
    {"NFD", UTF8PROC_DECOMPOSE},
    {"NFKC", UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
    {"NFKD", UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
};
enum { N_FORM = sizeof FORMS / sizeof FORMS[0] };

static size_t find_form(const char *name)
{
    size_t i = 0;
    while (i < N_FORM && strcmp(name, FORMS[i].name) != 0)
        i++;
    return i;
}

void qp_normal_fini(qp_normal_t *normal)
{
    for (int i = 0; i < normal->n_rule; i++) {
        qp_free(normal->rule[i].from);
        qp_free(normal->rule[i].to);
    }
    *normal = (qp_normal_t){0};
}

qp_error_t qp_normal_add(qp_normal_t *normal, qp_normal_kind_t kind, const char *from,
                         const char *to)
{
    if (normal->n_rule == QP_MAX_RULE)
        return QP_ERROR(QP_INPUT, "more than %d rules", QP_MAX_RULE);
    if (to != NULL && strlen(to) > QP_MAX_RULE_TEXT)
        return QP_ERROR(QP_INPUT, "'%s' is longer than %d bytes", to, QP_MAX_RULE_TEXT);
    if (kind == QP_NORMAL_UNICODE && find_form(from) == N_FORM)
        return QP_ERROR(QP_INPUT, "'%s' is no Unicode normalisation form", from);
    normal->rule[normal->n_rule++] = (qp_normal_rule_t){
        .kind = kind,
        .from = from != NULL ? qp_strdup(from) : NULL,
        .to = to != NULL ? qp_strdup(to) : NULL,
    };
    return NULL;
}

static void prepend(qp_slice_t text, const char *to, qp_traced_t *out)
{
    if (text.n > 0)
        qp_traced_put(out, to, strlen(to), qp_slice_part(text, 0, qp_utf8_length(text.text[0])));
    qp_traced_copy(out, text);
}

static void replace_all(qp_slice_t text, const char *from, const char *to, qp_traced_t *out)
{
    const size_t n_from = strlen(from), n_to = strlen(to);
    const char *hit;
    while ((hit = memmem(text.text, text.n, from, n_from)) != NULL) {
        const size_t n = (size_t)(hit - text.text);
        qp_traced_copy(out, qp_slice_part(text, 0, n));
        qp_traced_put(out, to, n_to, qp_slice_part(text, n, n + n_from));
        text = qp_slice_part(text, n + n_from, text.n);
    }
    qp_traced_copy(out, text);
}

/* --- Unicode ---------------------------------------------------------------------------------- */

/* Characters after Unicode 9, the version of HF tokenizers' tables, that have a decomposition or a
 * combining class: there they are characters like any other, which stand for themselves. */
static const uint32_t LATER[][2] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},
    {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},
    {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},
    {0xa82c, 0xa82c},   {0xab69, 0xab69},   {0x10781, 0x10785}, {0x10787, 0x107b0},
    {0x107b2, 0x107ba}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff},
    {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b},
    {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11938, 0x11938}, {0x1193d, 0x1193e},
    {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47},
    {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97},
    {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e030, 0x1e06d}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
    {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9}};
enum { N_LATER = sizeof LATER / sizeof LATER[0] };

static bool is_later(uint32_t code)
{
    size_t low = 0, high = N_LATER;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (code > LATER[middle][1])
            low = middle + 1;
        else
            high = middle;
    }
    return low < N_LATER && code >= LATER[low][0];
}

/* Bytes before the first such character; *n_later is its length, 0 at the end of the text. */
static size_t before_later(qp_slice_t text, size_t *n_later)
{
    for (size_t i = 0, n; i < text.n; i += n) {
        const uint32_t code = qp_utf8_decode(text.text + i, &n);
        *n_later = n;
        if (code >= LATER[0][0] && is_later(code))
            return i;
    }
    *n_later = 0;
    return text.n;
}

/* Appends the form of a text without regard to where it comes from. */
static void map_form(utf8proc_option_t options, const char *text, size_t n, qp_str_t *out)
{
    utf8proc_uint8_t *mapped = NULL;
    const utf8proc_ssize_t n_mapped = utf8proc_map(
        (const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &mapped, UTF8PROC_STABLE | options);
    QP_ASSERT(n_mapped >= 0); /* it can only refuse wrong UTF-8 or memory */
    qp_str_append(out, mapped, (size_t)n_mapped);
    free(mapped);
}

/* End of the piece at the start of the text whose form stands for itself: the next character
 * neither joins nor reorders with it. */
static size_t end_of_piece(utf8proc_option_t options, qp_slice_t text, qp_str_t piece[3])
{
    size_t end = qp_utf8_length(text.text[0]), n;
    for (; end < text.n; end += n) {
        const uint32_t next = qp_utf8_decode(text.text + end, &n);
        if (utf8proc_get_property((utf8proc_int32_t)next)->combining_class != 0)
            continue;
        for (int i = 0; i < 3; i++)
            qp_str_clear(&piece[i]);
        map_form(options, text.text, end, &piece[0]);
        map_form(options, text.text + end, n, &piece[1]);
        map_form(options, text.text, end + n, &piece[2]);
        qp_str_append(&piece[0], piece[1].data, piece[1].n);
        if (piece[0].n == piece[2].n && memcmp(piece[0].data, piece[2].data, piece[0].n) == 0)
            break;
    }
    return end;
}

static void map_traced(utf8proc_option_t options, qp_slice_t text, qp_traced_t *out)
{
    qp_str_t piece[3] = {{0}};
    while (text.n > 0) {
        const size_t end = end_of_piece(options, text, piece);
        qp_str_clear(&piece[0]);
        map_form(options, text.text, end, &piece[0]);
        qp_traced_put(out, piece[0].data, piece[0].n, qp_slice_part(text, 0, end));
        text = qp_slice_part(text, end, text.n);
    }
    for (int i = 0; i < 3; i++)
        qp_str_fini(&piece[i]);
}

static bool is_ascii(qp_slice_t text)
{
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.text[i] >= 0x80)
            return false;
    return true;
}

/* Appends the form of a text whose characters the tables know. */
static void map_known(utf8proc_option_t options, qp_slice_t text, qp_traced_t *out)
{
    if (is_ascii(text)) {
        qp_traced_copy(out, text);
        return;
    }
    const size_t begin = out->text.n;
    map_form(options, text.text, text.n, &out->text);
    if (text.origin == NULL)
        return;
    const bool same =
        out->text.n == begin + text.n && memcmp(out->text.data + begin, text.text, text.n) == 0;
    out->text.n = begin;
    if (same)
        qp_traced_copy(out, text);
    else
        map_traced(options, text, out);
}

static void normalize_unicode(const char *form, qp_slice_t text, qp_traced_t *out)
{
    const utf8proc_option_t options = FORMS[find_form(form)].options;
    while (text.n > 0) {
        size_t n_later;
        const size_t n = before_later(text, &n_later);
        map_known(options, qp_slice_part(text, 0, n), out);
        qp_traced_copy(out, qp_slice_part(text, n, n + n_later));
        text = qp_slice_part(text, n + n_later, text.n);
    }
}

qp_slice_t qp_normal_run(const qp_normal_t *normal, qp_slice_t text, qp_traced_t buffer[2])
{
    for (int i = 0; i < normal->n_rule; i++) {
        const qp_normal_rule_t *rule = &normal->rule[i];
        qp_traced_t *out = &buffer[i % 2];
        qp_traced_clear(out);
        if (rule->kind == QP_NORMAL_PREPEND)
            prepend(text, rule->to, out);
        else if (rule->kind == QP_NORMAL_REPLACE)
            replace_all(text, rule->from, rule->to, out);
        else
            normalize_unicode(rule->from, text, out);
        text = qp_traced_slice(out);
    }
    return text;
}
