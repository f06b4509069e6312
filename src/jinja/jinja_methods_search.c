/* Methods of str that look for something: finding, replacing, splitting, joining. */
#include <string.h>

#include "base/mem.h"
#include "jinja/jinja_run.h"
#include "base/utf8.h"

/* --- searching -------------------------------------------------------------------------------- */

/* Bytes [begin, end) that the optional arguments start and end name; false if start is behind end
 * or the string. */
static qp_error_t window(const qp_jinja_call_t *call, int at, const char **begin, const char **end,
                         bool *inside)
{
    qp_jv_string_t *s = call->self.as.s;
    const int64_t n = qp_jv_length(s);
    int64_t from = 0, to = n;
    if (call->arg[at].type != QP_JV_NONE)
        QP_TRY(qp_jinja_want_int(call, at, 0, &from));
    if (call->arg[at + 1].type != QP_JV_NONE)
        QP_TRY(qp_jinja_want_int(call, at + 1, n, &to));
    from = from < -n ? 0 : from < 0 ? from + n : from;
    to = to < -n ? 0 : to < 0 ? to + n : to > n ? n : to;
    *inside = from <= to && from <= n;
    *begin = s->data + (*inside ? qp_jv_offset(s, from) : 0);
    *end = s->data + (*inside ? qp_jv_offset(s, to) : 0);
    return qp_jinja_spend(call->run, s->n);
}

static const char *find_last(const char *begin, const char *end, const qp_jv_string_t *what)
{
    if ((size_t)(end - begin) < what->n)
        return NULL;
    for (const char *at = end - what->n; at >= begin; at--)
        if (memcmp(at, what->data, what->n) == 0)
            return at;
    return NULL;
}

static qp_error_t find_from(const qp_jinja_call_t *call, bool last, bool must, qp_jv_t *result)
{
    const qp_jv_string_t *s = call->self.as.s;
    qp_jv_string_t *what = NULL;
    const char *begin, *end, *found = NULL;
    bool inside = false;
    QP_TRY(qp_jinja_want_string(call, 0, &what));
    QP_TRY(window(call, 1, &begin, &end, &inside));
    if (inside && !last)
        found = memmem(begin, (size_t)(end - begin), what->data, what->n);
    else if (inside)
        found = find_last(begin, end, what);
    if (last)
        QP_TRY(qp_jinja_spend(call->run, (size_t)(end - begin) * (what->n / 64 + 1)));
    if (found == NULL && must)
        return QP_ERROR(QP_INPUT, "index: the text is not there");
    int64_t index = found != NULL ? 0 : -1;
    for (const char *c = s->data; found != NULL && c < found; c++)
        index += ((unsigned char)*c & 0xc0) != 0x80;
    *result = qp_jv_int(index);
    return NULL;
}

static qp_error_t find(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return find_from(call, false, false, result);
}

static qp_error_t rfind(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return find_from(call, true, false, result);
}

static qp_error_t index_of(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return find_from(call, false, true, result);
}

static qp_error_t rindex_of(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return find_from(call, true, true, result);
}

static qp_error_t count(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_string_t *what = NULL;
    const char *begin, *end;
    bool inside = false;
    int64_t n = 0;
    QP_TRY(qp_jinja_want_string(call, 0, &what));
    QP_TRY(window(call, 1, &begin, &end, &inside));
    if (inside && what->n == 0) {
        n = 1;
        for (const char *c = begin; c < end; c++)
            n += ((unsigned char)*c & 0xc0) != 0x80;
    }
    while (inside && what->n > 0 &&
           (begin = memmem(begin, (size_t)(end - begin), what->data, what->n)) != NULL) {
        begin += what->n;
        n++;
    }
    *result = qp_jv_int(n);
    return NULL;
}

static bool affix_fits(const char *begin, const char *end, const qp_jv_string_t *affix, bool start)
{
    return (size_t)(end - begin) >= affix->n &&
           memcmp(start ? begin : end - affix->n, affix->data, affix->n) == 0;
}

/* startswith and endswith: one text or a tuple of texts. */
static qp_error_t has_affix(const qp_jinja_call_t *call, bool start, qp_jv_t *result)
{
    const qp_jv_t *affix = &call->arg[0];
    const char *begin, *end;
    bool inside = false, fits = false;
    const bool tuple = affix->type == QP_JV_TUPLE;
    QP_TRY(window(call, 1, &begin, &end, &inside));
    for (int64_t i = 0; i < (tuple ? affix->as.list->n : 1) && !fits; i++) {
        const qp_jv_t *one = tuple ? &affix->as.list->at[i] : affix;
        if (one->type == QP_JV_UNDEFINED)
            return qp_jv_undefined_error(one);
        if (one->type != QP_JV_STRING)
            return QP_ERROR(QP_INPUT, "%s needs a str or a tuple of str, not a %s",
                            start ? "startswith" : "endswith", qp_jv_type_name(one));
        fits = inside && affix_fits(begin, end, one->as.s, start);
    }
    *result = qp_jv_bool(fits);
    return NULL;
}

static qp_error_t startswith(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return has_affix(call, true, result);
}

static qp_error_t endswith(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return has_affix(call, false, result);
}

static qp_error_t replace(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jv_string_t *old = NULL, *with = NULL;
    int64_t n = -1;
    QP_TRY(qp_jinja_want_string(call, 0, &old));
    QP_TRY(qp_jinja_want_string(call, 1, &with));
    QP_TRY(qp_jinja_want_int(call, 2, -1, &n));
    return qp_jinja_replace(call->run, call->self.as.s, old, with, n, result);
}

static qp_error_t remove_affix(const qp_jinja_call_t *call, bool prefix, qp_jv_t *result)
{
    const qp_jv_string_t *s = call->self.as.s;
    qp_jv_string_t *affix = NULL;
    QP_TRY(qp_jinja_want_string(call, 0, &affix));
    *result = call->self;
    if (affix->n == 0 || affix->n > s->n)
        return NULL;
    const size_t rest = s->n - affix->n;
    if (memcmp(prefix ? s->data : s->data + rest, affix->data, affix->n) == 0)
        *result = qp_jv_string_at(&call->run->arena, prefix ? s->data + affix->n : s->data, rest);
    return NULL;
}

static qp_error_t removeprefix(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return remove_affix(call, true, result);
}

static qp_error_t removesuffix(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return remove_affix(call, false, result);
}

/* --- splitting and joining -------------------------------------------------------------------- */

typedef struct {
    qp_jinja_run_t *run;
    qp_jinja_vector_t parts;
} parts_t;

static qp_error_t add_part(parts_t *p, const char *begin, const char *end)
{
    const qp_jv_t part = qp_jv_string_at(&p->run->arena, begin, (size_t)(end - begin));
    QP_TRY(qp_jinja_spend(p->run, (size_t)(end - begin)));
    return qp_jinja_push(p->run, &p->parts, &part);
}

/* At most \a limit cuts at white space, from the left; empty parts do not count. What is left keeps
 * the space at its far end, as Python has it. */
static qp_error_t split_space(parts_t *p, const char *at, const char *end, int64_t limit)
{
    while (true) {
        for (size_t n; at < end && (n = qp_jinja_space_at(at, end)) > 0;)
            at += n;
        if (at == end)
            return NULL;
        const char *stop = at;
        while (stop < end && qp_jinja_space_at(stop, end) == 0)
            stop += qp_utf8_length(*stop);
        if (limit-- == 0)
            return add_part(p, at, end);
        QP_TRY(add_part(p, at, stop));
        at = stop;
    }
}

static qp_error_t split_space_right(parts_t *p, const char *at, const char *end, int64_t limit)
{
    while (true) {
        for (size_t n; (n = qp_jinja_space_before(at, end)) > 0;)
            end -= n;
        if (at == end)
            return NULL;
        const char *start = end;
        while (start > at && qp_jinja_space_before(at, start) == 0) {
            start--;
            while (((unsigned char)*start & 0xc0) == 0x80)
                start--;
        }
        if (limit-- == 0)
            return add_part(p, at, end);
        QP_TRY(add_part(p, start, end));
        end = start;
    }
}

static qp_error_t split_text(parts_t *p, const qp_jv_string_t *s, const qp_jv_string_t *separator,
                             int64_t limit)
{
    const char *at = s->data, *end = s->data + s->n, *found;
    while (limit-- != 0 &&
           (found = memmem(at, (size_t)(end - at), separator->data, separator->n)) != NULL) {
        QP_TRY(add_part(p, at, found));
        at = found + separator->n;
    }
    return add_part(p, at, end);
}

static qp_error_t split_text_right(parts_t *p, const qp_jv_string_t *s,
                                   const qp_jv_string_t *separator, int64_t limit)
{
    const char *end = s->data + s->n, *found;
    QP_TRY(qp_jinja_spend(p->run, s->n * (separator->n / 64 + 1)));
    while (limit-- != 0 && (found = find_last(s->data, end, separator)) != NULL) {
        QP_TRY(add_part(p, found + separator->n, end));
        end = found;
    }
    return add_part(p, s->data, end);
}

static void reverse(qp_jinja_vector_t *vector)
{
    for (int64_t i = 0, j = vector->n - 1; i < j; i++, j--) {
        const qp_jv_t swapped = vector->at[i];
        vector->at[i] = vector->at[j];
        vector->at[j] = swapped;
    }
}

static qp_error_t split_sides(const qp_jinja_call_t *call, bool right, qp_jv_t *result)
{
    const qp_jv_string_t *s = call->self.as.s;
    qp_jv_string_t *separator = NULL;
    parts_t p = {.run = call->run};
    int64_t limit = -1;
    if (qp_jinja_given(call, 0))
        QP_TRY(qp_jinja_want_string(call, 0, &separator));
    QP_TRY(qp_jinja_want_int(call, 1, -1, &limit));
    if (separator != NULL && separator->n == 0)
        return QP_ERROR(QP_INPUT, "split: the separator is empty");
    if (separator == NULL)
        QP_TRY((right ? split_space_right : split_space)(&p, s->data, s->data + s->n, limit));
    else
        QP_TRY((right ? split_text_right : split_text)(&p, s, separator, limit));
    if (right)
        reverse(&p.parts);
    *result = qp_jv_list(&call->run->arena, QP_JV_LIST, p.parts.at, p.parts.n);
    return NULL;
}

static qp_error_t split(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return split_sides(call, false, result);
}

static qp_error_t rsplit(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return split_sides(call, true, result);
}

static qp_error_t splitlines(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return qp_jinja_split_lines(call->run, call->self.as.s, qp_jinja_flag(call, 0), result);
}

static qp_error_t partition_at(const qp_jinja_call_t *call, bool last, qp_jv_t *result)
{
    const qp_jv_string_t *s = call->self.as.s;
    const char *begin = s->data, *end = s->data + s->n;
    qp_jv_string_t *separator = NULL;
    parts_t p = {.run = call->run};
    QP_TRY(qp_jinja_want_string(call, 0, &separator));
    if (separator->n == 0)
        return QP_ERROR(QP_INPUT, "partition: the separator is empty");
    QP_TRY(qp_jinja_spend(call->run, s->n));
    const char *found = last ? find_last(begin, end, separator)
                             : memmem(begin, s->n, separator->data, separator->n);
    const char *first = found != NULL ? found
                        : last        ? begin
                                      : end,
               *second = found != NULL ? found + separator->n : first;
    QP_TRY(add_part(&p, begin, first));
    QP_TRY(add_part(&p, first, second));
    QP_TRY(add_part(&p, second, end));
    *result = qp_jv_list(&call->run->arena, QP_JV_TUPLE, p.parts.at, p.parts.n);
    return NULL;
}

static qp_error_t partition(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return partition_at(call, false, result);
}

static qp_error_t rpartition(const qp_jinja_call_t *call, qp_jv_t *result)
{
    return partition_at(call, true, result);
}

static qp_error_t join(const qp_jinja_call_t *call, qp_jv_t *result)
{
    qp_jinja_text_t text = {.arena = &call->run->arena};
    const qp_jv_string_t *separator = call->self.as.s;
    qp_jinja_iter_t *iter = NULL;
    QP_TRY(qp_jinja_iterate(call->run, &call->arg[0], &iter));
    for (int64_t i = 0;; i++) {
        qp_jv_t value;
        bool end = false;
        QP_TRY(qp_jinja_next(call->run, iter, &value, &end));
        if (end)
            break;
        if (value.type != QP_JV_STRING || value.as.s->markup)
            return QP_ERROR(QP_INPUT, "join: element %lld must be a plain str, not a %s",
                            (long long)i, qp_jv_type_name(&value));
        QP_TRY(qp_jinja_spend(call->run, separator->n + value.as.s->n));
        if (i > 0)
            qp_jinja_put(&text, separator->data, separator->n);
        qp_jinja_put(&text, value.as.s->data, value.as.s->n);
    }
    *result = qp_jv_string_of(&text);
    return NULL;
}

const qp_jinja_builtin_t qp_jinja_search_methods[] = {
    {"count", "/sub,start,end", 1, count, false},
    {"endswith", "/suffix,start,end", 1, endswith, false},
    {"find", "/sub,start,end", 1, find, false},
    {"index", "/sub,start,end", 1, index_of, false},
    {"join", "/iterable", 1, join, false},
    {"partition", "/sep", 1, partition, false},
    {"removeprefix", "/prefix", 1, removeprefix, false},
    {"removesuffix", "/suffix", 1, removesuffix, false},
    {"replace", "/old,new,count", 2, replace, false},
    {"rfind", "/sub,start,end", 1, rfind, false},
    {"rindex", "/sub,start,end", 1, rindex_of, false},
    {"rpartition", "/sep", 1, rpartition, false},
    {"rsplit", "sep,maxsplit", 0, rsplit, false},
    {"split", "sep,maxsplit", 0, split, false},
    {"splitlines", "keepends", 0, splitlines, false},
    {"startswith", "/prefix,start,end", 1, startswith, false},
    {.name = NULL},
};
